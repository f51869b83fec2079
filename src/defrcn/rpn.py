# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The region proposal network: head and loss.

Letters: N images, H x W cells, B anchors a cell, A = H * W * B anchors, S samples an image.
Feature maps are (N, H, W, C), channels last.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.defrcn import box_ops
from src.defrcn.bbox_assign_sample import rpn_targets
from src.defrcn.winograd import winograd_conv3x3


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
        num_channels: C.
        num_cell_anchors: B.
        winograd: compute the dense 3x3 convolution by Winograd tiles.

    Inputs:
        - **features** (Tensor) - (N, H, W, C) float32.

    Outputs:
        logits (N, H * W * B) and deltas (N, H * W * B, 4), order: row, column, anchor.
    """

    def __init__(self, num_channels: int, num_cell_anchors: int, winograd: bool) -> None:
        super().__init__()
        self.num_cell_anchors = num_cell_anchors
        self.winograd = winograd
        self.conv = ConvBias(num_channels, num_channels, 3)
        self.objectness_logits = ConvBias(num_channels, num_cell_anchors, 1)
        self.anchor_deltas = ConvBias(num_channels, 4 * num_cell_anchors, 1)

    def construct(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        batch, _, _, channels = features.shape
        if self.winograd:
            hidden = winograd_conv3x3(features, self.conv.weight) + self.conv.bias
        else:
            maps = features.transpose(0, 3, 1, 2)
            hidden = ops.conv2d(maps, self.conv.weight, None, 1, "pad", 1)
            hidden = ops.bias_add(hidden, self.conv.bias).transpose(0, 2, 3, 1)
        logits, deltas = self._predict(ops.relu(hidden).reshape(-1, channels))
        return logits.reshape(batch, -1), deltas.reshape(batch, -1, 4)

    def _predict(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        channels = rows.shape[1]
        product = ops.MatMul(transpose_b=True)
        logits = product(rows, self.objectness_logits.weight.reshape(-1, channels))
        deltas = product(rows, self.anchor_deltas.weight.reshape(-1, channels))
        return logits + self.objectness_logits.bias, deltas + self.anchor_deltas.bias

    def at_anchors(self, features: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The head at some anchors only: the same values and gradients as the dense head's.

        Args:
            features: (H, W, C), one image.
            index: (S,) int32 into its A anchors.

        Returns:
            logits (S,), deltas (S, 4).
        """
        height, width, channels = features.shape
        cell = index // self.num_cell_anchors
        row, column = cell // width, cell % width
        step = Tensor(np.array([-1, 0, 1], np.int32))
        rows = (row[:, None, None] + step[None, :, None]) + ops.zeros((1, 1, 3), ms.int32)
        columns = (column[:, None, None] + step[None, None, :]) + ops.zeros((1, 3, 1), ms.int32)
        inside_rows = ops.logical_and(rows >= 0, rows < height)
        inside = ops.logical_and(inside_rows, ops.logical_and(columns >= 0, columns < width))
        place = ops.where(inside, rows * width + columns, ops.zeros_like(rows))
        patches = ops.gather(features.reshape(-1, channels), place.reshape(-1), 0)
        patches = patches * inside.astype(ms.float32).reshape(-1, 1)
        weight = self.conv.weight.transpose(0, 2, 3, 1).reshape(-1, 9 * channels)
        hidden = ops.MatMul(transpose_b=True)(patches.reshape(-1, 9 * channels), weight)
        logits, deltas = self._predict(ops.relu(hidden + self.conv.bias))
        anchor = (index % self.num_cell_anchors)[:, None]
        choice = ops.arange(self.num_cell_anchors).astype(ms.int32)[None, :] == anchor
        choice = choice.astype(ms.float32)
        deltas = deltas.reshape(-1, self.num_cell_anchors, 4) * choice[:, :, None]
        return (logits * choice).sum(1), deltas.sum(1)


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
    """Sums over one image's samples; the caller divides by samples x images.

    Args:
        logits: (S,) at the sampled anchors.
        deltas: (S, 4).
        anchors: (S, 4), model frame.
        gt_boxes: (S, 4) matched ground truth.
        positive: (S,) bool.
        valid: (S,) bool.
        box_weights: see `box_ops.encode_boxes`.
        smooth_l1_beta: see `absolute_or_smooth_l1`.

    Returns:
        Classification and box loss, scalars.
    """
    label = positive.astype(ms.float32)
    # log(1 + exp(-|x|)) + max(x, 0) - x * y: binary cross-entropy that cannot overflow.
    entropy = ops.log1p(ops.exp(-ops.abs(logits))) + ops.relu(logits) - logits * label
    loss_cls = (entropy * valid.astype(ms.float32)).sum()
    # An unused slot holds no box: its target is replaced, or log(0) would give NaN gradients.
    gt_boxes = ops.where(positive[:, None], gt_boxes, anchors)
    target = ops.stop_gradient(box_ops.encode_boxes(anchors, gt_boxes, box_weights))
    distance = absolute_or_smooth_l1(deltas - target, smooth_l1_beta)
    return loss_cls, (distance * label[:, None]).sum()


