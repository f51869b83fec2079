# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The official networks with regenerated weights, the test images, and what lies inside a pass.

`kind` is the training that vectors belong to: `base`, or fine-tuning at 10 shots on the novel
classes (`fsod`) or on all (`gfsod`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.defrcn.bbox_assign_sample import label_anchors
from src.defrcn.de_frcn import DeFRCN
from src.defrcn.fast import BoxTiles, make_fast, names_kept
from src.defrcn.kernel_blocks import BoxRows
from src.defrcn.kernels import KernelSquareSum, use_kernels
from src.kernels import library
from src.model_utils.config import Config, load_config
from src.network_define import (
    build_detector,
    build_eval_step,
    build_optimizer,
    build_train_step,
    set_parameters,
)
from src.sgd_optimizer import SGD
from tests.golden import golden

PROJECT = golden.HERE.parents[1]
CONFIGS = {
    "base": "configs/coco/defrcn_det_r101_base.yaml",
    "fsod": "configs/coco/defrcn_fsod_r101_novel_10shot.yaml",
    "gfsod": "configs/coco/defrcn_gfsod_r101_novel_10shot.yaml",
}
WEIGHTS = {"base": "base", "fsod": "novel", "gfsod": "all"}
FORMULATIONS = ("fast", "plain")
MEAN = np.array([103.53, 116.28, 123.675], np.float32)


def config(kind: str, overrides: tuple[str, ...] = ()) -> Config:
    """The project's own configuration of a kind of training."""
    return load_config(str(PROJECT / CONFIGS[kind]), overrides)


def weights_of(kind: str) -> dict[str, np.ndarray]:
    return golden.state_dict(WEIGHTS[kind])


def train_overrides(kind: str) -> tuple[str, ...]:
    """The settings with which topics 09 and 10 were made: nothing is left to chance.

    The official run allowed more samples of the second stage, a quarter of them foreground, than
    there were proposals and ground-truth boxes. As many slots as there are boxes give the same
    and save three quarters of the work.
    """
    official = golden.record(f"09_train_{kind}")["config_overrides"]
    proposals = official["MODEL.RPN.POST_NMS_TOPK_TRAIN"]
    slots = proposals + ground_truth(kind)[0].shape[1]
    assert slots <= official["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"]
    return (
        f"--model.rpn.batch_size_per_image={official['MODEL.RPN.BATCH_SIZE_PER_IMAGE']}",
        f"--model.rpn.post_nms_topk_train={proposals}",
        f"--model.roi_heads.batch_size_per_image={slots}",
        "--model.roi_heads.positive_fraction=1.0",
        f"--model.roi_heads.cls_dropout={str(official['MODEL.ROI_HEADS.CLS_DROPOUT']).lower()}",
    )


def built_kernels() -> Path | None:
    """The kernels, where they are built and can run."""
    return library.built() if ms.get_context("device_target") == "CPU" else None


def new_detector(settings: Config, kind: str, formulation: str) -> DeFRCN:
    """Build a detector with the golden weights of `kind`."""
    state = weights_of(kind)
    net = build_detector(
        settings.model,
        num_classes=len(state["roi_heads.box_predictor.cls_score.bias"]) - 1,
        max_size=max(settings.input.max_size_train, settings.input.max_size_test),
        masked=False,
    )
    if formulation == "fast":
        make_fast(net)
        if (kernels := built_kernels()) is not None:
            use_kernels(net, str(kernels))
    load(net, state)
    return net


def load(net: nn.Cell, state: dict[str, np.ndarray]) -> None:
    """Set every parameter; names and shapes must be exactly those of `state`."""
    parameters = {p.name: p for p in net.get_parameters()}
    assert parameters.keys() == state.keys()
    for name, value in state.items():
        assert parameters[name].shape == value.shape, name
    set_parameters(list(parameters.values()), state)


@dataclass(frozen=True)
class TrainStep:
    """A detector with its compiled training step."""

    settings: Config
    net: DeFRCN
    optimizer: SGD
    gradients_of: Callable
    update: Callable
    start: dict[str, np.ndarray]

    def reset(self) -> None:
        """Back to the golden weights, optimizer at rest."""
        load(self.net, self.start)
        rest = {p.name: np.zeros(p.shape, np.float32) for p in self.optimizer.velocities}
        set_parameters(self.optimizer.velocities, rest)


@functools.cache
def train_step(kind: str, formulation: str) -> TrainStep:
    """The training step in the mode that training uses: compiled once for all image sizes."""
    settings = config(kind, train_overrides(kind))
    net = new_detector(settings, kind, formulation)
    kernels = built_kernels() if formulation == "fast" else None
    optimizer = build_optimizer(net, settings.solver, str(kernels or ""))
    gradients_of, update = build_train_step(
        net,
        optimizer,
        batch_size=2,
        exact=True,
        square_sum=KernelSquareSum(str(kernels)) if kernels else None,
    )
    return TrainStep(settings, net, optimizer, gradients_of, update, weights_of(kind))


@functools.cache
def first_pass(kind: str, formulation: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The compiled step at the golden weights, for topics 09 and 10: losses (4,), gradients."""
    step = train_step(kind, formulation)
    step.reset()
    losses, _, gradients = step.gradients_of(*train_inputs(kind))
    return losses, gradients


@functools.cache
def eval_step(kind: str, formulation: str) -> tuple[DeFRCN, Callable]:
    """A detector in official test settings and its compiled inference."""
    net = new_detector(config(kind), kind, formulation)
    return net, build_eval_step(net, exact=True)


def image(i: int) -> np.ndarray:
    """Test image i, normalised, (3, H, W)."""
    pixels = golden.arrays("00_inputs")[f"image{i}"].astype(np.float32)
    return np.ascontiguousarray((pixels - MEAN).transpose(2, 0, 1))


def alone(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Test image i as a batch: (1, 3, H, W), sizes (1, 2), padded size (2,)."""
    one = image(i)
    size = np.array(one.shape[1:])
    return one[None], size[None].astype(np.float32), size.astype(np.int32)


def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both images padded to the larger size: (2, 3, H, W), sizes (2, 2), padded size (2,)."""
    images = [image(0), image(1)]
    sizes = np.array([one.shape[1:] for one in images], np.float32)
    height, width = sizes.max(0).astype(int)
    batch = np.zeros((2, 3, height, width), np.float32)
    for slot, one in zip(batch, images):
        slot[:, : one.shape[1], : one.shape[2]] = one
    return batch, sizes, np.array([height, width], np.int32)


INPUTS = {"pair": pair, "alone0": lambda: alone(0), "alone1": lambda: alone(1)}


def ground_truth(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (2, G, 4), classes (2, G) and valid (2, G) of the pair."""
    inputs = golden.arrays("00_inputs")
    given = [inputs[f"gt_boxes_{kind}{i}"] for i in range(2)]
    slots = max(1, *map(len, given))
    boxes, classes = np.zeros((2, slots, 4), np.float32), np.zeros((2, slots), np.int32)
    valid = np.zeros((2, slots), bool)
    for i, own in enumerate(given):
        boxes[i, : len(own)] = own
        classes[i, : len(own)] = inputs[f"gt_classes_{kind}{i}"]
        valid[i, : len(own)] = True
    return boxes, classes, valid


def train_inputs(kind: str, without_boxes: tuple[int, ...] = ()) -> tuple[Tensor, ...]:
    """The inputs of `DeFRCN.losses` for the pair, with noise that must not matter.

    Args:
        kind: see above.
        without_boxes: images whose ground truth is left out.
    """
    images, sizes, padded = pair()
    boxes, classes, valid = ground_truth(kind)
    valid[list(without_boxes)] = False
    settings = config(kind, train_overrides(kind)).model
    anchors = len(settings.anchors.sizes) * len(settings.anchors.aspect_ratios)
    cells = -(-images.shape[2] // 16) * -(-images.shape[3] // 16)
    slots = settings.rpn.post_nms_topk_train + boxes.shape[1]
    rng = np.random.default_rng(0)
    noise = (
        rng.random((2, cells * anchors), np.float32),
        rng.random((2, slots), np.float32),
        np.zeros((1, 1), np.float32),
    )
    return tuple(map(Tensor, (images, sizes, padded, boxes, classes, valid, *noise)))


def first_stage(net: DeFRCN, generator: nn.Cell, inputs: tuple[Tensor, ...]) -> dict:
    """Backbone, RPN and proposals of (images, image_sizes, padded_size), eagerly."""
    images, image_sizes, padded_size = inputs
    features = net.backbone(images, padded_size)
    rpn_features, valid_size, anchor_valid = net.rpn_inputs(features, padded_size)
    logits, deltas = net.proposal_generator.rpn_head(rpn_features)
    anchors = net.proposal_generator.anchors(features)
    proposals, scores, valid = generator(logits, deltas, anchors, anchor_valid, image_sizes)
    return {
        "features": features,
        "rcnn_features": net.rcnn_features(features),
        "valid_size": valid_size,
        "anchors": anchors,
        "anchor_valid": anchor_valid,
        "logits": logits,
        "deltas": deltas,
        "proposals": proposals,
        "scores": scores,
        "valid": valid,
    }


def anchor_labels(net: DeFRCN, stage: dict, boxes: Tensor, valid: Tensor) -> np.ndarray:
    """Labels of all anchors of one image."""
    thresholds = net.proposal_generator.targets.iou_thresholds
    labels, _ = label_anchors(stage["anchors"], stage["anchor_valid"], boxes, valid, thresholds)
    return labels.asnumpy()


def head_outputs(
    net: DeFRCN, stage: dict, boxes: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Class logits (R, K + 1) and deltas (R, 4K), rows: the boxes of image 0, then of image 1.

    Images may have different numbers of boxes: each is pooled by itself.
    """
    outputs = []
    for i, own in enumerate(boxes):
        features = stage["rcnn_features"][i : i + 1]
        outputs.append(net.roi_heads(features, Tensor(own[None]), stage["valid_size"]))
    return tuple(np.concatenate([one[part].asnumpy() for one in outputs]) for part in (0, 1))


def second_stage(
    net: DeFRCN, stage: dict, boxes: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Res5 before its mean, (R, C, side, side), and `head_outputs`, of one pass."""
    layout, seen = type(net.roi_heads.layout), []
    average = layout.average

    def noted(self: nn.Cell, maps: Tensor) -> Tensor:
        seen.append(maps)
        return average(self, maps)

    with mock.patch.object(layout, "average", noted):
        logits, deltas = head_outputs(net, stage, boxes)
    maps = [one.asnumpy() for one in seen]
    if layout is BoxTiles:
        maps = [one.transpose(1, 2, 0).reshape(len(own), -1, 4, 4) for one, own in zip(maps, boxes)]
    if layout is BoxRows:
        maps = [one.transpose(0, 3, 1, 2) for one in maps]
    return np.concatenate(maps), logits, deltas


class _Given(nn.Cell):
    """Stands for the backbone: its output is what is handed in as images."""

    def construct(self, images: Tensor, padded_size: Tensor) -> Tensor:
        return images


def losses_from(
    net: DeFRCN, features: Tensor, inputs: tuple[Tensor, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """What follows the backbone, eagerly.

    Returns:
        The four losses, and the gradient of their sum at the backbone's output, (N, C, H, W).
    """

    def total(at: Tensor) -> tuple[Tensor, Tensor]:
        losses = ops.stack(net.losses(at, *inputs[1:]))
        return losses.sum(), losses

    backbone = net.backbone
    with names_kept(net):
        net.backbone = _Given()
        try:
            (_, losses), gradient = ms.value_and_grad(total, 0, has_aux=True)(features)
        finally:
            net.backbone = backbone
    return losses.asnumpy(), gradient.asnumpy().transpose(0, 3, 1, 2)
