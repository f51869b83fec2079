# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""ResNet-C4: stem and res2-res4 as the backbone, res5 as the head on RoIs.

The MSRA variant (He et al. 2016): a stage's stride sits in its first 1x1 convolution. Feature
maps are (N, C, H, W) float32.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.weights.weight_shapes import STAGE_BLOCKS

STRIDE = 16  # pixels a cell of res4, the map that both heads look at
STAGES = ("res2", "res3", "res4")  # of the backbone, after the stem


class FrozenBatchNorm(nn.Cell):
    """Batch normalisation with fixed statistics: a scale and a shift per channel, never trained.

    Args:
        num_channels: C.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            data = Tensor(np.full(num_channels, value, np.float32))
            setattr(self, name, Parameter(data, name=name, requires_grad=False))

    def construct(self) -> tuple[Tensor, Tensor]:
        """Return (scale, shift), each (C,), to be folded into the convolution before it."""
        scale = self.weight / ops.sqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale


class BatchNorm(nn.Cell):
    """Batch normalisation: of the batch in training, whose statistics are gathered for later.

    Its parameters have the names of `FrozenBatchNorm`, which a trained one can be loaded as.

    Args:
        num_channels: C.
        eps: added to the variance.
        momentum: share of a batch in the gathered statistics.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            data = Tensor(np.full(num_channels, value, np.float32))
            kept = name.startswith("running")
            setattr(self, name, Parameter(data, name=name, requires_grad=not kept))
        self.of_batch = ops.BatchNorm(is_training=True, epsilon=eps, momentum=momentum)
        self.gathered = ops.BatchNorm(is_training=False, epsilon=eps)

    def construct(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        normalise = self.of_batch if self.training else self.gathered
        return normalise(features, self.weight, self.bias, self.running_mean, self.running_var)[0]


NORMS = {"FrozenBN": FrozenBatchNorm, "BN": BatchNorm}


def norm_of(kind: str, frozen: bool) -> str:
    """The norm of a stage: batch statistics are of no use to one that is not trained."""
    return "FrozenBN" if frozen else kind


class Convolution(nn.Cell):
    """A convolution with zeros around.

    Args:
        out_channels: D.
        kernel_size: k.
        stride: pixels.
        padding: zeros on each side, pixels.
    """

    def __init__(self, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__()
        # The operator itself: ops.conv2d is a program that is compiled anew at each use.
        size = (kernel_size, kernel_size)  # as the export to ONNX wants it
        self.conv = ops.Conv2D(out_channels, size, pad_mode="pad", pad=padding, stride=stride)

    def construct(self, features: Tensor, weight: Tensor) -> Tensor:
        """(N, C, H, W) and (D, C, k, k) -> (N, D, H / stride, W / stride), rounded up."""
        return self.conv(features, weight)


class ConvNorm(nn.Cell):
    """A convolution without bias and its normalisation; a frozen one is folded into the weight.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        kernel_size: 1, 3 or 7; padding keeps the size at stride 1.
        stride: pixels.
        norm: a key of `NORMS`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, norm: str
    ) -> None:
        super().__init__()
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = Parameter(Tensor(np.zeros(shape, np.float32)), name="weight")
        self.norm = NORMS[norm](out_channels)
        self.foldable = norm == "FrozenBN"
        self.convolve = Convolution(out_channels, kernel_size, stride, kernel_size // 2)

    def construct(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H / stride, W / stride), rounded up."""
        if self.foldable:
            weight, shift = self.folded()
            return ops.bias_add(self.convolve(features, weight), shift)
        return self.norm(self.convolve(features, self.weight))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (D, C, k, k) and bias (D,) with the frozen normalisation inside."""
        scale, shift = self.norm()
        return self.weight * scale.reshape(-1, 1, 1, 1), shift


class Bottleneck(nn.Cell):
    """1x1 (with the stride), 3x3, 1x1, and a shortcut.

    Args:
        in_channels: input channels.
        width: channels of the 3x3 convolution.
        out_channels: output channels.
        stride: of the first 1x1 convolution and of the shortcut.
        norm: a key of `NORMS`.
    """

    def __init__(
        self, in_channels: int, width: int, out_channels: int, stride: int, norm: str
    ) -> None:
        super().__init__()
        self.projected = in_channels != out_channels or stride != 1
        if self.projected:
            self.shortcut = ConvNorm(in_channels, out_channels, 1, stride, norm)
        self.conv1 = ConvNorm(in_channels, width, 1, stride, norm)
        self.conv2 = ConvNorm(width, width, 3, 1, norm)
        self.conv3 = ConvNorm(width, out_channels, 1, 1, norm)

    def construct(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> (N, D, H / stride, W / stride).

        `mask` (1, 1, H / stride, W / stride) is 0 on cells that do not belong to the batch.
        """
        out = ops.relu(self.conv1(features))
        if mask is not None:
            out = out * mask
        out = self.conv3(ops.relu(self.conv2(out)))
        if self.projected:
            return ops.relu(out + self.shortcut(features))
        return ops.relu(out + features)


def make_stage(
    num_blocks: int, in_channels: int, out_channels: int, stride: int, norm: str
) -> nn.CellList:
    """A stage of bottlenecks, the first with the stride; width is a quarter of the output."""
    width = out_channels // 4
    first = Bottleneck(in_channels, width, out_channels, stride, norm)
    others = (Bottleneck(out_channels, width, out_channels, 1, norm) for _ in range(1, num_blocks))
    return nn.CellList([first, *others])


def freeze(cell: nn.Cell) -> None:
    """Mark every parameter of a cell as not trained."""
    for parameter in cell.get_parameters():
        parameter.requires_grad = False


def half(size: int) -> int:
    """Cells of a map after a step of stride 2, rounded up."""
    return (size + 1) // 2


def valid_mask(
    height: int, width: int, valid_height: Tensor, valid_width: Tensor, stride: int = 1
) -> Tensor:
    """1 on cells that begin inside the valid size, else 0: (1, 1, height, width) float32.

    Args:
        height: cells of the map.
        width: likewise.
        valid_height: scalar int32, pixels in use.
        valid_width: likewise.
        stride: pixels a cell; a part of a cell in use counts, as `half` rounds up.
    """
    rows = (ops.arange(height).astype(ms.int32) * stride < valid_height).astype(ms.float32)
    columns = (ops.arange(width).astype(ms.int32) * stride < valid_width).astype(ms.float32)
    return rows.reshape(1, 1, -1, 1) * columns.reshape(1, 1, 1, -1)


def max_pool_after_relu(features: Tensor) -> Tensor:
    """3x3 max pooling, stride 2, padding 1, of values that are not negative.

    A border of zeros and valid pooling are twice as fast on CPU as padding by the operator, and
    the primitive's gradient is two hundred times faster than that of `ops.max_pool2d`.
    """
    row = ops.zeros_like(features[:, :, :1, :])
    features = ops.concat((row, features, row), 2)
    column = ops.zeros_like(features[:, :, :, :1])
    features = ops.concat((column, features, column), 3)
    return ops.MaxPool(3, 2, "valid")(features)


class Stem(nn.Cell):
    """7x7 convolution of stride 2, then max pooling of stride 2."""

    def __init__(self, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, out_channels, 7, 2, norm)

    def construct(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 4, W / 4), rounded up."""
        out = ops.relu(self.conv1(images))
        if mask is not None:
            out = out * mask
        return max_pool_after_relu(out)


class ResNetC4(nn.Cell):
    """Backbone up to res4, stride 16.

    Args:
        depth: 26, 50, 101 or 152.
        norm: "FrozenBN" (pre-trained weights), or "BN" (from scratch).
        freeze_at: 0 freezes nothing, 1 the stem, k the stem and res2..resk; these have FrozenBN
            where the others have BN.
        stem_channels: channels of the stem.
        res2_channels: channels of res2; each later stage doubles them.
        masked: zero the cells beyond `padded_size` in front of every convolution that looks
            at neighbours, so that a larger fixed shape gives the same features.

    Inputs:
        - **images** (Tensor) - (N, 3, H, W) float32, normalised, model frame.
        - **padded_size** (Tensor) - (2,) int32: height, width of the batch inside (H, W).

    Outputs:
        Tensor (N, H / 16, W / 16, C) float32 (rounded up), channels last.
    """

    def __init__(
        self,
        *,
        depth: int,
        norm: str,
        freeze_at: int,
        stem_channels: int,
        res2_channels: int,
        masked: bool = False,
    ) -> None:
        super().__init__()
        blocks = STAGE_BLOCKS[depth]
        self.masked = masked
        self.freeze_at = freeze_at
        norms = [norm_of(norm, freeze_at >= number) for number in (1, 2, 3, 4)]
        self.stem = Stem(stem_channels, norms[0])
        self.res2 = make_stage(blocks[0], stem_channels, res2_channels, 1, norms[1])
        self.res3 = make_stage(blocks[1], res2_channels, 2 * res2_channels, 2, norms[2])
        self.res4 = make_stage(blocks[2], 2 * res2_channels, 4 * res2_channels, 2, norms[3])
        for number, part in enumerate((self.stem, self.res2, self.res3, self.res4), start=1):
            if freeze_at >= number:
                freeze(part)

    def construct(self, images: Tensor, padded_size: Tensor) -> Tensor:
        """See the class."""
        return self.stages(images, padded_size)[-1]

    def stages(self, images: Tensor, padded_size: Tensor) -> tuple[Tensor, ...]:
        """Stem, res2, res3 as (N, C, H, W), and res4 as (N, H, W, C)."""
        masks = self._masks(images, padded_size)
        stem = self._cut(self.stem(images, masks[0]), 1)
        res2 = stem
        for block in self.res2:
            res2 = block(res2, masks[1])
        res2 = self._cut(res2, 2)
        res3 = res2
        for block in self.res3:
            res3 = block(res3, masks[2])
        res3 = self._cut(res3, 3)
        res4 = res3
        for block in self.res4:
            res4 = block(res4, masks[3])
        return stem, res2, res3, self._cut(res4.transpose(0, 2, 3, 1), 4)

    def _cut(self, features: Tensor, stage: int) -> Tensor:
        # Frozen weights alone do not free a stage's activations; cutting the graph does.
        if stage == self.freeze_at or (stage == 4 and self.freeze_at > 4):
            return ops.stop_gradient(features)
        return features

    def _masks(self, images: Tensor, padded_size: Tensor) -> tuple:
        if not self.masked:
            return None, None, None, None
        height, width = images.shape[2], images.shape[3]
        masks = []
        for stride in (2, 4, 8, 16):
            height, width = half(height), half(width)
            masks.append(valid_mask(height, width, padded_size[0], padded_size[1], stride))
        return tuple(masks)
