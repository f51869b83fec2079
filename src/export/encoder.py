# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block's encoder as it is exported: a picture on a canvas in, its map out.

Letters: h x w the canvas, C channels of the map.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.defrcn.pcb_encoder import IMAGENET_MEAN, IMAGENET_STD
from src.defrcn.pcb_resnet import Bottleneck, ResNet
from src.defrcn.portable import TapConvolution
from src.defrcn.resnet import valid_mask


class EncoderForExport(nn.Cell):
    """`pcb_resnet.ResNet` for one picture on a canvas, with what surrounds it on the host.

    Args:
        net: the encoder, masked, with its weights; it is changed if `taps`.
        height: h, a multiple of 32.
        width: w, likewise.
        taps: use `portable.TapConvolution`.

    Inputs:
        - **image** (Tensor) - (1, 3, h, w) float32, BGR from 0 to 255 at its own size, top left;
          what lies beyond the picture does not matter as long as it is finite.
        - **size** (Tensor) - (1, 2) float32: height, width of the picture.

    Outputs:
        features (1, h / 32, w / 32, C) float32. The first ceil(height / 32) rows and
        ceil(width / 32) columns are the picture's.
    """

    def __init__(self, net: ResNet, *, height: int, width: int, taps: bool = False) -> None:
        super().__init__()
        if not net.masked:
            raise ValueError("an encoder for a canvas must be built with masked=True")
        if taps:
            use_taps(net)
        self.net = net
        self.canvas = (height, width)
        self.white = Tensor(np.full((1, 1, 1, 1), 255, np.float32))
        self.mean = Tensor(np.array(IMAGENET_MEAN, np.float32).reshape(1, 3, 1, 1))
        self.std = Tensor(np.array(IMAGENET_STD, np.float32).reshape(1, 3, 1, 1))
        self.set_train(False)

    def construct(self, image: Tensor, size: Tensor) -> Tensor:
        """See the class."""
        whole = size.astype(ms.int32).reshape(2)
        mask = valid_mask(self.canvas[0], self.canvas[1], whole[0], whole[1])
        rgb = ops.concat((image[:, 2:3], image[:, 1:2], image[:, 0:1]), 1)
        normalised = (rgb / self.white - self.mean) / self.std * mask
        # Sides after the stem, odd or not; only MindCV's pooling asks.
        stem = ops.ceil(size.reshape(2) * 0.5)
        odd = stem - ops.floor(stem * 0.5) * 2.0
        return self.net(normalised, whole, odd).transpose(0, 2, 3, 1)


class _TapConv(TapConvolution):
    """`TapConvolution` with a weight of its own, as `pcb_resnet.Conv` has one."""

    def __init__(self, weight: Parameter) -> None:
        super().__init__()
        self.weight = weight


def use_taps(net: ResNet) -> None:
    """Put `TapConvolution` in the place of every 3x3 convolution of stride 1."""
    for _, cell in net.cells_and_names():
        if isinstance(cell, Bottleneck) and cell.conv2.conv.stride[2:] == (1, 1):
            cell.conv2 = _TapConv(cell.conv2.weight)


def example_inputs(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Inputs of the right shapes and dtypes, for tracing."""
    return (
        Tensor(np.zeros((1, 3, height, width), np.float32)),
        Tensor(np.array([[height, width]], np.float32)),
    )
