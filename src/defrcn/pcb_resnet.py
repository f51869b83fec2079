# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The encoder of the calibration block: a ResNet as torchvision lays it out (paper, sec. 3.4).

It differs from the detector's backbone: a stage's stride sits in the 3x3 convolution, pictures
are RGB with ImageNet's statistics, and parameters have torchvision's names (`layer1.0.bn1.bias`).
Depth and widths follow from a file's names and shapes, so ResNet-26, -50, -101, -152 and narrow
ones of the same layout are the same code; so are MindCV's, whose first pooling begins elsewhere.
Feature maps are (N, C, H, W) float32, stride 32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.defrcn.resnet import (
    BatchNorm,
    Convolution,
    FrozenBatchNorm,
    half,
    max_pool_after_relu,
    valid_mask,
)
from src.weights.parameter_rules import ParameterRule
from src.weights.weight_shapes import EncoderLayout, Shape, encoder_layout

NUM_STAGES = 4
#: The counter of torch's batch normalisation drives training only.
PCB_RULE = ParameterRule("encoder of the calibration block", (), ("*num_batches_tracked",))


def layout_of(shapes: Mapping[str, Shape], source: object) -> EncoderLayout:
    """Read the sizes off a file's names and shapes, and check that nothing else is in it.

    Raises:
        InputError: the names are not those of a torchvision ResNet of bottlenecks, or the shapes
            contradict each other.
    """
    advice = (
        "convert resnet101-5d3b4d8f.pth with src/pth2ckpt.py, or take a ResNet of bottlenecks of "
        "MindCV's, or the .yaml of an ONNX file"
    )
    layout = encoder_layout(shapes, source, advice)
    PCB_RULE.check(shapes, layout.shapes(), source)
    return layout


