# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The twin against the golden vectors: the same files and tolerances as the project's own tests.

Each function is one topic; it raises AssertionError where a number is off.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import time

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.twin.detector import LOSSES, Affine, Batch, Detector, load, scale_gradient
from benchmarks.twin.encoder import Encoder, calibrated
from src.model_utils.config import Config, load_config
from tests.golden import golden

logger = logging.getLogger(__name__)

PROJECT = golden.HERE.parents[1]
CONFIGS = {
    "base": "configs/coco/defrcn_det_r101_base.yaml",
    "fsod": "configs/coco/defrcn_fsod_r101_novel_10shot.yaml",
    "gfsod": "configs/coco/defrcn_gfsod_r101_novel_10shot.yaml",
}
WEIGHTS = {"base": "base", "fsod": "novel", "gfsod": "all"}
MEAN = np.array([103.53, 116.28, 123.675], np.float32)
INFERENCE = {
    "base": ("base", None),
    "base_score_0.44": ("base", 0.44),
    "fsod": ("fsod", None),
    "gfsod": ("gfsod", None),
}


def settings(kind: str, *flags: str) -> Config:
    """The configuration of a kind of training."""
    return load_config(str(PROJECT / CONFIGS[kind]), flags)


def detector(kind: str, config: Config) -> Detector:
    """The twin with the golden weights of a kind."""
    arrays = golden.state_dict(WEIGHTS[kind])
    net = Detector(config.model, len(arrays["roi_heads.box_predictor.cls_score.bias"]) - 1)
    load(net, arrays)
    return net


def image(i: int) -> Tensor:
    """Test image i, normalised, (3, H, W)."""
    pixels = golden.arrays("00_inputs")[f"image{i}"].astype(np.float32) - MEAN
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def size_of(picture: Tensor) -> tuple[float, float]:
    """Height and width of (..., H, W)."""
    return float(picture.shape[-2]), float(picture.shape[-1])


def pair() -> Tensor:
    """Both test images, padded right and bottom."""
    images = [image(0), image(1)]
    batch = torch.zeros(2, 3, *(max(one.shape[axis] for one in images) for axis in (1, 2)))
    for slot, one in zip(batch, images):
        slot[:, : one.shape[1], : one.shape[2]] = one
    return batch


