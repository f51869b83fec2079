# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""DeFRCN: Faster R-CNN whose three parts are decoupled by gradient (Qiao et al., ICCV 2021).

Letters: N images, G ground-truth slots, A anchors, P proposals, S samples, K classes.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.defrcn import box_ops
from src.defrcn.bbox_assign_sample_stage2 import roi_targets
from src.defrcn.gdl import AffineLayer, scale_gradient
from src.defrcn.rcnn import rcnn_losses
from src.defrcn.resnet import freeze, valid_mask

STRIDE = 16  # pixels a cell of the map that both heads look at
LOSS_NAMES = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg")


class DeFRCN(nn.Cell):
    """The detector, composed of parts that are handed in.

    Args:
        backbone: images -> (N, H / 16, W / 16, C).
        proposal_generator: `RPN`.
        roi_heads: `Res5ROIHeads`.
        train_proposals: `ProposalGenerator` for training.
        test_proposals: `ProposalGenerator` for inference.
        num_channels: C.
        num_classes: K.
        rpn_scale: λ of the gradient decoupled layer before the RPN; None leaves layer and
            affine transformation out.
        rcnn_scale: λ before the second stage, likewise.
        masked: the batch may be smaller than the tensor (fixed input shapes).
        freeze_rpn: do not train the RPN's head and affine layer.
        roi_num_samples: S of the second stage.
        roi_positive_fraction: see `subsample`.
        roi_iou_threshold: see `roi_targets`.
        roi_append_gt: see `roi_targets`.
        roi_box_weights: see `box_ops.encode_boxes`.
        roi_smooth_l1_beta: 0 for L1.
        roi_box_loss_weight: factor of the second stage's box loss.

    Inputs:
        - **images** (Tensor) - (N, 3, H, W) float32, normalised.
        - **image_sizes** (Tensor) - (N, 2) float32 height, width in the model frame.
        - **padded_size** (Tensor) - (2,) int32, the batch's own largest height and width.

    Outputs:
        boxes (N, P, K, 4) clipped, model frame; scores (N, P, K + 1), background last; valid
        (N, P) bool. `rcnn.final_detections` makes detections of them.
    """

    def __init__(
        self,
        *,
        backbone: nn.Cell,
        proposal_generator: nn.Cell,
        roi_heads: nn.Cell,
        train_proposals: nn.Cell,
        test_proposals: nn.Cell,
        num_channels: int,
        num_classes: int,
        rpn_scale: float | None,
        rcnn_scale: float | None,
        masked: bool,
        freeze_rpn: bool,
        roi_num_samples: int,
        roi_positive_fraction: float,
        roi_iou_threshold: float,
        roi_append_gt: bool,
        roi_box_weights: tuple[float, ...],
        roi_smooth_l1_beta: float,
        roi_box_loss_weight: float,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.train_proposals = train_proposals
        self.test_proposals = test_proposals
        self.num_classes = num_classes
        self.rpn_scale = rpn_scale
        self.rcnn_scale = rcnn_scale
        if rpn_scale is not None:
            self.affine_rpn = AffineLayer(num_channels)
        if rcnn_scale is not None:
            self.affine_rcnn = AffineLayer(num_channels)
        self.masked = masked
        self.freeze_rpn = freeze_rpn
        if freeze_rpn:
            freeze(self.proposal_generator)
        self.roi_num_samples = roi_num_samples
        self.roi_positive_fraction = roi_positive_fraction
        self.roi_iou_threshold = roi_iou_threshold
        self.roi_append_gt = roi_append_gt
        self.roi_box_weights = roi_box_weights
        self.roi_smooth_l1_beta = roi_smooth_l1_beta
        self.roi_box_loss_weight = roi_box_loss_weight

    def construct(
        self, images: Tensor, image_sizes: Tensor, padded_size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        return self.checked(images, image_sizes, padded_size)[:3]

    def checked(
        self, images: Tensor, image_sizes: Tensor, padded_size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same, and (N,) float32: what the suppression of proposals left undecided."""
        features = self.backbone(images, padded_size)
        rpn_features, valid_size, anchor_valid = self.rpn_inputs(features, padded_size)
        logits, deltas = self.proposal_generator(rpn_features)
        anchors = self.proposal_generator.anchors(features.shape[1], features.shape[2])
        proposals, _, valid, undecided = self.propose_checked(
            self.test_proposals, logits, deltas, anchors, anchor_valid, image_sizes
        )
        cls, box = self.roi_heads(self.rcnn_features(features), proposals, valid_size)
        return self.decode(proposals, cls, box, image_sizes) + (valid, undecided)

    def losses(
        self,
        images: Tensor,
        image_sizes: Tensor,
        padded_size: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        gt_valid: Tensor,
        rpn_noise: Tensor,
        roi_noise: Tensor,
        dropout_noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four losses of a batch, in the order of `LOSS_NAMES`.

        Args:
            images: as in `construct`.
            image_sizes: as in `construct`.
            padded_size: as in `construct`.
            gt_boxes: (N, G, 4) float32, model frame.
            gt_classes: (N, G) int32.
            gt_valid: (N, G) bool.
            rpn_noise: (N, A) float32 in [0, 1): the draw of anchors.
            roi_noise: (N, P + G) float32: the draw of proposals.
            dropout_noise: (N * S, 2C) float32, or any shape without dropout.
        """
        features = self.backbone(images, padded_size)
        rpn_features, valid_size, anchor_valid = self.rpn_inputs(features, padded_size)
        logits, deltas = self.proposal_generator(rpn_features)
        anchors = self.proposal_generator.anchors(features.shape[1], features.shape[2])
        loss_rpn_cls, loss_rpn_box = self.proposal_generator.losses(
            rpn_features, logits, deltas, anchors, anchor_valid, gt_boxes, gt_valid, rpn_noise
        )
        proposals, _, valid = self.propose(
            self.train_proposals, logits, deltas, anchors, anchor_valid, image_sizes
        )
        boxes, classes, used, target = self.sample_rois(
            proposals, valid, gt_boxes, gt_classes, gt_valid, roi_noise
        )
        cls, box = self.roi_heads.train_forward(
            self.rcnn_features(features), boxes, valid_size, dropout_noise
        )
        loss_cls, loss_box = rcnn_losses(
            cls,
            box,
            boxes.reshape(-1, 4),
            classes.reshape(-1),
            target.reshape(-1, 4),
            used.reshape(-1),
            box_weights=self.roi_box_weights,
            smooth_l1_beta=self.roi_smooth_l1_beta,
        )
        return loss_rpn_cls, loss_rpn_box, loss_cls, loss_box * self.roi_box_loss_weight

    def rpn_inputs(self, features: Tensor, padded_size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The RPN's features; rows, columns (2,) float32 in use; which anchors are (A,) bool."""
        height, width = features.shape[1], features.shape[2]
        # Rounded up.
        valid_size = -ops.floor(padded_size.astype(ms.float32) * (-1.0 / STRIDE))
        mask = valid_mask(height, width, padded_size[0], padded_size[1], STRIDE)
        mask = mask.reshape(1, height, width, 1)
        per_cell = mask.reshape(-1, 1) + ops.zeros(
            (1, self.proposal_generator.anchors.num_cell_anchors), ms.float32
        )
        anchor_valid = per_cell.reshape(-1) > 0
        if self.rpn_scale is not None:
            features = self.affine_rpn(scale_gradient(features, self.rpn_scale))
        if self.masked:
            features = features * mask
        return features, valid_size, anchor_valid

    def rcnn_features(self, features: Tensor) -> Tensor:
        """The map that the second stage pools from."""
        if self.rcnn_scale is None:
            return features
        return self.affine_rcnn(scale_gradient(features, self.rcnn_scale))

    def propose(
        self,
        generator: nn.Cell,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        anchor_valid: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Proposals of every image without gradient: (N, P, 4), (N, P), (N, P) bool."""
        return self.propose_checked(generator, logits, deltas, anchors, anchor_valid, image_sizes)[
            :3
        ]

    def propose_checked(
        self,
        generator: nn.Cell,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        anchor_valid: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same, and (N,) float32, see `ProposalGenerator.checked`."""
        logits, deltas = ops.stop_gradient(logits), ops.stop_gradient(deltas)
        picked = [
            generator.checked(logits[i], deltas[i], anchors, anchor_valid, image_sizes[i])
            for i in range(image_sizes.shape[0])
        ]
        # Tuples, because lists cannot be exported to ONNX.
        boxes = ops.stop_gradient(ops.stack(tuple([one[0] for one in picked])))
        scores = ops.stop_gradient(ops.stack(tuple([one[1] for one in picked])))
        valid = ops.stack(tuple([one[2].astype(ms.int32) for one in picked]))
        valid = ops.stop_gradient(valid) > 0
        undecided = ops.stop_gradient(ops.stack(tuple([one[3] for one in picked]))).reshape(-1)
        return boxes, scores, valid, undecided

    def sample_rois(
        self,
        proposals: Tensor,
        valid: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        gt_valid: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`roi_targets` of every image: (N, S, 4), (N, S), (N, S) bool, (N, S, 4)."""
        picked = [
            roi_targets(
                proposals[i],
                valid[i],
                gt_boxes[i],
                gt_classes[i],
                gt_valid[i],
                noise[i],
                iou_threshold=self.roi_iou_threshold,
                num_samples=self.roi_num_samples,
                positive_fraction=self.roi_positive_fraction,
                num_classes=self.num_classes,
                append_gt=self.roi_append_gt,
            )
            for i in range(proposals.shape[0])
        ]
        boxes = ops.stop_gradient(ops.stack([one[0] for one in picked]))
        classes = ops.stack([one[1] for one in picked])
        used = ops.stack([one[2].astype(ms.int32) for one in picked]) > 0
        target = ops.stop_gradient(ops.stack([one[3] for one in picked]))
        return boxes, classes, used, target

    def decode(
        self, proposals: Tensor, logits: Tensor, deltas: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Boxes (N, P, K, 4), clipped to each image, and scores (N, P, K + 1)."""
        batch, count = proposals.shape[:2]
        scores = ops.softmax(logits, 1).reshape(batch, count, -1)
        deltas = deltas.reshape(batch, count, -1, 4)
        boxes = box_ops.decode_boxes(deltas, proposals[:, :, None, :], self.roi_box_weights)
        clipped = [box_ops.clip_boxes(boxes[i], image_sizes[i]) for i in range(batch)]
        return ops.stack(tuple(clipped)), scores
