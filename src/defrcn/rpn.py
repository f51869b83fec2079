# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The region proposal network: head, targets, losses and proposals (Faster R-CNN, sec. 3).

Letters: N images, H x W cells, B anchors a cell, A = H * W * B anchors, S samples an image.
Feature maps are (N, H, W, C), channels last.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.defrcn import box_ops


class ConvBias(nn.Cell):
    """Holds the weight (D, C, k, k) and bias (D,) of a convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = Parameter(Tensor(np.zeros(shape, np.float32)), name="weight")
        self.bias = Parameter(Tensor(np.zeros(out_channels, np.float32)), name="bias")


class RPNHead(nn.Cell):
    """3x3 convolution, then objectness and box deltas (Faster R-CNN, sec. 3.1).

    Args:
        conv: C -> C, 3x3.
        objectness_logits: C -> B, 1x1.
        anchor_deltas: C -> 4B, 1x1.

    Inputs:
        - **features** (Tensor) - (N, H, W, C) float32.

    Outputs:
        logits (N, H * W * B) and deltas (N, H * W * B, 4), order: row, column, anchor.
    """

    def __init__(
        self, conv: ConvBias, objectness_logits: ConvBias, anchor_deltas: ConvBias
    ) -> None:
        super().__init__()
        self.num_cell_anchors = objectness_logits.weight.shape[0]
        self.conv = conv
        self.objectness_logits = objectness_logits
        self.anchor_deltas = anchor_deltas

    def construct(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        batch, channels = features.shape[0], features.shape[3]
        maps = features.transpose(0, 3, 1, 2)
        hidden = ops.conv2d(maps, self.conv.weight, None, 1, "pad", 1)
        hidden = ops.bias_add(hidden, self.conv.bias).transpose(0, 2, 3, 1)
        logits, deltas = self.predict(hidden.reshape(-1, channels))
        return logits.reshape(batch, -1), deltas.reshape(batch, -1, 4)

    def predict(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Cells (R, C) after the 3x3 convolution -> logits (R, B), deltas (R, 4B)."""
        rows, channels = ops.relu(hidden), hidden.shape[1]
        product = ops.MatMul(transpose_b=True)
        logits = product(rows, self.objectness_logits.weight.reshape(-1, channels))
        deltas = product(rows, self.anchor_deltas.weight.reshape(-1, channels))
        return logits + self.objectness_logits.bias, deltas + self.anchor_deltas.bias

    def at_anchors(
        self, features: Tensor, logits: Tensor, deltas: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The outputs at some anchors of each image, with gradient.

        Args:
            features: (N, H, W, C).
            logits: (N, A), what `construct` made of it.
            deltas: (N, A, 4), likewise.
            index: (N, S) int32 into an image's A anchors.

        Returns:
            logits (N * S,), deltas (N * S, 4).
        """
        place = in_batch(index, logits.shape[1])
        logits, deltas = logits.reshape(-1), deltas.reshape(-1, 4)
        return ops.gather(logits, place, 0), ops.gather(deltas, place, 0)


def in_batch(index: Tensor, count: int) -> Tensor:
    """Rows (N, S) int32 of each image, of `count`, as rows (N * S,) of all images together."""
    first = ops.arange(index.shape[0]).astype(ms.int32) * count
    return (index + first.reshape(-1, 1)).reshape(-1)


def absolute_or_smooth_l1(difference: Tensor, beta: float) -> Tensor:
    """Smooth L1 (Fast R-CNN, eq. 3) with the switch at `beta`; plain L1 for 0."""
    size = ops.abs(difference)
    if beta <= 0:
        return size
    return ops.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def rpn_losses(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    gt_boxes: Tensor,
    positive: Tensor,
    valid: Tensor,
    *,
    box_weights: tuple[float, ...],
    smooth_l1_beta: float,
) -> tuple[Tensor, Tensor]:
    """Sums over the samples of all images, R = N * S; the caller divides by R.

    Args:
        logits: (R,) at the sampled anchors.
        deltas: (R, 4).
        anchors: (R, 4), model frame.
        gt_boxes: (R, 4) matched ground truth.
        positive: (R,) bool.
        valid: (R,) bool.
        box_weights: see `box_ops.encode_boxes`.
        smooth_l1_beta: see `absolute_or_smooth_l1`.

    Returns:
        Classification and box loss, scalars.
    """
    label = positive.astype(ms.float32)
    # log(1 + exp(-|x|)) + max(x, 0) - x * y: binary cross-entropy that cannot overflow. The
    # maximum is written so that the slope at 0 is 1/2 - y, where relu's makes it -y.
    size = ops.abs(logits)
    entropy = ops.log1p(ops.exp(-size)) + 0.5 * (logits + size) - logits * label
    total = ops.ReduceSum()
    loss_cls = total(entropy * valid.astype(ms.float32))
    # An unused slot holds no box: its target is replaced, or log(0) would give NaN gradients.
    gt_boxes = ops.where(ops.expand_dims(positive, 1), gt_boxes, anchors)
    target = ops.stop_gradient(box_ops.encode_boxes(anchors, gt_boxes, box_weights))
    distance = absolute_or_smooth_l1(deltas - target, smooth_l1_beta)
    return loss_cls, total(distance * ops.expand_dims(label, 1))


class RPNLosses(nn.Cell):
    """Both losses of the first stage, means over the samples of all images, weighted.

    Args:
        box_weights: see `box_ops.encode_boxes`.
        smooth_l1_beta: 0 for L1.
        weights: of the classification and the box loss.
    """

    def __init__(
        self,
        box_weights: tuple[float, ...],
        smooth_l1_beta: float,
        weights: tuple[float, float],
    ) -> None:
        super().__init__()
        self.box_weights, self.smooth_l1_beta = box_weights, smooth_l1_beta
        self.weights = weights

    def construct(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        index: Tensor,
        gt_boxes: Tensor,
        positive: Tensor,
        valid: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Classification and box loss, scalars.

        Args:
            logits: (N * S,) at the sampled anchors.
            deltas: (N * S, 4).
            anchors: (A, 4), model frame.
            index: (N, S) int32 into them.
            gt_boxes: (N, S, 4) matched ground truth.
            positive: (N, S) bool.
            valid: (N, S) bool.
        """
        loss_cls, loss_box = rpn_losses(
            logits,
            deltas,
            ops.gather(anchors, index.reshape(-1), 0),
            gt_boxes.reshape(-1, 4),
            positive.reshape(-1),
            valid.reshape(-1),
            box_weights=self.box_weights,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        share = 1.0 / (index.shape[0] * index.shape[1])
        return loss_cls * share * self.weights[0], loss_box * share * self.weights[1]


class RPN(nn.Cell):
    """The region proposal network: head, anchors, targets, losses and proposals.

    Args:
        rpn_head: `RPNHead`.
        anchors: `AnchorGenerator`.
        train_proposals: `ProposalGenerator` for training.
        test_proposals: `ProposalGenerator` for inference.
        targets: `RPNTargets`.
        losses_of: `RPNLosses`.

    Inputs:
        - **features** (Tensor) - (N, H, W, C) float32.
        - **anchor_valid** (Tensor) - (A,) bool, which anchors stand on the batch.
        - **image_sizes** (Tensor) - (N, 2) float32 height, width, model frame.

    Outputs:
        Proposals for inference (N, P, 4), model frame, and valid (N, P) bool.
    """

    def __init__(
        self,
        rpn_head: nn.Cell,
        anchors: nn.Cell,
        train_proposals: nn.Cell,
        test_proposals: nn.Cell,
        targets: nn.Cell,
        losses_of: nn.Cell,
    ) -> None:
        super().__init__()
        self.rpn_head = rpn_head
        self.anchors = anchors
        self.train_proposals = train_proposals
        self.test_proposals = test_proposals
        self.targets = targets
        self.losses_of = losses_of

    def construct(
        self, features: Tensor, anchor_valid: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        logits, deltas = self.rpn_head(features)
        anchors = self.anchors(features)
        proposals = self.test_proposals(logits, deltas, anchors, anchor_valid, image_sizes)
        return proposals[0], proposals[2]

    def losses(
        self,
        features: Tensor,
        anchor_valid: Tensor,
        image_sizes: Tensor,
        gt_boxes: Tensor,
        gt_valid: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both losses, and the proposals that the second stage trains on, without gradient.

        Args:
            features: as in `construct`.
            anchor_valid: as in `construct`.
            image_sizes: as in `construct`.
            gt_boxes: (N, G, 4), model frame.
            gt_valid: (N, G) bool.
            noise: (N, A) float32 in [0, 1).

        Returns:
            Classification and box loss, divided by S x N and weighted; proposals (N, P, 4), model
            frame; valid (N, P) bool.
        """
        logits, deltas = self.rpn_head(features)
        anchors = self.anchors(features)
        index, positive, valid, gt_boxes = self.targets(
            anchors, anchor_valid, gt_boxes, gt_valid, noise
        )
        sampled_logits, sampled_deltas = self.rpn_head.at_anchors(features, logits, deltas, index)
        loss_cls, loss_box = self.losses_of(
            sampled_logits, sampled_deltas, anchors, index, gt_boxes, positive, valid
        )
        proposals, _, valid = self.train_proposals(
            logits, deltas, anchors, anchor_valid, image_sizes
        )
        return loss_cls, loss_box, proposals, valid
