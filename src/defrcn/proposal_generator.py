# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the RPN's outputs to a fixed number of proposals.

Letters: N images, A anchors, R boxes before suppression, P proposals.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.defrcn import box_ops

# Stands for minus infinity: it must survive arithmetic and sorting on every backend.
LOWEST_SCORE = -1e30


class BestFirst(nn.Cell):
    """The best values and their places, best first: all of them sorted, then cut.

    Inputs:
        - **values** (Tensor) - (A,) float32.
        - **count** (int) - how many at most.

    Outputs:
        values (min(A, count),) and places (min(A, count),) int32.
    """

    def construct(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """See the class."""
        values, order = ops.sort(values, 0, True)
        # A slice, not topk: it may be longer than the number of values.
        return values[:count], order[:count]


class GreedyNMS(nn.Cell):
    """Non-maximum suppression by the built-in operator.

    Args:
        threshold: IoU above which the lower box is dropped. The operator rounds it to float32;
            the official code does not, which differs where an IoU is the rounded number and that
            is larger: not at the official 0.7, but at 0.3 or 0.6.

    Inputs:
        - **boxes** (Tensor) - (R, 4) float32, best first.
        - **scores** (Tensor) - (R,) float32; only their order counts, which the boxes have.

    Outputs:
        kept (R,) bool.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.nms = ops.NMSWithMask(threshold)

    def construct(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """See the class."""
        # Places instead of scores: the operator sorts once more, and would let equal ones change
        # places without saying so.
        falling = -ops.arange(scores.shape[0]).astype(ms.float32)
        return self.nms(ops.concat((boxes, falling.reshape(-1, 1)), 1))[2]


class ProposalGenerator(nn.Cell):
    """Sort, cut, decode, clip, drop empty, NMS, cut: in the order of the official code.

    Args:
        pre_nms_topk: anchors that are kept by score before NMS.
        post_nms_topk: P, proposals that are kept after it.
        nms_threshold: IoU above which the lower box is dropped.
        min_box_size: boxes must be wider and higher than this, pixels of the model frame.
        box_weights: see `box_ops.decode_boxes`.

    Inputs:
        - **logits** (Tensor) - (N, A) float32.
        - **deltas** (Tensor) - (N, A, 4) float32.
        - **anchors** (Tensor) - (A, 4) float32, model frame.
        - **anchor_valid** (Tensor) - (A,) bool.
        - **image_sizes** (Tensor) - (N, 2) float32 height, width of the images, model frame.

    Outputs:
        boxes (N, P, 4), logits (N, P), valid (N, P) bool, by falling logit, without gradient; rows
        that are not valid hold some box of the image.

    `best_first` and `suppress` may be replaced by other Cells that give the same: not every
    runtime has a sort of any length and greedy suppression.
    """

    def __init__(
        self,
        *,
        pre_nms_topk: int,
        post_nms_topk: int,
        nms_threshold: float,
        min_box_size: float,
        box_weights: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.pre_nms_topk = pre_nms_topk
        self.post_nms_topk = post_nms_topk
        self.nms_threshold = nms_threshold
        self.min_box_size = min_box_size
        self.box_weights = box_weights
        self.best_first = BestFirst()
        self.suppress = GreedyNMS(nms_threshold)
        self.slots = Tensor(np.arange(post_nms_topk, dtype=np.int32))

    def construct(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        anchor_valid: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, ...]:
        """See the class."""
        logits, deltas = ops.stop_gradient(logits), ops.stop_gradient(deltas)
        images = [
            self.of_image(logits[i], deltas[i], anchors, anchor_valid, image_sizes[i])
            for i in range(image_sizes.shape[0])
        ]
        return stacked(images)

    def of_image(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        anchor_valid: Tensor,
        image_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same for one image: (A,), (A, 4) -> (P, 4), (P,), (P,) bool."""
        boxes, scores, usable = self.candidates(logits, deltas, anchors, anchor_valid, image_size)
        kept = self.suppress(self.effaced(boxes, usable), scores)
        return self.first(boxes, scores, ops.logical_and(kept, usable))

    def candidates(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        anchor_valid: Tensor,
        image_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Before suppression, best first: boxes (R, 4), clipped, logits (R,), usable (R,) bool."""
        logits = ops.where(anchor_valid, logits, ops.zeros_like(logits) + LOWEST_SCORE)
        scores, order = self.best_first(logits, self.pre_nms_topk)
        boxes = box_ops.decode_boxes(
            ops.gather(deltas, order, 0), ops.gather(anchors, order, 0), self.box_weights
        )
        usable = ops.logical_and(box_ops.finite(boxes), scores > LOWEST_SCORE)
        # A box with Inf or NaN becomes a point: it is dropped and suppresses nothing.
        boxes = box_ops.clip_boxes(self._points(boxes, usable), image_size)
        return boxes, scores, ops.logical_and(usable, box_ops.nonempty(boxes, self.min_box_size))

    def _points(self, boxes: Tensor, usable: Tensor) -> Tensor:
        """Boxes, those that are not usable as the point 0, 0."""
        points = ops.zeros_like(boxes)
        # As large as the boxes: some runtimes choose wrongly where a mask is broadcast.
        mask = usable.astype(ms.float32)[:, None] + points
        return ops.where(mask > 0, boxes, points)

    def effaced(self, boxes: Tensor, usable: Tensor) -> Tensor:
        """Shrink boxes that are too small to points, which overlap nothing in NMS."""
        if self.min_box_size <= 0:
            return boxes
        return self._points(boxes, usable)

    def first(self, boxes: Tensor, scores: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first P kept rows, in order, and (P,) bool: which of them are any."""
        count = kept.shape[0]
        place = ops.arange(count).astype(ms.float32)
        _, order = self.best_first(-ops.where(kept, place, place + count), self.post_nms_topk)
        slots = ops.minimum(self.slots, ops.zeros_like(self.slots) + (count - 1))
        order = ops.gather(order, slots, 0)
        total = kept.astype(ms.int32).sum(0).astype(ms.int32)
        valid = self.slots < total
        return ops.gather(boxes, order, 0), ops.gather(scores, order, 0), valid


def settings_of(generator: ProposalGenerator) -> dict:
    """The arguments that a generator was made with, for another one like it."""
    names = ("pre_nms_topk", "post_nms_topk", "nms_threshold", "min_box_size", "box_weights")
    return {name: getattr(generator, name) for name in names}


def stacked(images: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Proposals of every image: (N, P, 4), (N, P), (N, P) bool, without gradient."""
    # Tuples, because lists cannot be exported to ONNX.
    boxes = ops.stack(tuple([image[0] for image in images]))
    scores = ops.stack(tuple([image[1] for image in images]))
    valid = ops.stack(tuple([image[2].astype(ms.int32) for image in images]))
    valid = ops.stop_gradient(valid) > 0
    return ops.stop_gradient(boxes), ops.stop_gradient(scores), valid
