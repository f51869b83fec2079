# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The start of a network that no weights are given for."""

from __future__ import annotations

import math
import zlib

import numpy as np
from mindspore import Tensor, nn


def initialise(net: nn.Cell, seed: int) -> None:
    """Draw the start of a run without weights, each array from the seed and its name.

    Convolutions: normal with std sqrt(2 / fan_out) (He et al. 2015); RPN and class layer: 0.01;
    box layer: 0.001; biases 0. With norms that train (BN) the scale of a convolution does not
    matter to what comes out, but the smaller it is the faster SGD turns it (van Laarhoven 2017);
    those start at 0.3 of that, or a short run would leave them where they were. Where norms are
    frozen nothing else bounds what blocks add up to: each starts with 0.3 of its output.
    """
    names = {parameter.name for parameter in net.trainable_params()}
    for parameter in net.get_parameters():
        name, shape = parameter.name, parameter.shape
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if len(shape) >= 2 and name.endswith(".weight") and "affine" not in name:
            if "rpn_head" in name or "cls_score" in name:
                std = 0.01
            elif "bbox_pred" in name:
                std = 0.001
            else:
                std = math.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
                if name.replace(".weight", ".norm.weight") in names:
                    std *= 0.3
            values = (rng.standard_normal(shape) * std).astype(np.float32)
            parameter.set_data(Tensor(values))
        elif name.endswith("conv3.norm.weight") and not parameter.requires_grad:
            parameter.set_data(Tensor(np.full(shape, 0.3, np.float32)))
