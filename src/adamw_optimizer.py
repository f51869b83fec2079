# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""AdamW (Loshchilov & Hutter 2019), for small networks that train from scratch.

Not the official optimizer: SGD at one rate for heads and backbone needs pre-trained weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

BETA2, EPS = 0.99, 1e-8


def _like(parameters: Sequence[Parameter], kind: str) -> ms.ParameterTuple:
    """Zeros of the shapes of `parameters`, named after them."""
    return ms.ParameterTuple(
        Parameter(Tensor(np.zeros(p.shape, np.float32)), name=f"{kind}.{p.name}")
        for p in parameters
    )


class AdamW(nn.Cell):
    """Steps of the mean gradient over its root mean square, decay apart from both.

    Args:
        parameters: trainable parameters.
        decays: weight decay of each.
        beta1: how much of the mean gradient is kept at each step.
        beta2: the same for the mean square.
        eps: added to the root.
        in_one: one operator for the whole step, see `defrcn.kernels.KernelAdamWStep`, or None.

    Inputs:
        - **gradients** (tuple of Tensor) - in the order of `parameters`.
        - **lr** (Tensor) - scalar float32.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        decays: Sequence[float],
        beta1: float = 0.9,
        beta2: float = BETA2,
        eps: float = EPS,
        in_one: nn.Cell | None = None,
    ) -> None:
        super().__init__()
        self.parameters = ms.ParameterTuple(parameters)
        self.means = _like(parameters, "mean")
        self.squares = _like(parameters, "square")
        self.steps = Parameter(Tensor(np.zeros(1, np.float32)), name="adamw.steps")
        self.decays = tuple(float(decay) for decay in decays)
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.in_one = in_one
        self.adam = ops.Adam()  # one pass over the numbers, where single operators make a dozen

    @property
    def state(self) -> tuple[Parameter, ...]:
        """What a checkpoint has to hold."""
        return (*self.means, *self.squares, self.steps)

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> Tensor:
        """Make one step; returns `lr`."""
        if self.in_one is not None:
            kept = (self.steps, self.parameters, self.means, self.squares)
            return self.in_one(lr, *kept, gradients)
        steps = self.steps + 1.0
        ops.assign(self.steps, steps)
        # Both means start at zero; these factors undo the bias towards it (Adam, sec. 3).
        mean_share = 1.0 - ops.exp(steps * float(np.log(self.beta1)))
        square_share = 1.0 - ops.exp(steps * float(np.log(self.beta2)))
        # The operator adds eps to the root of the biased mean square.
        eps = self.eps * ops.sqrt(square_share)
        for i in range(len(self.decays)):
            weight = self.parameters[i]
            if self.decays[i] > 0:
                ops.assign(weight, weight * (1.0 - self.decays[i] * lr))
            self.adam(
                weight,
                self.means[i],
                self.squares[i],
                1.0 - mean_share,
                1.0 - square_share,
                lr,
                self.beta1,
                self.beta2,
                eps,
                gradients[i],
            )
        return lr
