# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Parts of the detector that are computed otherwise, and faster on a CPU: same numbers, less work.

`make_fast` puts them into a built detector. Each has the interface of the part that it replaces,
and is held equal to it by a test.
Letters: N images, H x W cells, B anchors a cell, A = H * W * B anchors, S samples of an image,
R boxes of all images together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.defrcn.rcnn import BoxMaps
from src.defrcn.resnet import Bottleneck, Convolution
from src.defrcn.rpn import RPNHead, in_batch
from src.defrcn.winograd import winograd_conv3x3, winograd_conv4x4


class SampledRPNHead(RPNHead):
    """`RPNHead` whose gradient is taken at the sampled anchors only.

    In training the dense pass, by Winograd tiles, has no gradient; the head runs once more, with
    gradient, at the few cells of the sampled anchors. Exact, and cheaper than a dense backward
    pass.
    """

    def construct(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, C) -> logits (N, A), deltas (N, A, 4)."""
        batch, channels = features.shape[0], features.shape[3]
        if self.training:
            features = ops.stop_gradient(features)
        hidden = winograd_conv3x3(features, self.conv.weight) + self.conv.bias
        logits, deltas = self.predict(hidden.reshape(-1, channels))
        logits, deltas = logits.reshape(batch, -1), deltas.reshape(batch, -1, 4)
        if self.training:
            return ops.stop_gradient(logits), ops.stop_gradient(deltas)
        return logits, deltas

    def at_anchors(
        self, features: Tensor, logits: Tensor, deltas: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `RPNHead.at_anchors`: computed anew from the features."""
        _, height, width, channels = features.shape
        cell = index.reshape(-1) // self.num_cell_anchors
        row, column = cell // width, cell % width
        step = Tensor(np.array([-1, 0, 1], np.int32))
        rows = (row.reshape(-1, 1, 1) + step.reshape(1, 3, 1)) + ops.zeros((1, 1, 3), ms.int32)
        columns = column.reshape(-1, 1, 1) + step.reshape(1, 1, 3)
        columns = columns + ops.zeros((1, 3, 1), ms.int32)
        inside_rows = ops.logical_and(rows >= 0, rows < height)
        inside = ops.logical_and(inside_rows, ops.logical_and(columns >= 0, columns < width))
        place = ops.where(inside, rows * width + columns, ops.zeros_like(rows))
        place = in_batch(place.reshape(index.shape[0], -1), height * width)
        patches = ops.gather(features.reshape(-1, channels), place, 0)
        patches = patches * inside.astype(ms.float32).reshape(-1, 1)
        weight = self.conv.weight.transpose(0, 2, 3, 1).reshape(-1, 9 * channels)
        hidden = ops.MatMul(transpose_b=True)(patches.reshape(-1, 9 * channels), weight)
        all_logits, all_deltas = self.predict(hidden + self.conv.bias)
        anchor = index.reshape(-1, 1) % self.num_cell_anchors
        choice = ops.arange(self.num_cell_anchors).astype(ms.int32) == anchor
        choice = choice.astype(ms.float32)
        all_deltas = all_deltas.reshape(-1, self.num_cell_anchors, 4) * choice.expand_dims(2)
        total = ops.ReduceSum()
        return total(all_logits * choice, 1), total(all_deltas, 1)


class BoxTiles(nn.Cell):
    """`BoxMaps` for `TileBottleneck`: boxes stay as `ROIAlign` gives them, position-major."""

    def construct(self, pooled: Tensor) -> Tensor:
        """(16, R, C) -> the same."""
        return pooled

    def average(self, tiles: Tensor) -> Tensor:
        """(16, R, C) -> (R, C), the mean over positions."""
        return ops.mean(tiles, 0)


class TileBottleneck(nn.Cell):
    """`Bottleneck` with frozen norms on 4x4 maps, as matrix products and Winograd tiles.

    Args:
        block: whose parameters it takes; its stride, if any, is already taken by the pooling.
    """

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.projected = block.projected
        if block.projected:
            self.shortcut = block.shortcut
        self.conv1, self.conv2, self.conv3 = block.conv1, block.conv2, block.conv3

    def construct(self, features: Tensor) -> Tensor:
        """(16, R, C) -> (16, R, D)."""
        out = ops.relu(pointwise(features, *self.conv1.folded()))
        weight, shift = self.conv2.folded()
        out = ops.relu(winograd_conv4x4(out, weight) + shift)
        out = pointwise(out, *self.conv3.folded())
        if self.projected:
            features = pointwise(features, *self.shortcut.folded())
        return ops.relu(out + features)


def pointwise(features: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """A 1x1 convolution as one matrix product: (P, R, C), (D, C, 1, 1), (D,) -> (P, R, D)."""
    positions, rois, channels = features.shape
    # The primitive, not ops.matmul: with dynamic shapes that one goes through a slow expansion.
    product = ops.MatMul(transpose_b=True)
    rows = product(features.reshape(-1, channels), weight.reshape(-1, channels))
    return (rows + shift).reshape(positions, rois, -1)


def make_fast(net: nn.Cell) -> None:
    """Exchange parts of a detector for those of this module; its parameters keep their names.

    Args:
        net: `DeFRCN`.
    """
    with names_kept(net):
        rpn, heads = net.proposal_generator, net.roi_heads
        head = rpn.rpn_head
        rpn.rpn_head = SampledRPNHead(head.conv, head.objectness_logits, head.anchor_deltas)
        # Res5 begins with 1x1 convolutions of stride 2, which read the even bins only.
        heads.pooler.bin_step = 2
        side = -(-heads.pooler.num_bins // 2)
        first = heads.res5[0]
        for convolution in (first.conv1, first.shortcut):
            convolution.convolve = Convolution(convolution.weight.shape[0], 1, 1, 0)
        if side == 4 and first.conv2.foldable:
            heads.layout = BoxTiles()
            heads.res5 = nn.CellList([TileBottleneck(block) for block in heads.res5])
        else:
            heads.layout = BoxMaps(side)


@contextlib.contextmanager
def names_kept(net: nn.Cell) -> Iterator[None]:
    """Inside, Cells may be given new parents, which would rename their parameters."""
    parameters = [(parameter, parameter.name) for parameter in net.get_parameters()]
    try:
        yield
    finally:
        for parameter, name in parameters:
            parameter.name = name
