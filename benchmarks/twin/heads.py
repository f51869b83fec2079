# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The second stage: pooling, res5, class and box layers, targets, losses, detections."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torchvision.ops import batched_nms, roi_align

from benchmarks.twin import boxes as box
from benchmarks.twin.resnet import BLOCKS, norm_of, stage
from benchmarks.twin.rpn import STRIDE


@dataclass(frozen=True)
class Samples:
    """Of one image: boxes (S, 4), classes (S,) with K for background, matched truth (S, 4)."""

    boxes: Tensor
    classes: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Detections:
    """Of one image, by falling score: boxes (D, 4), scores (D,), classes (D,)."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class Predictor(nn.Module):
    """Class scores, background last, and four deltas for each class."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(channels, classes + 1)
        self.bbox_pred = nn.Linear(channels, 4 * classes)


class Heads(nn.Module):
    """The second stage.

    Args:
        model: the `model` section.
        channels: of res4.
        classes: K.
    """

    def __init__(self, model, channels: int, classes: int) -> None:
        super().__init__()
        self.settings = model.roi_heads
        self.classes = classes
        norm = norm_of(model.backbone.norm, model.roi_heads.freeze_feat)
        blocks = BLOCKS[model.backbone.depth][3]
        self.res5 = stage(blocks, channels, 2 * channels, 2, norm)
        self.box_predictor = Predictor(2 * channels, classes)
        if model.roi_heads.freeze_feat:
            self.res5.requires_grad_(False)

    def maps(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        """Res5 on the pooled boxes of all images, (R, 2C, 4, 4)."""
        side = self.settings.pooler_resolution
        return self.res5(roi_align(features, boxes, side, 1.0 / STRIDE, aligned=True))

    def predict(self, rows: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows (R, 2C) -> logits (R, K + 1), deltas (R, 4K); `noise` (R, 2C) is for dropout."""
        kept = rows
        if noise is not None:
            ratio = self.settings.dropout_ratio
            kept = rows * ((noise >= ratio).float() / (1.0 - ratio))
        return self.box_predictor.cls_score(kept), self.box_predictor.bbox_pred(rows)

    @torch.no_grad()
    def sample(self, boxes: Tensor, truth: Tensor, classes: Tensor, noise: Tensor) -> Samples:
        """Draw what the losses are over.

        Args:
            boxes: (P, 4) proposals.
            truth: (G, 4).
            classes: (G,).
            noise: (P + G,) in [0, 1).
        """
        own = self.settings
        boxes = torch.cat((boxes, truth)) if own.append_gt else boxes
        matched, label = box.match(truth, boxes, (own.iou_threshold, own.iou_threshold), False)
        drawn = torch.cat(
            box.sample(label, noise[: len(boxes)], own.batch_size_per_image, own.positive_fraction)
        )
        if not len(truth):
            background = torch.full((len(drawn),), self.classes)
            return Samples(boxes[drawn], background, torch.zeros(len(drawn), 4))
        found = torch.where(label == 1, classes[matched], self.classes)
        return Samples(boxes[drawn], found[drawn], truth[matched[drawn]])

    def losses(
        self, logits: Tensor, deltas: Tensor, samples: list[Samples]
    ) -> tuple[Tensor, Tensor]:
        """Class and box loss of all images' samples; logits (R, K + 1), deltas (R, 4K)."""
        own = self.settings
        boxes = torch.cat([one.boxes for one in samples])
        classes = torch.cat([one.classes for one in samples])
        truth = torch.cat([one.truth for one in samples])
        loss_cls = F.cross_entropy(logits, classes)
        rows = torch.nonzero(classes < self.classes)[:, 0]
        mine = deltas.reshape(len(deltas), -1, 4)[rows, classes[rows]]
        target = box.encode(boxes[rows], truth[rows], own.bbox_reg_weights)
        loss_box = F.smooth_l1_loss(mine, target, reduction="sum", beta=own.smooth_l1_beta)
        return loss_cls, loss_box * own.bbox_loss_weight / max(len(classes), 1)

    def detections(
        self,
        logits: Tensor,
        deltas: Tensor,
        boxes: Tensor,
        size: tuple[float, float],
        original: tuple[int, int],
        test,
    ) -> Detections:
        """What is found in one image, in its own frame.

        Args:
            logits: (P, K + 1).
            deltas: (P, 4K).
            boxes: (P, 4) proposals.
            size: height, width in the model frame.
            original: height, width of the picture.
            test: the `test` section.
        """
        scores = torch.softmax(logits, 1)[:, :-1]
        moved = box.decode(
            deltas.reshape(len(deltas), -1, 4), boxes[:, None], self.settings.bbox_reg_weights
        )
        moved = box.clip(moved, size)
        rows, classes = torch.nonzero(scores > test.score_threshold, as_tuple=True)
        picked, best = moved[rows, classes], scores[rows, classes]
        kept = batched_nms(picked, best, classes, test.nms_threshold)[: test.detections_per_image]
        found, scores, classes = picked[kept], best[kept], classes[kept]
        down, across = original[0] / size[0], original[1] / size[1]
        found = box.clip(found * found.new_tensor((across, down, across, down)), original)
        whole = box.nonempty(found)
        return Detections(found[whole], scores[whole], classes[whole])
