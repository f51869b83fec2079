# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Backbone and res5 in half precision: other numbers, less time and memory on GPU and Ascend.

`make_half` puts these parts into a detector of built-in operators. Weights stay float32, as the
optimizer has them, and so do the RPN, boxes, losses and the statistics of norms; only the
convolutions of the two trunks and the maps between them are half as long (Micikevicius et al.,
ICLR 2018).
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from src.defrcn.fast import names_kept
from src.defrcn.rcnn import BoxMaps
from src.defrcn.resnet import Bottleneck, ConvNorm, ResNetC4


class HalfConvNorm(nn.Cell):
    """A `ConvNorm` whose convolution is computed in half precision.

    Args:
        twin: the one to replace; its parameters are used.
        dtype: float16 or bfloat16.
        half_norm: whether a norm of the batch sees half precision too; its statistics are float32
            in any case. A frozen norm is folded into the weight, in float32.

    Inputs:
        - **features** (Tensor) - (N, C, H, W), any float.

    Outputs:
        Tensor (N, D, H / stride, W / stride), `dtype`.
    """

    def __init__(self, twin: ConvNorm, dtype: ms.Type, *, half_norm: bool) -> None:
        super().__init__()
        self.weight, self.norm = twin.weight, twin.norm
        self.convolve, self.foldable = twin.convolve, twin.foldable
        self.dtype = dtype
        self.norm_dtype = dtype if half_norm else ms.float32

    def construct(self, features: Tensor) -> Tensor:
        """See the class."""
        features = features.astype(self.dtype)
        if self.foldable:
            scale, shift = self.norm()
            weight = (self.weight * scale.reshape(-1, 1, 1, 1)).astype(self.dtype)
            shift = shift.astype(self.dtype).reshape(1, -1, 1, 1)
            return self.convolve(features, weight) + shift
        out = self.convolve(features, self.weight.astype(self.dtype))
        return self.norm(out.astype(self.norm_dtype)).astype(self.dtype)


class HalfBackbone(nn.Cell):
    """A backbone in half precision whose output is float32 again; see `ResNetC4`."""

    def __init__(self, twin: ResNetC4) -> None:
        super().__init__()
        self.twin = twin

    def construct(self, images: Tensor, padded_size: Tensor) -> Tensor:
        """See `ResNetC4`."""
        return self.twin(images, padded_size).astype(ms.float32)


class HalfBoxMaps(BoxMaps):
    """`BoxMaps` for a res5 in half precision: the mean over positions is float32."""

    def average(self, maps: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C) float32."""
        return super().average(maps.astype(ms.float32))


def make_half(net: nn.Cell, dtype: ms.Type, *, half_norm: bool) -> None:
    """Compute backbone and res5 in half precision; names of parameters stay.

    Args:
        net: a `DeFRCN` of built-in operators.
        dtype: float16 or bfloat16.
        half_norm: see `HalfConvNorm`.
    """
    heads = net.roi_heads
    with names_kept(net):
        net.backbone.stem.conv1 = HalfConvNorm(net.backbone.stem.conv1, dtype, half_norm=half_norm)
        for trunk in (net.backbone, heads.res5):
            for _, cell in trunk.cells_and_names():
                if isinstance(cell, Bottleneck):
                    _halve(cell, dtype, half_norm)
        net.backbone = HalfBackbone(net.backbone)
        heads.layout = HalfBoxMaps(heads.layout.side)


def _halve(block: Bottleneck, dtype: ms.Type, half_norm: bool) -> None:
    names = ["conv1", "conv2", "conv3", *(["shortcut"] if block.projected else [])]
    for name in names:
        twin = getattr(block, name)
        setattr(block, name, HalfConvNorm(twin, dtype, half_norm=half_norm))
