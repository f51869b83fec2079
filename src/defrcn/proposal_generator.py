"""From the RPN's outputs to a fixed number of proposals."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.defrcn import box_ops

# Stands for minus infinity: it must survive arithmetic and sorting on every backend.
LOWEST_SCORE = -1e30


class ProposalGenerator(nn.Cell):
    """Sort, cut, decode, clip, drop empty, NMS, cut: in the order of the official code.

    Args:
        pre_nms_topk: anchors that are kept by score before NMS.
        post_nms_topk: P, proposals that are kept after it.
        nms_threshold: IoU above which the lower box is dropped.
        min_box_size: boxes must be wider and higher than this, pixels of the model frame.
        box_weights: see `box_ops.decode_boxes`.

    Inputs:
        - **logits** (Tensor) - (A,) float32.
        - **deltas** (Tensor) - (A, 4) float32.
        - **anchors** (Tensor) - (A, 4) float32, model frame.
        - **anchor_valid** (Tensor) - (A,) bool.
        - **image_size** (Tensor) - (2,) float32 height, width of this image, model frame.

    Outputs:
        boxes (P, 4), logits (P,), valid (P,) bool, by falling logit; rows that are not valid
        hold some box of the image.
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
        self.min_box_size = min_box_size
        self.box_weights = box_weights
        self.nms = ops.NMSWithMask(nms_threshold)
        self.slots = Tensor(np.arange(post_nms_topk, dtype=np.int32))

    def construct(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        anchor_valid: Tensor,
        image_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        logits = ops.where(anchor_valid, logits, ops.zeros_like(logits) + LOWEST_SCORE)
        scores, order = ops.sort(logits, 0, True)
        # A slice, not topk: it may be longer than the number of anchors.
        scores, order = scores[: self.pre_nms_topk], order[: self.pre_nms_topk]
        boxes = box_ops.decode_boxes(
            ops.gather(deltas, order, 0), ops.gather(anchors, order, 0), self.box_weights
        )
        usable = ops.logical_and(box_ops.finite(boxes), scores > LOWEST_SCORE)
        # A box with Inf or NaN becomes a point: it is dropped and suppresses nothing.
        boxes = ops.where(usable[:, None], boxes, ops.zeros_like(boxes))
        boxes = box_ops.clip_boxes(boxes, image_size)
        usable = ops.logical_and(usable, box_ops.nonempty(boxes, self.min_box_size))
        _, _, kept = self.nms(ops.concat((self._effaced(boxes, usable), scores[:, None]), 1))
        kept = ops.logical_and(kept, usable)
        return self._first(boxes, scores, kept)

    def _effaced(self, boxes: Tensor, usable: Tensor) -> Tensor:
        """Shrink boxes that are too small to points, which overlap nothing in NMS."""
        if self.min_box_size <= 0:
            return boxes
        return ops.where(usable[:, None], boxes, ops.zeros_like(boxes))

    def _first(self, boxes: Tensor, scores: Tensor, kept: Tensor) -> tuple[Tensor, ...]:
        """The first `post_nms_topk` kept rows, in order."""
        count = kept.shape[0]
        place = ops.arange(count).astype(ms.float32)
        _, order = ops.sort(ops.where(kept, place, place + count))
        slots = ops.minimum(self.slots, ops.zeros_like(self.slots) + (count - 1))
        order = ops.gather(order, slots, 0)
        total = kept.astype(ms.int32).sum()
        valid = self.slots < total
        return ops.gather(boxes, order, 0), ops.gather(scores, order, 0), valid
