# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""DeFRCN: Faster R-CNN whose three parts are decoupled by gradient (Qiao et al., ICCV 2021).

Letters: N images, G ground-truth slots, A anchors, P proposals, S samples, K classes.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.defrcn.gdl import GradientDecoupledLayer
from src.defrcn.resnet import STRIDE, valid_mask

LOSS_NAMES = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg")


class DeFRCN(nn.Cell):
    """The detector, composed of parts that are handed in.

    Args:
        backbone: images -> (N, H / 16, W / 16, C).
        proposal_generator: `RPN`; the name is that of the official parameters.
        roi_heads: `Res5ROIHeads`.
        num_channels: C.
        rpn_scale: λ of the gradient decoupled layer before the RPN; None leaves layer and
            affine transformation out.
        rcnn_scale: λ before the second stage, likewise.
        masked: the batch may be smaller than the tensor (fixed input shapes).

    Inputs:
        - **images** (Tensor) - (N, 3, H, W) float32, normalised.
        - **image_sizes** (Tensor) - (N, 2) float32 height, width in the model frame.
        - **padded_size** (Tensor) - (2,) int32, the batch's own largest height and width.

    Outputs:
        boxes (N, P, K, 4) clipped, model frame; scores (N, P, K + 1), background last; valid
        (N, P) bool. `detections.final_detections` makes detections of them.
    """

    def __init__(
        self,
        backbone: nn.Cell,
        proposal_generator: nn.Cell,
        roi_heads: nn.Cell,
        *,
        num_channels: int,
        rpn_scale: float | None,
        rcnn_scale: float | None,
        masked: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.rpn_scale = rpn_scale
        self.rcnn_scale = rcnn_scale
        if rpn_scale is not None:
            self.affine_rpn = GradientDecoupledLayer(num_channels, rpn_scale)
        if rcnn_scale is not None:
            self.affine_rcnn = GradientDecoupledLayer(num_channels, rcnn_scale)
        self.masked = masked

    def construct(
        self, images: Tensor, image_sizes: Tensor, padded_size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        features = self.backbone(images, padded_size)
        rpn_features, valid_size, anchor_valid = self.rpn_inputs(features, padded_size)
        proposals, valid = self.proposal_generator(rpn_features, anchor_valid, image_sizes)
        boxes, scores = self.detect(features, valid_size, proposals, image_sizes)
        return boxes, scores, valid

    def detect(
        self, features: Tensor, valid_size: Tensor, proposals: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The second stage on proposals (N, P, 4): boxes (N, P, K, 4), scores (N, P, K + 1)."""
        logits, deltas = self.roi_heads(self.rcnn_features(features), proposals, valid_size)
        return self.roi_heads.decode(proposals, logits, deltas, image_sizes)

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
        labelled: Tensor | None = None,
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
            labelled: (N, K) bool, see `rcnn.known_logits`; None for plain cross-entropy.
        """
        features = self.backbone(images, padded_size)
        rpn_features, valid_size, anchor_valid = self.rpn_inputs(features, padded_size)
        loss_rpn_cls, loss_rpn_box, proposals, valid = self.proposal_generator.losses(
            rpn_features, anchor_valid, image_sizes, gt_boxes, gt_valid, rpn_noise
        )
        loss_cls, loss_box = self.roi_heads.losses(
            self.rcnn_features(features),
            valid_size,
            proposals,
            valid,
            gt_boxes,
            gt_classes,
            gt_valid,
            roi_noise,
            dropout_noise,
            labelled,
        )
        return loss_rpn_cls, loss_rpn_box, loss_cls, loss_box

    def rpn_inputs(self, features: Tensor, padded_size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The RPN's features; rows, columns (2,) float32 in use; which anchors are (A,) bool."""
        height, width = features.shape[1], features.shape[2]
        # Rounded up.
        valid_size = -ops.floor(padded_size.astype(ms.float32) * (-1.0 / STRIDE))
        num_cell_anchors = self.proposal_generator.anchors.num_cell_anchors
        if self.rpn_scale is not None:
            features = self.affine_rpn(features)
        if not self.masked:
            # The primitive: ops.ones is a program of its own to compile.
            everywhere = ops.Ones()((height * width * num_cell_anchors,), ms.bool_)
            return features, valid_size, everywhere
        mask = valid_mask(height, width, padded_size[0], padded_size[1], STRIDE)
        mask = mask.reshape(1, height, width, 1)
        per_cell = mask.reshape(-1, 1) + ops.zeros((1, num_cell_anchors), ms.float32)
        return features * mask, valid_size, per_cell.reshape(-1) > 0

    def rcnn_features(self, features: Tensor) -> Tensor:
        """The map that the second stage pools from."""
        if self.rcnn_scale is None:
            return features
        return self.affine_rcnn(features)
