# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The second stage: res5 on RoIs, class and box layers, targets, losses.

Letters: N images, G ground-truth slots, P proposals of an image, S samples of an image, R RoIs of
all images together, K foreground classes.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.defrcn import box_ops
from src.defrcn.rpn import absolute_or_smooth_l1


class Linear(nn.Cell):
    """A fully connected layer, weight (D, C) and bias (D,)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        shape = (out_channels, in_channels)
        self.weight = Parameter(Tensor(np.zeros(shape, np.float32)), name="weight")
        self.bias = Parameter(Tensor(np.zeros(out_channels, np.float32)), name="bias")

    def construct(self, rows: Tensor) -> Tensor:
        """(R, C) -> (R, D)."""
        return ops.MatMul(transpose_b=True)(rows, self.weight) + self.bias


class BoxPredictor(nn.Cell):
    """Class scores (background last) and class-specific box deltas.

    Args:
        in_channels: C.
        num_classes: K.
        dropout_ratio: share of the class layer's inputs that is dropped in training (the box
            layer sees all of them); 0 for none.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout_ratio: float) -> None:
        super().__init__()
        self.dropout_ratio = dropout_ratio
        self.cls_score = Linear(in_channels, num_classes + 1)
        self.bbox_pred = Linear(in_channels, 4 * num_classes)

    def construct(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C) -> logits (R, K + 1), deltas (R, 4K)."""
        return self.cls_score(rows), self.bbox_pred(rows)

    def train_forward(self, rows: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The same with dropout decided by `noise`, (R, C) float32 in [0, 1)."""
        kept = rows
        if self.dropout_ratio > 0:
            mask = (noise >= self.dropout_ratio).astype(ms.float32)
            kept = rows * (mask / (1.0 - self.dropout_ratio))
        return self.cls_score(kept), self.bbox_pred(rows)


