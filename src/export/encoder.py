# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block's encoder as it is exported: a picture on a canvas in, its map out.

Letters: h x w the canvas, C channels of the map.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.defrcn.pcb_encoder import IMAGENET_MEAN, IMAGENET_STD
from src.defrcn.pcb_resnet import NUM_STAGES, Bottleneck, Conv, ResNet
from src.defrcn.portable import FixedConvolution
from src.defrcn.resnet import Convolution, valid_mask


class EncoderForExport(nn.Cell):
    """`pcb_resnet.ResNet` for one picture on a canvas, with what surrounds it on the host.

    Args:
        net: the encoder, masked, with its weights; its blocks are exchanged.
        height: h, a multiple of 32.
        width: w, likewise.
        oblong: see `portable.FixedConvolution`.

    Inputs:
        - **image** (Tensor) - (1, 3, h, w) float32, BGR from 0 to 255 at its own size, top left;
          what lies beyond the picture does not matter as long as it is finite.
        - **size** (Tensor) - (1, 2) float32: height, width of the picture.

    Outputs:
        features (1, h / 32, w / 32, C) float32. The first ceil(height / 32) rows and
        ceil(width / 32) columns are the picture's.
    """

    def __init__(self, net: ResNet, *, height: int, width: int, oblong: bool = False) -> None:
        super().__init__()
        if not net.masked:
            raise ValueError("an encoder for a canvas must be built with masked=True")
        for stage in range(1, NUM_STAGES + 1):
            blocks = [FixedBottleneck(one, oblong=oblong) for one in getattr(net, f"layer{stage}")]
            setattr(net, f"layer{stage}", nn.CellList(blocks))
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


class FixedBottleneck(nn.Cell):
    """`pcb_resnet.Bottleneck` with its norms inside its convolutions.

    Args:
        block: whose parameters it takes.
        oblong: see `portable.FixedConvolution`.
    """

    def __init__(self, block: Bottleneck, *, oblong: bool) -> None:
        super().__init__()
        self.projected = block.projected
        if block.projected:
            self.shortcut = _fixed(block.downsample[0], block.downsample[1], oblong)
        self.conv1 = _fixed(block.conv1, block.bn1, oblong)
        self.conv2 = _fixed(block.conv2, block.bn2, oblong)
        self.conv3 = _fixed(block.conv3, block.bn3, oblong)

    def construct(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `Bottleneck`."""
        out = ops.relu(self.conv1(features))
        if mask is not None:
            out = out * mask
        out = self.conv3(ops.relu(self.conv2(out)))
        if self.projected:
            features = self.shortcut(features)
        return ops.relu(out + features)


def _fixed(convolution: Conv, norm: nn.Cell, oblong: bool) -> FixedConvolution:
    scale, shift = norm()
    weight = convolution.weight * scale.reshape(-1, 1, 1, 1)
    channels, side, stride = weight.shape[0], weight.shape[2], convolution.conv.stride[2]
    return FixedConvolution(
        weight,
        shift,
        Convolution(channels, side, stride, side // 2),
        oblong=oblong and stride == 1,
        name=convolution.weight.name.rpartition(".")[0],
    )


def example_inputs(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Inputs of the right shapes and dtypes, for tracing."""
    return (
        Tensor(np.zeros((1, 3, height, width), np.float32)),
        Tensor(np.array([[height, width]], np.float32)),
    )
