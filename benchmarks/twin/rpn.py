# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The region proposal network: anchors, head, proposals, targets and losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torchvision.ops import nms

from benchmarks.twin import boxes as box

STRIDE = 16


@dataclass(frozen=True)
class Proposals:
    """Of one image: boxes (P, 4) and logits (P,), best first."""

    boxes: Tensor
    logits: Tensor


class Head(nn.Module):
    """3x3 convolution, then a logit and four deltas for each anchor."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, 4 * anchors, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> logits (N, A), deltas (N, A, 4); order: row, column, anchor."""
        hidden = F.relu_(self.conv(maps))
        logits, deltas = self.objectness_logits(hidden), self.anchor_deltas(hidden)
        count, _, height, width = deltas.shape
        deltas = deltas.reshape(count, -1, 4, height, width).permute(0, 3, 4, 1, 2)
        return logits.permute(0, 2, 3, 1).flatten(1), deltas.reshape(count, -1, 4)


class RPN(nn.Module):
    """Head, anchors, proposals and losses.

    Args:
        channels: of the map.
        anchors: the `model.anchors` section.
        settings: the `model.rpn` section.
    """

    def __init__(self, channels: int, anchors, settings) -> None:
        super().__init__()
        self.settings = settings
        self.offset = anchors.offset
        shapes = []
        for size in anchors.sizes:
            for ratio in anchors.aspect_ratios:
                width = (size * size / ratio) ** 0.5
                shapes.append((-width / 2, -width * ratio / 2, width / 2, width * ratio / 2))
        self.register_buffer("cell", torch.tensor(shapes), persistent=False)
        self.rpn_head = Head(channels, len(shapes))

    def anchors(self, height: int, width: int) -> Tensor:
        """Anchors (A, 4) of a map of that many cells."""
        rows = (torch.arange(height) + self.offset) * STRIDE
        columns = (torch.arange(width) + self.offset) * STRIDE
        down, across = torch.meshgrid(rows, columns, indexing="ij")
        shift = torch.stack((across, down, across, down), -1)
        return (shift[:, :, None] + self.cell).reshape(-1, 4)

    @torch.no_grad()
    def proposals(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        sizes: list[tuple[float, float]],
    ) -> list[Proposals]:
        """The best boxes of each image after suppression.

        Args:
            logits: (N, A).
            deltas: (N, A, 4).
            anchors: (A, 4).
            sizes: (height, width) of each image.
        """
        own, train = self.settings, self.training
        before = own.pre_nms_topk_train if train else own.pre_nms_topk_test
        after = own.post_nms_topk_train if train else own.post_nms_topk_test
        found = []
        for scores, moves, size in zip(logits, deltas, sizes):
            scores, place = scores.topk(min(before, len(scores)))
            boxes = box.decode(moves[place], anchors[place], own.bbox_reg_weights)
            boxes = box.clip(boxes, size)
            usable = box.nonempty(boxes, own.min_box_size)
            boxes, scores = boxes[usable], scores[usable]
            kept = nms(boxes, scores, own.nms_threshold)[:after]
            found.append(Proposals(boxes[kept], scores[kept]))
        return found

    @torch.no_grad()
    def labels(self, anchors: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Matched ground truth and label of every anchor, (A,) each."""
        return box.match(truth, anchors, tuple(self.settings.iou_thresholds), True)

    def losses(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        truth: list[Tensor],
        noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Class and box loss of a batch.

        Args:
            logits: (N, A).
            deltas: (N, A, 4).
            anchors: (A, 4).
            truth: boxes (G, 4) of each image.
            noise: (N, A) in [0, 1), decides the draw.
        """
        own = self.settings
        loss_cls, loss_box = logits.new_zeros(()), logits.new_zeros(())
        for i, boxes in enumerate(truth):
            matched, label = self.labels(anchors, boxes)
            drawn = box.sample(label, noise[i], own.batch_size_per_image, own.positive_fraction)
            positive, both = drawn[0], torch.cat(drawn)
            loss_cls = loss_cls + F.binary_cross_entropy_with_logits(
                logits[i, both], (label[both] == 1).float(), reduction="sum"
            )
            if len(positive):
                target = box.encode(
                    anchors[positive], boxes[matched[positive]], own.bbox_reg_weights
                )
                loss_box = loss_box + F.smooth_l1_loss(
                    deltas[i, positive], target, reduction="sum", beta=own.smooth_l1_beta
                )
        share = own.loss_weight / (own.batch_size_per_image * len(truth))
        return loss_cls * share, loss_box * share * own.bbox_loss_weight
