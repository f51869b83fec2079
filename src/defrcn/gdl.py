# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The gradient decoupled layer (DeFRCN, sec. 3.2, eq. 1-3)."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops


def scale_gradient(features: Tensor, scale: float) -> Tensor:
    """Identity forward; backward multiplies the gradient by `scale`.

    A scale of 0 becomes a plain `stop_gradient`, so that nothing is computed for the part of
    the network in front of it.
    """
    if scale == 1.0:
        return features
    fixed = ops.stop_gradient(features)
    if scale == 0.0:
        return fixed
    # The difference is zero, so the value is exactly `features` whatever the scale.
    return fixed + scale * (features - fixed)


class GradientDecoupledLayer(nn.Cell):
    """`scale_gradient`, then a learned per-channel scale and shift, identity at the start.

    Args:
        num_channels: C.
        scale: λ of the backward pass.

    Inputs:
        - **features** (Tensor) - (N, H, W, C) float32.

    Outputs:
        Tensor of the same shape.
    """

    def __init__(self, num_channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        shape = (1, num_channels, 1, 1)  # as the official checkpoints have it
        self.weight = Parameter(Tensor(np.ones(shape, np.float32)), name="weight")
        self.bias = Parameter(Tensor(np.zeros(shape, np.float32)), name="bias")

    def construct(self, features: Tensor) -> Tensor:
        """See the class."""
        features = scale_gradient(features, self.scale)
        return features * self.weight.reshape(-1) + self.bias.reshape(-1)