class Conv(Convolution):
    """A square convolution without bias whose padding keeps the size at stride 1.

    Inputs:
        - **features** (Tensor) - (N, C, H, W).
        - **weight** (Tensor) - its own, or what became of that.

    Outputs:
        Tensor (N, D, H / stride, W / stride), rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int, stride: int = 1) -> None:
        super().__init__(out_channels, side, stride, side // 2)
        shape = (out_channels, in_channels, side, side)
        self.weight = Parameter(Tensor(np.zeros(shape, np.float32)), name="weight")


class Bottleneck(nn.Cell):
    """1x1, 3x3 (with the stride), 1x1, and a shortcut.

    Args:
        in_channels: input channels.
        width: channels of the 3x3 convolution.
        out_channels: output channels.
        stride: of the 3x3 convolution and of the shortcut.
        batch_statistics: see `ResNet`.
        projected: whether the shortcut has a convolution.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        stride: int,
        batch_statistics: bool,
        projected: bool,
    ) -> None:
        super().__init__()
        norm = BatchNorm if batch_statistics else FrozenBatchNorm
        self.batch_statistics = batch_statistics
        self.projected = projected
        self.conv1 = Conv(in_channels, width, 1)
        self.bn1 = norm(width)
        self.conv2 = Conv(width, width, 3, stride)
        self.bn2 = norm(width)
        self.conv3 = Conv(width, out_channels, 1)
        self.bn3 = norm(out_channels)
        if projected:
            self.downsample = nn.CellList(
                [Conv(in_channels, out_channels, 1, stride), norm(out_channels)]
            )

    def construct(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, D, H / stride, W / stride), rounded up.

        `mask` (1, 1, H, W) is 0 on cells that do not belong to the picture.
        """
        out = ops.relu(_normed(self.conv1, self.bn1, features, self.batch_statistics))
        if mask is not None:
            out = out * mask
        out = ops.relu(_normed(self.conv2, self.bn2, out, self.batch_statistics))
        out = _normed(self.conv3, self.bn3, out, self.batch_statistics)
        if self.projected:
            convolution, norm = self.downsample[0], self.downsample[1]
            features = _normed(convolution, norm, features, self.batch_statistics)
        return ops.relu(out + features)


def _normed(convolution: Conv, norm: nn.Cell, features: Tensor, batch_statistics: bool) -> Tensor:
    """Convolve and normalise; frozen statistics are folded into the weight."""
    if batch_statistics:
        return norm(convolution(features, convolution.weight))
    scale, shift = norm()
    weight = convolution.weight * scale.reshape(-1, 1, 1, 1)
    return ops.bias_add(convolution(features, weight), shift)


def max_pool_same(features: Tensor, odd: Tensor) -> Tensor:
    """3x3 max pooling, stride 2, of values that are not negative, with MindSpore's "same" padding.

    Args:
        features: (N, C, H, W).
        odd: (2,) float32, 1 where the picture's height or width here is odd: only then does the
            first window begin one cell outside, as torchvision's always does.
    """
    row = ops.zeros_like(features[:, :, :1, :])
    outside = ops.concat((row, features, row), 2)
    features = odd[0] * outside + (1 - odd[0]) * ops.concat((features, row, row), 2)
    column = ops.zeros_like(features[:, :, :, :1])
    outside = ops.concat((column, features, column), 3)
    features = odd[1] * outside + (1 - odd[1]) * ops.concat((features, column, column), 3)
    return ops.MaxPool(3, 2, "valid")(features)


class ResNet(nn.Cell):
    """The whole network.

    Args:
        layout: sizes.
        batch_statistics: normalise with the batch's statistics, to train; otherwise with the
            stored ones, which cannot be trained. Fixed at construction, because a compiled
            function keeps the mode of its first call.
        masked: the picture is smaller than the tensor; the cells beyond it are zeroed in front
            of every convolution that looks at neighbours, so that features stay the same.
        mindcv: pool after the stem as MindCV's ResNets do.

    Inputs:
        - **images** (Tensor) - (N, 3, H, W) float32, RGB, normalised, 0 beyond the picture.
        - **size** (Tensor) - (2,) int32 height, width of the picture; used if `masked`.
        - **odd** (Tensor) - (2,) float32, see `max_pool_same`; used if `mindcv`.

    Outputs:
        Tensor (N, C, H / 32, W / 32) float32, rounded up.
    """

    def __init__(
        self,
        layout: EncoderLayout,
        *,
        batch_statistics: bool = False,
        masked: bool = False,
        mindcv: bool = False,
    ) -> None:
        super().__init__()
        if masked and batch_statistics:
            raise ValueError("the batch's statistics would count what lies beyond the picture")
        self.layout = layout
        self.masked = masked
        self.mindcv = mindcv
        self.batch_statistics = batch_statistics
        self.conv1 = Conv(3, layout.stem_channels, 7, 2)
        self.bn1 = (BatchNorm if batch_statistics else FrozenBatchNorm)(layout.stem_channels)
        for stage in range(NUM_STAGES):
            setattr(self, f"layer{stage + 1}", _stage(layout, stage, batch_statistics))
        shape = (layout.num_outputs, layout.out_channels[-1])
        self.fc = nn.Dense(shape[1], shape[0])
        self.fc.weight.set_data(Tensor(np.zeros(shape, np.float32)))
        self.fc.bias.set_data(Tensor(np.zeros(shape[0], np.float32)))
        self.set_train(batch_statistics)

    def construct(self, images: Tensor, size: Tensor, odd: Tensor | None = None) -> Tensor:
        """See the class."""
        stem, masks = None, (None,) * NUM_STAGES
        if self.masked:
            stem, masks = self._masks(images, size)
        out = self.stem(images, odd, stem)
        for block in self.layer1:
            out = block(out, masks[0])
        # The stride sits in the 3x3 of a stage's first block, whose input has the size before.
        out = self.layer2[0](out, masks[0])
        for block in self.layer2[1:]:
            out = block(out, masks[1])
        out = self.layer3[0](out, masks[1])
        for block in self.layer3[1:]:
            out = block(out, masks[2])
        out = self.layer4[0](out, masks[2])
        for block in self.layer4[1:]:
            out = block(out, masks[3])
        return out

    def stem(self, images: Tensor, odd: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """The first convolution and the pooling: (N, 3, H, W) -> (N, C, H / 4, W / 4)."""
        out = ops.relu(_normed(self.conv1, self.bn1, images, self.batch_statistics))
        if mask is not None:
            out = out * mask
        return max_pool_same(out, odd) if self.mindcv else max_pool_after_relu(out)

    def classify(self, images: Tensor, size: Tensor, share: Tensor) -> Tensor:
        """Pool each map with the weights `share` (N, 1, H / 32, W / 32), then `fc`: (N, D)."""
        pooled = (self.construct(images, size) * share).sum((2, 3))
        return self.fc(pooled)

    def _masks(self, images: Tensor, size: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Masks at stride 2, and at 4, 8, 16, 32."""
        height, width = images.shape[2], images.shape[3]
        stride, found = 1, []
        for _ in range(NUM_STAGES + 1):
            height, width, stride = half(height), half(width), 2 * stride
            found.append(valid_mask(height, width, size[0], size[1], stride))
        return found[0], tuple(found[1:])


def _stage(layout: EncoderLayout, stage: int, batch_statistics: bool) -> nn.CellList:
    out, width = layout.out_channels[stage], layout.widths[stage]
    blocks = [
        Bottleneck(
            out if block else layout.in_channels(stage),
            width,
            out,
            2 if stage and not block else 1,
            batch_statistics,
            block == 0 and layout.projected(stage),
        )
        for block in range(layout.blocks[stage])
    ]
    return nn.CellList(blocks)