class RPN(nn.Cell):
    """The head and its anchors; settings of its targets and loss are plain values.

    Args:
        rpn_head: `RPNHead`.
        anchors: `AnchorGenerator`.
        iou_thresholds: background below the first, foreground from the second on.
        num_samples: S, anchors an image that the loss is divided by.
        positive_fraction: see `subsample`.
        box_weights: see `box_ops.encode_boxes`.
        smooth_l1_beta: 0 for L1.
        loss_weights: of the classification and the box loss.
        sampled_gradient: run the head densely without gradient and again, with gradient, at
            the sampled anchors only: exact, and cheaper than a dense backward pass.
    """

    def __init__(
        self,
        rpn_head: nn.Cell,
        anchors: nn.Cell,
        *,
        iou_thresholds: tuple[float, float],
        num_samples: int,
        positive_fraction: float,
        box_weights: tuple[float, ...],
        smooth_l1_beta: float,
        loss_weights: tuple[float, float],
        sampled_gradient: bool,
    ) -> None:
        super().__init__()
        self.rpn_head = rpn_head
        self.anchors = anchors
        self.iou_thresholds = iou_thresholds
        self.num_samples = num_samples
        self.positive_fraction = positive_fraction
        self.box_weights = box_weights
        self.smooth_l1_beta = smooth_l1_beta
        self.loss_weights = loss_weights
        self.sampled_gradient = sampled_gradient

    def construct(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, A) and deltas (N, A, 4) of a map (N, H, W, C)."""
        if self.sampled_gradient and self.training:
            features = ops.stop_gradient(features)
        logits, deltas = self.rpn_head(features)
        if self.sampled_gradient and self.training:
            return ops.stop_gradient(logits), ops.stop_gradient(deltas)
        return logits, deltas

    def losses(
        self,
        features: Tensor,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        anchor_valid: Tensor,
        gt_boxes: Tensor,
        gt_valid: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Classification and box loss of the batch, divided by S x N.

        Args:
            features: (N, H, W, C), as given to `construct`.
            logits: (N, A).
            deltas: (N, A, 4).
            anchors: (A, 4).
            anchor_valid: (A,) bool.
            gt_boxes: (N, G, 4), model frame.
            gt_valid: (N, G) bool.
            noise: (N, A) float32 in [0, 1).
        """
        batch = gt_boxes.shape[0]
        loss_cls, loss_box = 0.0, 0.0
        for i in range(batch):
            index, positive, valid, target = rpn_targets(
                anchors,
                anchor_valid,
                gt_boxes[i],
                gt_valid[i],
                noise[i],
                iou_thresholds=self.iou_thresholds,
                num_samples=self.num_samples,
                positive_fraction=self.positive_fraction,
            )
            index = ops.stop_gradient(index)
            if self.sampled_gradient:
                picked_logits, picked_deltas = self.rpn_head.at_anchors(features[i], index)
            else:
                picked_logits = ops.gather(logits[i], index, 0)
                picked_deltas = ops.gather(deltas[i], index, 0)
            cls, box = rpn_losses(
                picked_logits,
                picked_deltas,
                ops.gather(anchors, index, 0),
                target,
                positive,
                valid,
                box_weights=self.box_weights,
                smooth_l1_beta=self.smooth_l1_beta,
            )
            loss_cls, loss_box = loss_cls + cls, loss_box + box
        share = 1.0 / (self.num_samples * batch)
        cls, box = loss_cls * share, loss_box * share
        return cls * self.loss_weights[0], box * self.loss_weights[1]
