# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The detector: backbone, RPN and second stage, decoupled by gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.twin.heads import Detections, Heads, Samples
from benchmarks.twin.resnet import Backbone
from benchmarks.twin.rpn import RPN

LOSSES = ("loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg")


@dataclass(frozen=True)
class Batch:
    """What a training step learns from.

    Attributes:
        images: (N, 3, H, W).
        sizes: (height, width) of each image, model frame.
        boxes: (G, 4) of each image.
        classes: (G,) of each image.
        rpn_noise: (N, A), see `RPN.losses`.
        roi_noise: (N, P + slots), proposals first, then as many as the image with most objects has.
        dropout_noise: (N * S, 2C), or None without dropout.
    """

    images: Tensor
    sizes: list[tuple[float, float]]
    boxes: list[Tensor]
    classes: list[Tensor]
    rpn_noise: Tensor
    roi_noise: Tensor
    dropout_noise: Tensor | None = None


class _Scaled(torch.autograd.Function):
    """The gradient decoupled layer: identity, whose gradient is multiplied."""

    @staticmethod
    def forward(ctx, maps: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return maps.view_as(maps)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale, None


def scale_gradient(maps: Tensor, scale: float) -> Tensor:
    """Identity forward; backward multiplies by `scale`, and cuts the graph where that is 0."""
    return _Scaled.apply(maps, scale) if scale else maps.detach()


class Affine(nn.Module):
    """Learned scale and shift of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        return maps * self.weight + self.bias


class Detector(nn.Module):
    """DeFRCN of the `model` section, for K classes; parameters have the official names."""

    def __init__(self, model, classes: int) -> None:
        super().__init__()
        backbone, channels = model.backbone, 4 * model.backbone.res2_out_channels
        self.model = model
        self.backbone = Backbone(
            backbone.depth,
            backbone.norm,
            backbone.freeze_at,
            backbone.stem_out_channels,
            backbone.res2_out_channels,
        )
        self.proposal_generator = RPN(channels, model.anchors, model.rpn)
        self.roi_heads = Heads(model, channels, classes)
        if model.rpn.enable_decouple:
            self.affine_rpn = Affine(channels)
        if model.roi_heads.enable_decouple:
            self.affine_rcnn = Affine(channels)
        if model.rpn.freeze:
            self.proposal_generator.requires_grad_(False)

    def rpn_features(self, features: Tensor) -> Tensor:
        """What the RPN sees."""
        if not self.model.rpn.enable_decouple:
            return features
        return self.affine_rpn(scale_gradient(features, self.model.rpn.backward_scale))

    def rcnn_features(self, features: Tensor) -> Tensor:
        """What the second stage pools from."""
        if not self.model.roi_heads.enable_decouple:
            return features
        return self.affine_rcnn(scale_gradient(features, self.model.roi_heads.backward_scale))

    @torch.inference_mode()
    def detect(
        self, image: Tensor, size: tuple[float, float], original: tuple[int, int], test
    ) -> Detections:
        """Find objects in one image (1, 3, H, W); see `Heads.detections`."""
        features = self.backbone(image)
        (proposals,) = self.propose(features, [size])
        logits, deltas = self.second_stage(features, proposals.boxes)
        return self.roi_heads.detections(logits, deltas, proposals.boxes, size, original, test)

    def propose(self, features: Tensor, sizes: list[tuple[float, float]]) -> list:
        """RPN and proposals on maps (N, C, H, W)."""
        logits, deltas = self.proposal_generator.rpn_head(self.rpn_features(features))
        anchors = self.proposal_generator.anchors(*features.shape[2:])
        return self.proposal_generator.proposals(logits, deltas, anchors, sizes)

    def second_stage(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P, K + 1) and deltas (P, 4K) of boxes (P, 4) of one image."""
        maps = self.roi_heads.maps(self.rcnn_features(features), [boxes])
        return self.roi_heads.predict(maps.mean((2, 3)))

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four losses, in the order of `LOSSES`."""
        return self.losses_from(self.backbone(batch.images), batch)

    def losses_from(self, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same, given the backbone's map."""
        rpn = self.proposal_generator
        logits, deltas = rpn.rpn_head(self.rpn_features(features))
        anchors = rpn.anchors(*features.shape[2:])
        first = rpn.losses(logits, deltas, anchors, batch.boxes, batch.rpn_noise)
        proposals = rpn.proposals(logits, deltas, anchors, batch.sizes)
        samples = self.samples([one.boxes for one in proposals], batch)
        rows = self.roi_heads.maps(
            self.rcnn_features(features), [one.boxes for one in samples]
        ).mean((2, 3))
        dropped = batch.dropout_noise if self.model.roi_heads.cls_dropout else None
        predicted = self.roi_heads.predict(rows, None if dropped is None else dropped[: len(rows)])
        return (*first, *self.roi_heads.losses(*predicted, samples))

    def samples(self, proposals: list[Tensor], batch: Batch) -> list[Samples]:
        """Drawn boxes of every image, given its proposals (P, 4)."""
        most = self.model.rpn.post_nms_topk_train
        drawn = []
        for boxes, truth, classes, noise in zip(
            proposals, batch.boxes, batch.classes, batch.roi_noise
        ):
            own = torch.cat((noise[: len(boxes)], noise[most : most + len(truth)]))
            drawn.append(self.roi_heads.sample(boxes, truth, classes, own))
        return drawn


def load(net: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Set every parameter and buffer by name; names and shapes must be exactly the network's."""
    net.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})


def shapes_of(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter and buffer."""
    return {name: tuple(array.shape) for name, array in net.state_dict().items()}