def batch_of(kind: str, model, without: tuple[int, ...] = ()) -> Batch:
    """The training batch of topic 09; images in `without` have no ground truth."""
    inputs, images = golden.arrays("00_inputs"), pair()
    boxes = [torch.from_numpy(inputs[f"gt_boxes_{kind}{i}"]) for i in range(2)]
    classes = [torch.from_numpy(inputs[f"gt_classes_{kind}{i}"]) for i in range(2)]
    for i in without:
        boxes[i], classes[i] = boxes[i][:0], classes[i][:0]
    cells = -(-images.shape[2] // 16) * -(-images.shape[3] // 16)
    slots = model.rpn.post_nms_topk_train + max(map(len, boxes))
    draw = torch.Generator().manual_seed(0)
    return Batch(
        images,
        [size_of(image(i)) for i in range(2)],
        boxes,
        classes,
        torch.rand(2, cells * 15, generator=draw),
        torch.rand(2, slots, generator=draw),
    )


def close(name: str, actual, expected, tolerance: float) -> None:
    """Absolute differences are at most `tolerance`."""
    np.testing.assert_allclose(np.asarray(actual), expected, atol=tolerance, rtol=0, err_msg=name)


@torch.inference_mode()
def backbone() -> None:
    """Topic 07."""
    net, data = detector("base", settings("base")).backbone, golden.arrays("07_backbone")
    inputs = {"pair": pair(), "alone0": image(0)[None], "alone1": image(1)[None]}
    for name, images in inputs.items():
        for stage, maps in zip(("stem", "res2", "res3", "res4"), net.stages(images)):
            golden.assert_digest(data, f"{name}.{stage}", maps.numpy(), 1e-4)


def decoupling() -> None:
    """Topic 08."""
    data = golden.arrays("08_decouple")
    fresh = Affine(data["x"].shape[1])
    for part in ("weight", "bias"):
        np.testing.assert_array_equal(
            getattr(fresh, part).detach().numpy(), data[f"initial_{part}"]
        )
    for i, scale in enumerate(map(float, data["scales"])):
        layer = Affine(data["x"].shape[1])
        load(layer, {"weight": data["weight"], "bias": data["bias"]})
        x = torch.from_numpy(data["x"]).requires_grad_()
        out = layer(scale_gradient(x, scale))
        out.backward(torch.from_numpy(data["grad_out"]))
        # A graph that is cut gives no gradient where the official code gives zeros.
        gradient = torch.zeros_like(x) if x.grad is None else x.grad
        for name, value in (
            ("out", out.detach()),
            ("grad_weight", layer.weight.grad),
            ("grad_bias", layer.bias.grad),
            (f"grad_x_{i}", gradient),
        ):
            close(name, value, data[name], 1e-5)


def training(kind: str) -> None:
    """Topic 09: losses, gradients, and what lies inside."""
    official = golden.record(f"09_train_{kind}")
    changed = official["config_overrides"]
    config = settings(
        kind,
        f"--model.rpn.batch_size_per_image={changed['MODEL.RPN.BATCH_SIZE_PER_IMAGE']}",
        f"--model.rpn.post_nms_topk_train={changed['MODEL.RPN.POST_NMS_TOPK_TRAIN']}",
        f"--model.roi_heads.batch_size_per_image={changed['MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE']}",
        f"--model.roi_heads.cls_dropout={str(changed['MODEL.ROI_HEADS.CLS_DROPOUT']).lower()}",
    )
    net = detector(kind, config).train()
    batch = batch_of(kind, config.model)
    features = net.backbone(batch.images)
    features.retain_grad()
    losses = net.losses_from(features, batch)
    same_losses(losses, official["losses"])
    sum(losses).backward()
    same_gradients(kind, net, official["trainable"])
    data = golden.arrays(f"09_train_{kind}")
    if kind != "gfsod":  # what lies inside fine-tuning is the same for novel and all classes
        golden.assert_digest(data, "grad_res4", features.grad.numpy(), 3e-3)
        inside(net, batch, data)
    if kind == "base":
        alone = golden.record("09_train_base_image1_without_boxes")["losses"]
        same_losses(net.losses(batch_of(kind, config.model, without=(1,))), alone)


def same_losses(actual: tuple[Tensor, ...], expected: dict[str, float]) -> None:
    """The four losses, 1e-4 relative."""
    assert set(LOSSES) == set(expected)
    for name, value in zip(LOSSES, actual):
        np.testing.assert_allclose(float(value.detach()), expected[name], rtol=1e-4, err_msg=name)


def same_gradients(kind: str, net: Detector, names: list[str]) -> None:
    """Lengths of all gradients, 3e-3 relative, and the entries of the parameter table."""
    data = golden.arrays(f"09_train_{kind}")
    gradients = {
        name: one.grad.numpy() for name, one in net.named_parameters() if one.requires_grad
    }
    assert set(gradients) == set(names)
    for row, name in enumerate(names):
        gradient, length = gradients[name], data["grad.l2"][row]
        mine = np.sqrt((gradient.astype(np.float64) ** 2).sum())
        np.testing.assert_allclose(mine, length, rtol=3e-3, err_msg=name)
        index = data["grad.idx"][row]
        expected = data["grad.val"][row][index >= 0]
        difference = np.abs(golden.table_entries(index, gradient) - expected)
        allowed = 4e-2 * length / np.sqrt(gradient.size) + 2e-2 * np.abs(expected)
        assert (difference <= allowed).all(), name


@torch.no_grad()
def inside(net: Detector, batch: Batch, data: dict[str, np.ndarray]) -> None:
    """Both stages of a training step: maps, proposals, labels, samples, outputs."""
    features = net.backbone(batch.images)
    count, _, height, width = features.shape
    rpn = net.proposal_generator
    logits, deltas = rpn.rpn_head(net.rpn_features(features))
    for name, found in (("rpn_logits", logits), ("rpn_deltas", deltas)):
        maps = found.reshape(count, height, width, -1).permute(0, 3, 1, 2)
        golden.assert_digest(data, name, maps.numpy(), 2e-4)
    golden.assert_digest(data, "res4", features.numpy(), 2e-4)
    anchors = rpn.anchors(height, width)
    proposals = rpn.proposals(logits, deltas, anchors, batch.sizes)
    drawn = net.samples([one.boxes for one in proposals], batch)
    rows = []
    for i, found in enumerate(proposals):
        same_proposals(data, f"proposal_boxes{i}", f"proposal_logits{i}", found)
        labels = rpn.labels(anchors, batch.boxes[i])[1]
        np.testing.assert_array_equal(labels.numpy(), data[f"anchor_labels{i}"])
        own = drawn[i].boxes.numpy()
        order = golden.matching_rows(data[f"roi_boxes{i}"], own, 1e-2)
        classes = drawn[i].classes.numpy()[order]
        np.testing.assert_array_equal(classes, data[f"roi_classes{i}"])
        near = classes < net.roi_heads.classes
        truth = drawn[i].truth.numpy()[order]
        close("roi_gt_boxes", truth[near], data[f"roi_gt_boxes{i}"][near], 1e-3)
        rows.append(drawn[i].boxes[torch.from_numpy(order)])
    maps = net.roi_heads.maps(net.rcnn_features(features), rows)
    golden.assert_digest(data, "res5", maps.numpy(), 2e-4)
    logits, deltas = net.roi_heads.predict(maps.mean((2, 3)))
    golden.assert_digest(data, "class_logits", logits.numpy(), 2e-4)
    golden.assert_digest(data, "box_deltas", deltas.numpy(), 2e-4)


def same_proposals(data: dict, boxes: str, logits: str, found) -> np.ndarray:
    """Boxes within 0.01 pixels, logits within 0.001; returns the rows in the stored order."""
    order = golden.matching_rows(data[boxes], found.boxes.numpy(), 1e-2)
    close(logits, found.logits.numpy()[order], data[logits], 1e-3)
    return order


@torch.inference_mode()
def inference(name: str) -> None:
    """Topic 12: proposals, second stage and detections."""
    kind, threshold = INFERENCE[name]
    config = settings(kind)
    test = config.test
    if threshold is not None:
        test = test.model_copy(update={"score_threshold": threshold})
    net, data = detector(kind, config).eval(), golden.arrays(f"12_inference_{name}")
    originals = golden.arrays("00_inputs")
    for i in range(2):
        picture, prefix = image(i)[None], f"image{i}."
        features = net.backbone(picture)
        (found,) = net.propose(features, [size_of(picture)])
        order = same_proposals(data, f"{prefix}proposal_boxes", f"{prefix}proposal_logits", found)
        logits, deltas = net.second_stage(features, found.boxes[torch.from_numpy(order)])
        golden.assert_digest(data, f"{prefix}class_logits", logits.numpy(), 3e-4)
        golden.assert_digest(data, f"{prefix}box_deltas", deltas.numpy(), 3e-4)
        original = tuple(map(int, originals[f"original_size{i}"]))
        same_detections(data, prefix, net.detect(picture, size_of(picture), original, test))


def same_detections(data: dict[str, np.ndarray], prefix: str, found) -> None:
    """Match as sets within each class: boxes 0.03 pixels, scores 1e-4."""
    boxes, scores, classes = (data[prefix + part] for part in ("boxes", "scores", "classes"))
    mine = {field.name: getattr(found, field.name).numpy() for field in dataclasses.fields(found)}
    for label in np.unique(np.concatenate((classes, mine["classes"]))):
        theirs, ours = classes == label, mine["classes"] == label
        order = golden.matching_rows(boxes[theirs], mine["boxes"][ours], 3e-2)
        close("scores", mine["scores"][ours][order], scores[theirs], 1e-4)


def calibration(kind: str) -> None:
    """Topic 13: prototypes, vectors and scores."""
    folder = golden.root() / "tree"
    tree = folder if folder.exists() else golden.HERE / "tree"
    record, prefix = golden.record("13_pcb")[kind], f"{kind}."
    data = {
        name.removeprefix(prefix): array
        for name, array in golden.arrays("13_pcb").items()
        if name.startswith(prefix)
    }
    encoder = Encoder(golden.state_dict("pcb"))
    sums = dict.fromkeys(map(int, data["labels"]), 0.0)
    counts = dict.fromkeys(sums, 0)
    for support in record["support"]:
        pixels = read(tree / support["file_name"])
        ratio = np.float32(pixels.shape[0] / support["network_size"][0])
        boxes = torch.from_numpy(np.array(support["boxes"], np.float32) * ratio)
        for label, vector in zip(
            support["classes"], encoder.vectors(encoder.feature_map(pixels), boxes).double()
        ):
            sums[label], counts[label] = sums[label] + vector, counts[label] + 1
    made = np.stack([np.asarray(sums[label] / counts[label]) for label in map(int, data["labels"])])
    close("prototypes", made, data["prototypes"], 1e-3 * np.abs(data["prototypes"]).max())
    for number, query in enumerate(record["queries"]):
        pixels = read(tree / query["file_name"])
        parts = {
            name.removeprefix(f"query{number}."): array
            for name, array in data.items()
            if name.startswith(f"query{number}.")
        }
        same_query(encoder, pixels, parts, record, data)


def same_query(encoder: Encoder, pixels: np.ndarray, query: dict, record: dict, data: dict) -> None:
    """Vectors and calibrated scores of one picture's detections."""
    scores, classes = query["scores"], query["classes"]
    chosen = (scores > np.float32(record["lower"])) & (scores <= np.float32(record["upper"]))
    after = scores.copy()
    if chosen.any():
        maps = encoder.feature_map(pixels)
        vectors = encoder.vectors(maps, torch.from_numpy(query["boxes"][chosen]))
        scale = np.abs(query["features"]).max()
        close("features", vectors, query["features"], 1e-3 * scale)
        rows = {int(label): row for row, label in enumerate(data["labels"])}
        own = data["prototypes"][[rows.get(int(label), 0) for label in classes[chosen]]]
        mixed = calibrated(
            torch.from_numpy(scores[chosen]), vectors, torch.from_numpy(own), record["alpha"]
        )
        moves = np.isin(classes[chosen], data["labels"])
        moves &= ~np.isin(classes[chosen], record["exclude_cls"])
        after[np.flatnonzero(chosen)[moves]] = mixed.numpy()[moves]
    close("calibrated", after, query["calibrated"], 1e-3)


def read(path) -> np.ndarray:
    """A picture as (H, W, 3) uint8 BGR."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))[..., ::-1]


TOPICS = {
    "07 backbone": backbone,
    "08 decoupling": decoupling,
    **{f"09 training, {kind}": functools.partial(training, kind) for kind in CONFIGS},
    **{f"12 inference, {name}": functools.partial(inference, name) for name in INFERENCE},
    **{f"13 calibration, {kind}": functools.partial(calibration, kind) for kind in CONFIGS},
}
del TOPICS["13 calibration, base"]


def run() -> bool:
    """Check every topic and log it; whether all agree."""
    good = True
    for name, check in TOPICS.items():
        started = time.monotonic()
        try:
            check()
        except AssertionError as error:
            good = False
            logger.error("%s: differs: %s", name, " ".join(str(error).split()))
        else:
            logger.info(
                "%s: equal within the tolerances (%.1f s)", name, time.monotonic() - started
            )
    return good
