# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""ResNet-C4 with the stride in the first 1x1 convolution; maps are (N, C, H, W)."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

BLOCKS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EPS = 1e-5


class FrozenNorm(nn.Module):
    """Batch normalisation with fixed statistics, computed at every call, like the official one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            self.register_buffer(name, torch.full((channels,), float(value)))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        if not maps.requires_grad:
            return F.batch_norm(
                maps, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, EPS
            )
        # Where a gradient is wanted: batch_norm would also compute those of weight and bias.
        scale = self.weight * (self.running_var + EPS).rsqrt()
        shift = self.bias - self.running_mean * scale
        return maps * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class BatchNorm(nn.Module):
    """Batch normalisation that trains; without torch's counter of batches."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        return F.batch_norm(
            maps,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            0.1,
            EPS,
        )


def norm_of(kind: str, frozen: bool) -> type[nn.Module]:
    """The class of a stage's norms: what is not trained has fixed statistics."""
    return FrozenNorm if frozen or kind == "FrozenBN" else BatchNorm


class ConvNorm(nn.Conv2d):
    """A convolution without bias, then its norm."""

    def __init__(
        self, channels: int, out: int, side: int, stride: int, norm: type[nn.Module]
    ) -> None:
        super().__init__(channels, out, side, stride, side // 2, bias=False)
        self.norm = norm(out)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H / stride, W / stride), rounded up."""
        return self.norm(super().forward(maps))


class Bottleneck(nn.Module):
    """1x1 with the stride, 3x3, 1x1, and the shortcut."""

    def __init__(self, channels: int, out: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__()
        width = out // 4
        self.shortcut = ConvNorm(channels, out, 1, stride, norm) if channels != out else None
        self.conv1 = ConvNorm(channels, width, 1, stride, norm)
        self.conv2 = ConvNorm(width, width, 3, 1, norm)
        self.conv3 = ConvNorm(width, out, 1, 1, norm)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H / stride, W / stride)."""
        out = F.relu_(self.conv1(maps))
        out = F.relu_(self.conv2(out))
        out = self.conv3(out)
        out += maps if self.shortcut is None else self.shortcut(maps)
        return F.relu_(out)


def stage(
    blocks: int, channels: int, out: int, stride: int, norm: type[nn.Module]
) -> nn.Sequential:
    """Bottlenecks, the first with the stride."""
    first = Bottleneck(channels, out, stride, norm)
    return nn.Sequential(first, *(Bottleneck(out, out, 1, norm) for _ in range(blocks - 1)))


class Stem(nn.Module):
    """7x7 convolution and max pooling, both of stride 2."""

    def __init__(self, out: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, out, 7, 2, norm)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.conv1(images)), 3, 2, 1)


class Backbone(nn.Module):
    """Stem to res4; what `freeze_at` names is not trained, and autograd leaves it out."""

    def __init__(self, depth: int, norm: str, freeze_at: int, stem: int, res2: int) -> None:
        super().__init__()
        blocks = BLOCKS[depth]
        kinds = [norm_of(norm, freeze_at >= number) for number in (1, 2, 3, 4)]
        self.stem = Stem(stem, kinds[0])
        self.res2 = stage(blocks[0], stem, res2, 1, kinds[1])
        self.res3 = stage(blocks[1], res2, 2 * res2, 2, kinds[2])
        self.res4 = stage(blocks[2], 2 * res2, 4 * res2, 2, kinds[3])
        for number, part in enumerate((self.stem, self.res2, self.res3, self.res4), start=1):
            if freeze_at >= number:
                part.requires_grad_(False)

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Stem, res2, res3 and res4 of (N, 3, H, W)."""
        stem = self.stem(images)
        res2 = self.res2(stem)
        res3 = self.res3(res2)
        return stem, res2, res3, self.res4(res3)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 16, W / 16)."""
        return self.stages(images)[3]
