# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Targets of the second stage: proposals and ground truth, matched and sampled.

Letters: G ground-truth slots, P proposals, S samples an image, K foreground classes.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.defrcn import box_ops
from src.defrcn.bbox_assign_sample import match, subsample


def append_ground_truth(
    proposals: Tensor, proposal_valid: Tensor, gt_boxes: Tensor, gt_valid: Tensor
) -> tuple[Tensor, Tensor]:
    """(P, 4), (P,), (G, 4), (G,) -> (P + G, 4) boxes and (P + G,) bool, ground truth last."""
    boxes = ops.concat((proposals, gt_boxes), 0)
    valid = ops.concat((proposal_valid.astype(ms.int32), gt_valid.astype(ms.int32)), 0)
    return boxes, valid > 0


def label_boxes(
    boxes: Tensor,
    valid: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    gt_valid: Tensor,
    *,
    iou_threshold: float,
    num_classes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Label (P,) int32 in {1, 0, -1}, class (P,) int32 in 0..K, matched slot (P,) int32."""
    iou = box_ops.pairwise_iou(gt_boxes, boxes)
    matched, labels = match(iou, gt_valid, iou_threshold, iou_threshold, False)
    classes = ops.gather(gt_classes, matched, 0)
    classes = ops.where(labels == 1, classes, ops.zeros_like(classes) + num_classes)
    return ops.where(valid, labels, ops.zeros_like(labels) - 1), classes, matched


def roi_targets(
    proposals: Tensor,
    proposal_valid: Tensor,
    gt_boxes: Tensor,
    gt_classes: Tensor,
    gt_valid: Tensor,
    noise: Tensor,
    *,
    iou_threshold: float,
    num_samples: int,
    positive_fraction: float,
    num_classes: int,
    append_gt: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sample the boxes of one image that the second stage learns from (Fast R-CNN, sec. 2.3).

    Args:
        proposals: (P, 4), model frame.
        proposal_valid: (P,) bool.
        gt_boxes: (G, 4), model frame.
        gt_classes: (G,) int32, 0..K-1.
        gt_valid: (G,) bool.
        noise: (P + G,) float32 in [0, 1); its first P without `append_gt`.
        iou_threshold: from it on a box is foreground.
        num_samples: S.
        positive_fraction: foreground fills at most this part.
        num_classes: K, the background's class.
        append_gt: add the ground truth to the proposals.

    Returns:
        boxes (S, 4), classes (S,) int32 (K: background), valid (S,) bool, and matched ground
        truth (S, 4), which means something for foreground only.
    """
    boxes, valid = proposals, proposal_valid
    if append_gt:
        boxes, valid = append_ground_truth(proposals, proposal_valid, gt_boxes, gt_valid)
    labels, classes, matched = label_boxes(
        boxes,
        valid,
        gt_boxes,
        gt_classes,
        gt_valid,
        iou_threshold=iou_threshold,
        num_classes=num_classes,
    )
    noise = noise[: boxes.shape[0]]
    index, _, valid = subsample(labels, noise, num_samples, positive_fraction)
    target = ops.gather(gt_boxes, ops.gather(matched, index, 0), 0)
    return ops.gather(boxes, index, 0), ops.gather(classes, index, 0), valid, target


class ROITargets(nn.Cell):
    """Samples the boxes that the second stage learns from, image by image; see `roi_targets`.

    Args:
        iou_threshold: from it on a box is foreground.
        num_samples: S.
        positive_fraction: foreground fills at most this part.
        num_classes: K, the background's class.
        append_gt: add the ground truth to the proposals.

    Inputs:
        - **proposals** (Tensor) - (N, P, 4) float32, model frame.
        - **proposal_valid** (Tensor) - (N, P) bool.
        - **gt_boxes** (Tensor) - (N, G, 4) float32, model frame.
        - **gt_classes** (Tensor) - (N, G) int32.
        - **gt_valid** (Tensor) - (N, G) bool.
        - **noise** (Tensor) - (N, P + G) float32 in [0, 1).

    Outputs:
        boxes (N, S, 4), classes (N, S) int32, valid (N, S) bool, matched ground truth (N, S, 4),
        all without gradient.
    """

    def __init__(
        self,
        *,
        iou_threshold: float,
        num_samples: int,
        positive_fraction: float,
        num_classes: int,
        append_gt: bool,
    ) -> None:
        super().__init__()
        self.iou_threshold = iou_threshold
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction
        self.num_classes = num_classes
        self.append_gt = append_gt

    def construct(
        self,
        proposals: Tensor,
        proposal_valid: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        gt_valid: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the class."""
        images = [
            roi_targets(
                proposals[i],
                proposal_valid[i],
                gt_boxes[i],
                gt_classes[i],
                gt_valid[i],
                noise[i],
                iou_threshold=self.iou_threshold,
                num_samples=self.num_samples,
                positive_fraction=self.positive_fraction,
                num_classes=self.num_classes,
                append_gt=self.append_gt,
            )
            for i in range(proposals.shape[0])
        ]
        boxes = ops.stop_gradient(ops.stack([image[0] for image in images]))
        classes = ops.stack([image[1] for image in images])
        valid = ops.stack([image[2].astype(ms.int32) for image in images]) > 0
        target = ops.stop_gradient(ops.stack([image[3] for image in images]))
        return boxes, classes, valid, target