class BoxMaps(nn.Cell):
    """How res5 sees pooled boxes: each as a map of its own.

    Args:
        side: cells of a map, each way.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def construct(self, pooled: Tensor) -> Tensor:
        """(side * side, R, C), as `ROIAlign` gives them -> (R, C, side, side)."""
        rois, channels = pooled.shape[1], pooled.shape[2]
        return pooled.transpose(1, 2, 0).reshape(rois, channels, self.side, self.side)

    def average(self, maps: Tensor) -> Tensor:
        """(R, C, h, w) -> (R, C), the mean over positions."""
        return ops.mean(maps, (2, 3))


class ROILosses(nn.Cell):
    """Both losses of the second stage, see `rcnn_losses`; the box loss is weighted.

    Args:
        box_weights: see `box_ops.encode_boxes`.
        smooth_l1_beta: 0 for L1.
        box_loss_weight: factor of the box loss.
    """

    def __init__(
        self, box_weights: tuple[float, ...], smooth_l1_beta: float, box_loss_weight: float
    ) -> None:
        super().__init__()
        self.box_weights, self.smooth_l1_beta = box_weights, smooth_l1_beta
        self.box_loss_weight = box_loss_weight

    def construct(
        self,
        logits: Tensor,
        deltas: Tensor,
        boxes: Tensor,
        classes: Tensor,
        gt_boxes: Tensor,
        valid: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Class and box loss, scalars.

        Args:
            logits: (N * S, K + 1).
            deltas: (N * S, 4K).
            boxes: (N, S, 4) sampled boxes, model frame.
            classes: (N, S) int32, K for background.
            gt_boxes: (N, S, 4) matched ground truth.
            valid: (N, S) bool.
        """
        loss_cls, loss_box = rcnn_losses(
            logits,
            deltas,
            boxes.reshape(-1, 4),
            classes.reshape(-1),
            gt_boxes.reshape(-1, 4),
            valid.reshape(-1),
            box_weights=self.box_weights,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return loss_cls, loss_box * self.box_loss_weight


class PredictedBoxes(nn.Cell):
    """The boxes of all classes that deltas make of proposals, clipped to their images.

    Args:
        box_weights: see `box_ops.decode_boxes`.

    Inputs:
        - **proposals** (Tensor) - (N, P, 4) float32, model frame.
        - **deltas** (Tensor) - (N * P, 4K) float32.
        - **image_sizes** (Tensor) - (N, 2) float32 height, width, model frame.

    Outputs:
        Tensor (N, P, K, 4) float32, model frame.
    """

    def __init__(self, box_weights: tuple[float, ...]) -> None:
        super().__init__()
        self.box_weights = box_weights

    def construct(self, proposals: Tensor, deltas: Tensor, image_sizes: Tensor) -> Tensor:
        """See the class."""
        batch, count = proposals.shape[:2]
        deltas = deltas.reshape(batch, count, -1, 4)
        boxes = box_ops.decode_boxes(deltas, proposals[:, :, None, :], self.box_weights)
        clipped = [box_ops.clip_boxes(boxes[i], image_sizes[i]) for i in range(batch)]
        return ops.stack(tuple(clipped))


class Res5ROIHeads(nn.Cell):
    """The second stage: pooling, res5, class and box layers, targets and losses.

    Args:
        pooler: `ROIAlign`.
        res5: bottlenecks, see `resnet.make_stage`.
        layout: `BoxMaps`, between the two.
        box_predictor: `BoxPredictor`.
        targets: `ROITargets`.
        losses_of: `ROILosses`.
        boxes_of: `PredictedBoxes`.

    Inputs:
        - **features** (Tensor) - (N, H, W, C) float32.
        - **boxes** (Tensor) - (N, P, 4) float32, model frame.
        - **valid_size** (Tensor) - (2,) float32 rows, columns that belong to the batch.

    Outputs:
        Logits (N * P, K + 1) and deltas (N * P, 4K).
    """

    def __init__(
        self,
        pooler: nn.Cell,
        res5: nn.CellList,
        layout: nn.Cell,
        box_predictor: nn.Cell,
        targets: nn.Cell,
        losses_of: nn.Cell,
        boxes_of: nn.Cell,
    ) -> None:
        super().__init__()
        self.pooler = pooler
        self.res5 = res5
        self.layout = layout
        self.box_predictor = box_predictor
        self.targets = targets
        self.losses_of = losses_of
        self.boxes_of = boxes_of

    def construct(
        self, features: Tensor, boxes: Tensor, valid_size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        return self.box_predictor(self.box_features(features, boxes, valid_size))

    def box_features(self, features: Tensor, boxes: Tensor, valid_size: Tensor) -> Tensor:
        """(N, H, W, C) map, (N, P, 4) boxes -> (N * P, 2C): res5, averaged over positions."""
        maps = self.layout(self.pooler(features, boxes, valid_size))
        for block in self.res5:
            maps = block(maps)
        return self.layout.average(maps)

    def losses(
        self,
        features: Tensor,
        valid_size: Tensor,
        proposals: Tensor,
        proposal_valid: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        gt_valid: Tensor,
        noise: Tensor,
        dropout_noise: Tensor,
        labelled: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Class and box loss over sampled proposals.

        Args:
            features: as in `construct`.
            valid_size: as in `construct`.
            proposals: (N, P, 4), model frame.
            proposal_valid: (N, P) bool.
            gt_boxes: (N, G, 4), model frame.
            gt_classes: (N, G) int32.
            gt_valid: (N, G) bool.
            noise: (N, P + G) float32 in [0, 1): the draw of proposals.
            dropout_noise: (N * S, 2C) float32, see `BoxPredictor.train_forward`.
            labelled: (N, K) bool, see `known_logits`; None for plain cross-entropy.
        """
        boxes, classes, used, target = self.targets(
            proposals, proposal_valid, gt_boxes, gt_classes, gt_valid, noise
        )
        rows = self.box_features(features, boxes, valid_size)
        logits, deltas = self.box_predictor.train_forward(rows, dropout_noise)
        if labelled is not None:
            logits = known_logits(logits, classes, labelled)
        return self.losses_of(logits, deltas, boxes, classes, target, used)

    def decode(
        self, proposals: Tensor, logits: Tensor, deltas: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Boxes (N, P, K, 4), clipped to each image, and scores (N, P, K + 1)."""
        batch, count = proposals.shape[:2]
        scores = ops.softmax(logits, 1).reshape(batch, count, -1)
        return self.boxes_of(proposals, deltas, image_sizes), scores


def known_logits(logits: Tensor, classes: Tensor, labelled: Tensor) -> Tensor:
    """Logits that are 0 where a background sample's picture does not say what it is.

    The decoupled classifier of DCFS (Gao et al., NeurIPS 2022): a picture of a K-shot set is
    labelled for some classes only, so a sample of it without an object of these may be one of the
    others. In a background row each logit but the background's and those of the picture's
    labelled classes is multiplied by 0: it stays in the softmax, as e^0, and gets no gradient.
    Rows of foreground are as they were.

    Args:
        logits: (N * S, K + 1), background last.
        classes: (N, S) int32, K for background.
        labelled: (N, K) bool, classes that the annotations of each picture name.

    Returns:
        (N * S, K + 1).
    """
    images, samples = classes.shape
    columns = logits.shape[1]
    foreground = ops.expand_dims(classes < columns - 1, 2)
    background = Tensor(np.arange(columns) == columns - 1).reshape(1, 1, columns)
    known = ops.pad(labelled.astype(ms.float32), (0, 1)).reshape(images, 1, columns) > 0
    kept = ops.logical_or(ops.logical_or(foreground, background), known)
    # Chosen, not multiplied: an infinite logit times 0 is no number.
    rows = logits.reshape(images, samples, columns)
    return ops.where(kept, rows, ops.zeros_like(rows)).reshape(-1, columns)


def rcnn_losses(
    logits: Tensor,
    deltas: Tensor,
    boxes: Tensor,
    classes: Tensor,
    gt_boxes: Tensor,
    valid: Tensor,
    *,
    box_weights: tuple[float, ...],
    smooth_l1_beta: float,
) -> tuple[Tensor, Tensor]:
    """Class and box loss over the samples of the whole batch (Fast R-CNN, sec. 2.3).

    Both are divided by the number of all samples, foreground and background.

    Args:
        logits: (R, K + 1).
        deltas: (R, 4K).
        boxes: (R, 4) sampled boxes, model frame.
        classes: (R,) int32, K for background.
        gt_boxes: (R, 4) matched ground truth.
        valid: (R,) bool.
        box_weights: see `box_ops.encode_boxes`.
        smooth_l1_beta: see `absolute_or_smooth_l1`.

    Returns:
        Class loss and box loss, scalars.
    """
    weight, total = valid.astype(ms.float32), ops.ReduceSum()
    samples = ops.maximum(total(weight), Tensor(1.0, ms.float32))
    num_classes = logits.shape[1] - 1
    labels = Tensor(np.arange(num_classes + 1, dtype=np.int32))
    wanted = (labels == ops.expand_dims(classes, 1)).astype(ms.float32)
    entropy = -total(ops.log_softmax(logits, 1) * wanted, 1)
    loss_cls = total(entropy * weight) / samples
    foreground = ops.expand_dims(ops.logical_and(valid, classes < num_classes), 1)
    gt_boxes = ops.where(foreground, gt_boxes, boxes)
    # An unused slot may hold an empty box; any box with a size will do there.
    unit = Tensor(np.array([0, 0, 1, 1], np.float32))
    usable = ops.expand_dims(box_ops.nonempty(boxes), 1)
    target = box_ops.encode_boxes(
        ops.where(usable, boxes, unit), ops.where(usable, gt_boxes, unit), box_weights
    )
    own = ops.expand_dims(wanted[:, :-1], 2)
    own_deltas = total(deltas.reshape(-1, num_classes, 4) * own, 1)
    distance = absolute_or_smooth_l1(own_deltas - ops.stop_gradient(target), smooth_l1_beta)
    return loss_cls, total(distance * foreground.astype(ms.float32)) / samples
