# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Parts of the detector in operators that inference runtimes have too: same numbers, other means.

An exported network is the trained one with these parts in place (`make_portable`): MindSpore Lite
and ONNX have no suppression by mask, no sort of any length and no mesh of coordinates.
Letters: A anchors, R boxes.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.defrcn.anchor_generator import AnchorGenerator
from src.defrcn.fast import TileBottleneck
from src.defrcn.proposal_generator import (
    LOWEST_SCORE,
    ProposalGenerator,
    settings_of,
    stacked,
)
from src.defrcn.resnet import STRIDE, ConvNorm, Convolution
from src.defrcn.rpn import RPNHead
from src.defrcn.winograd import transform_kernel

# 6000 overlapping boxes took 13 rounds; whether these were enough is an output of the network.
NMS_ROUNDS = 32
NMS_BLOCK = 1000  # rows of the matrix of overlaps that are made at once
_SMALLEST = 1e-30
OBLONG = (3, 4)  # kernel of a 3x3 convolution beside a column of zeros


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
        # Made of the boxes, or constants of so many numbers would stand in the exported file.
        zero = ops.minimum(ops.relu(boxes[:, 0]), ops.zeros_like(boxes[:, 0]))
        place = zero + Tensor(np.arange(count, dtype=np.float32))
        blocks: tuple[Tensor, ...] = ()
        for first in range(0, count, NMS_BLOCK):
            last = min(first + NMS_BLOCK, count)
            before = (place[first:last].reshape(-1, 1) < place.reshape(1, -1)).astype(ms.float32)
            overlaps = self._iou(boxes[first:last], boxes) > self.threshold
            blocks += (before * overlaps.astype(ms.float32),)
        suppresses = blocks[0] if len(blocks) == 1 else ops.concat(blocks)
        kept = zero.reshape(1, -1) + 1.0
        previous = kept
        for _ in range(self.rounds):
            previous = kept
            kept = (ops.MatMul()(kept, suppresses) < 0.5).astype(ms.float32)
        changed = ops.abs(kept - previous).sum(1)
        return (kept > 0.5).reshape(count), changed

    def _iou(self, some: Tensor, boxes: Tensor) -> Tensor:
        """(S, 4) and (R, 4) -> (S, R), in the order of operations of the built-in operator."""
        x1, y1, x2, y2 = some[:, 0:1], some[:, 1:2], some[:, 2:3], some[:, 3:4]
        left, top, right, bottom = (boxes[:, i].reshape(1, -1) for i in range(4))
        width = ops.minimum(x2, right) - ops.maximum(x1, left)
        height = ops.minimum(y2, bottom) - ops.maximum(y1, top)
        overlap = ops.relu(width) * ops.relu(height)
        union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - overlap
        # Two points have no union.
        return overlap / ops.maximum(union, Tensor(_SMALLEST, ms.float32))


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


class FixedConvolution(nn.Cell):
    """A convolution with bias whose weight is what becomes of norms and transforms.

    A runtime that is left to fold norms does so each time it loads the network, and keeps what it
    started from.

    Args:
        weight: (D, C, k, k).
        bias: (D,).
        convolve: see `resnet.Convolution`; None for stride 1 and padding that keeps the size.
        oblong: 3x3 as 3x4 with a column of zeros. A runtime may compute 3x3 by Winograd's products
            on tiles of up to 8x8 outputs, which rounds three times as much as a direct sum; in a
            deep network that shows in the scores. Other shapes it sums up.
        name: of the parameters.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, convolve: nn.Cell | None, *, oblong: bool, name: str
    ) -> None:
        super().__init__()
        channels, side = weight.shape[0], weight.shape[2]
        self.convolve = convolve or Convolution(channels, side, 1, side // 2)
        if oblong and side == OBLONG[0]:
            weight = Tensor(np.pad(weight.asnumpy(), ((0, 0), (0, 0), (0, 0), (0, 1))))
            self.convolve = ops.Conv2D(channels, OBLONG, pad_mode="pad", pad=(1, 1, 1, 2))
        self.weight = fixed(weight, f"{name}.weight")
        self.bias = fixed(bias, f"{name}.bias")

    def construct(self, features: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, D, H / stride, W / stride), rounded up."""
        return ops.bias_add(self.convolve(features, self.weight), self.bias)

    def folded(self) -> tuple[Tensor, Tensor]:
        """See `ConvNorm.folded`."""
        return self.weight, self.bias


class FixedTiles(nn.Cell):
    """The 3x3 convolution of `fast.TileBottleneck`, its weight transformed beforehand.

    Args:
        given: the convolution.
    """

    def __init__(self, given: ConvNorm) -> None:
        super().__init__()
        weight, bias = given.folded()
        self.weight = fixed(transform_kernel(weight), given.weight.name)
        self.bias = fixed(bias, given.norm.bias.name)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (36, D, C), see `winograd_conv4x4`, and bias (D,)."""
        return self.weight, self.bias


class FixedRPNHead(RPNHead):
    """`RPNHead` for inference.

    Args:
        head: whose parameters it takes.
        oblong: see `FixedConvolution`.
    """

    def __init__(self, head: RPNHead, *, oblong: bool) -> None:
        super().__init__(head.conv, head.objectness_logits, head.anchor_deltas)
        name = head.conv.weight.name.rpartition(".")[0]
        self.conv = FixedConvolution(
            head.conv.weight, head.conv.bias, None, oblong=oblong, name=name
        )

    def construct(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See `RPNHead`."""
        hidden = self.conv(features.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
        logits, deltas = self.predict(hidden.reshape(-1, features.shape[3]))
        return logits.reshape(features.shape[0], -1), deltas.reshape(features.shape[0], -1, 4)


def fixed(value: Tensor, name: str) -> Parameter:
    """A parameter that does not train."""
    return Parameter(Tensor(value.asnumpy()), name=name, requires_grad=False)


def order_by_topk(net: nn.Cell) -> None:
    """Choose proposals by TopK instead of a whole sort, which GPUs do in one thread block.

    Suppression needs no change: boxes with Inf or NaN are points by then, and it goes by places.
    """
    for _, cell in net.cells_and_names():
        if isinstance(cell, ProposalGenerator):
            cell.best_first = NumbersFirst()


def make_portable(net: nn.Cell, height: int, width: int, *, oblong: bool) -> None:
    """Put the parts of this module into a detector, for inputs of one size.

    Args:
        net: `DeFRCN`; afterwards its `proposal_generator.test_proposals` are `PortableProposals`,
            and it is for inference only.
        height: of the input, pixels.
        width: likewise.
        oblong: see `FixedConvolution`.
    """
    for _, cell in list(net.cells_and_names()):
        for name, part in list(cell.name_cells().items()):
            if not isinstance(part, ConvNorm) or not part.foldable:
                continue
            if isinstance(cell, TileBottleneck) and name == "conv2":
                setattr(cell, name, FixedTiles(part))
                continue
            owner = part.weight.name.rpartition(".")[0]
            made = FixedConvolution(*part.folded(), part.convolve, oblong=oblong, name=owner)
            setattr(cell, name, made)
    rpn = net.proposal_generator
    rpn.rpn_head = FixedRPNHead(rpn.rpn_head, oblong=oblong)
    rpn.test_proposals = PortableProposals(rpn.test_proposals)
    rpn.anchors = FixedAnchors(rpn.anchors, -(-height // STRIDE), -(-width // STRIDE))
