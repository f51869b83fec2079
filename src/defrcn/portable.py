# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Parts of the detector in operators that inference runtimes have too: same numbers, other means.

An exported network is the trained one with these parts in place (`make_portable`): MindSpore Lite
and ONNX have no suppression by mask, no sort of any length and no mesh of coordinates.
Letters: A anchors, R boxes.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.defrcn.anchor_generator import AnchorGenerator
from src.defrcn.proposal_generator import (
    LOWEST_SCORE,
    ProposalGenerator,
    settings_of,
    stacked,
)
from src.defrcn.resnet import STRIDE, ConvNorm

# 6000 overlapping boxes took 13 rounds; whether these were enough is an output of the network.
NMS_ROUNDS = 32
_SMALLEST = 1e-30


class TopFirst(nn.Cell):
    """`proposal_generator.BestFirst` by TopK; equal values may come in another order."""

    def construct(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(A,) -> the min(A, count) best values and their places, best first."""
        return ops.TopK(True)(values, min(values.shape[0], count))


class NumbersFirst(nn.Cell):
    """`proposal_generator.BestFirst` by a TopK that NaN may confuse, of any number of values.

    NaN counts as `LOWEST_SCORE`, which is less than any score and marks what is not used. Where
    there are fewer values than asked for, that many follow at some place: a graph of unknown sizes
    has no smaller number to ask for.

    Inputs:
        - **values** (Tensor) - (A,) float32.
        - **count** (int) - how many.

    Outputs:
        values (count,) and places (count,) int32.
    """

    def construct(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See the class."""
        lowest = ops.zeros_like(values) + LOWEST_SCORE
        numbers = ops.where(ops.equal(values, values), values, lowest)
        more = Tensor(np.full(count, LOWEST_SCORE, np.float32))
        best, places = ops.TopK(True)(ops.concat((numbers, more)), count)
        last = ops.zeros_like(places) + (values.shape[0] - 1)
        return best, ops.minimum(places, last)


class FixedPointNMS(nn.Cell):
    """`proposal_generator.GreedyNMS` by rounds of one matrix product.

    A box is kept if no kept box before it overlaps it. Starting with all boxes kept, each round
    applies that rule once to all: the first box is right from the start, and whatever is right
    stays right, so that after R rounds at the latest nothing changes any more. Nearly always it
    is after a dozen.

    Args:
        threshold: IoU above which the lower box is dropped.
        rounds: how often the rule is applied.

    Inputs:
        - **boxes** (Tensor) - (R, 4) float32, finite and not negative, best first.
        - **scores** (Tensor) - (R,) float32; only their order counts, which the boxes have.

    Outputs:
        kept (R,) bool; and (1,) float32: boxes that the last round changed, 0 once it is settled.
    """

    def __init__(self, threshold: float, rounds: int = NMS_ROUNDS) -> None:
        super().__init__()
        self.threshold = threshold
        self.rounds = rounds

    def construct(self, boxes: Tensor, _scores: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        count = boxes.shape[0]
        before = self._before(boxes, count)
        suppresses = before * (self._iou(boxes) > self.threshold).astype(ms.float32)
        kept = before[:1] * 0.0 + 1.0
        previous = kept
        for _ in range(self.rounds):
            previous = kept
            kept = (ops.MatMul()(kept, suppresses) < 0.5).astype(ms.float32)
        changed = ops.abs(kept - previous).sum(1)
        return (kept > 0.5).reshape(count), changed

    def _iou(self, boxes: Tensor) -> Tensor:
        """(R, R), in the order of operations of the built-in operator."""
        x1, y1, x2, y2 = boxes[:, 0:1], boxes[:, 1:2], boxes[:, 2:3], boxes[:, 3:4]
        area = (x2 - x1) * (y2 - y1)
        width = ops.minimum(x2, x2.reshape(1, -1)) - ops.maximum(x1, x1.reshape(1, -1))
        height = ops.minimum(y2, y2.reshape(1, -1)) - ops.maximum(y1, y1.reshape(1, -1))
        overlap = ops.relu(width) * ops.relu(height)
        union = area + area.reshape(1, -1) - overlap
        # Two points have no union.
        return overlap / ops.maximum(union, Tensor(_SMALLEST, ms.float32))

    def _before(self, boxes: Tensor, count: int) -> Tensor:
        """(R, R) float32: 1 where the row's box comes before the column's."""
        # Made of the boxes, or a constant of R x R numbers would stand in the exported file.
        zero = ops.minimum(ops.relu(boxes[:, 0]), ops.zeros_like(boxes[:, 0]))
        place = zero + Tensor(np.arange(count, dtype=np.float32))
        return (place.reshape(-1, 1) < place.reshape(1, -1)).astype(ms.float32)


class PortableProposals(ProposalGenerator):
    """A `ProposalGenerator` of this module's parts; it also says whether suppression was settled.

    Args:
        generator: the one whose settings it takes.
    """

    def __init__(self, generator: ProposalGenerator) -> None:
        super().__init__(**settings_of(generator))
        self.best_first = TopFirst()
        self.suppress = FixedPointNMS(generator.nms_threshold)

    def construct(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        anchor_valid: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, ...]:
        """For one image, N = 1: as `ProposalGenerator`, and `undecided` (1,), 0 once settled."""
        boxes, scores, usable = self.candidates(
            logits[0], deltas[0], anchors, anchor_valid, image_sizes[0]
        )
        kept, undecided = self.suppress(self.effaced(boxes, usable), scores)
        image = self.first(boxes, scores, ops.logical_and(kept, usable))
        return stacked([image]) + (undecided,)


class FixedAnchors(nn.Cell):
    """`AnchorGenerator` for one size of the feature map: a constant.

    Args:
        anchors: the generator.
        height: cells.
        width: cells.
    """

    def __init__(self, anchors: AnchorGenerator, height: int, width: int) -> None:
        super().__init__()
        self.num_cell_anchors = anchors.num_cell_anchors
        self.size = (height, width)
        features = Tensor(np.zeros((1, height, width, 1), np.float32))
        self.boxes = Tensor(anchors(features).asnumpy())

    def construct(self, features: Tensor) -> Tensor:
        """(A, 4) float32, model frame."""
        if features.shape[1:3] != self.size:
            raise ValueError(f"anchors are for a map of {self.size}, not {features.shape[1:3]}")
        return self.boxes


class TapConvolution(nn.Cell):
    """`resnet.Convolution` of 3x3, stride 1, as one of 1x1 over nine shifted maps.

    A runtime may compute 3x3 by Winograd's products on tiles of up to 8x8 outputs, which rounds
    three times as much as a direct sum; in a deep network that shows in the scores.
    """

    def construct(self, features: Tensor, weight: Tensor) -> Tensor:
        """(N, C, H, W) and (D, C, 3, 3) -> (N, D, H, W)."""
        height, width = features.shape[2], features.shape[3]
        row = ops.zeros_like(features[:, :, :1, :])
        tall = ops.concat((row, features, row), 2)
        column = ops.zeros_like(tall[:, :, :, :1])
        wide = ops.concat((column, tall, column), 3)
        taps: tuple[Tensor, ...] = ()
        for i in range(3):
            for j in range(3):
                taps += (wide[:, :, i : i + height, j : j + width],)
        flat = weight.transpose(0, 2, 3, 1).reshape(weight.shape[0], -1, 1, 1)
        return ops.conv2d(ops.concat(taps, 1), flat, None, 1, "pad", 0)


def order_by_topk(net: nn.Cell) -> None:
    """Choose proposals by TopK instead of a whole sort, which GPUs do in one thread block.

    Suppression needs no change: boxes with Inf or NaN are points by then, and it goes by places.
    """
    for _, cell in net.cells_and_names():
        if isinstance(cell, ProposalGenerator):
            cell.best_first = NumbersFirst()


def make_portable(net: nn.Cell, height: int, width: int, *, taps: bool) -> None:
    """Put the parts of this module into a detector, for inputs of one size.

    Args:
        net: `DeFRCN`; afterwards its `proposal_generator.test_proposals` are `PortableProposals`,
            and it is for inference only.
        height: of the input, pixels.
        width: likewise.
        taps: use `TapConvolution`.
    """
    if taps:
        for _, cell in net.cells_and_names():
            if isinstance(cell, ConvNorm) and cell.weight.shape[2] == 3:
                cell.convolve = TapConvolution()
    rpn = net.proposal_generator
    rpn.test_proposals = PortableProposals(rpn.test_proposals)
    rpn.anchors = FixedAnchors(rpn.anchors, -(-height // STRIDE), -(-width // STRIDE))
