# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 13: prototypical calibration, prototypes, vectors and scores."""

import cv2
import numpy as np
import pytest

from src.calibration.pictures import reader, support_boxes
from src.data.transforms import to_xyxy
from src.defrcn.built_datacategory import COCO_CATEGORIES, COCO_NOVEL_CLASSES
from src.defrcn.pcb import (
    Calibrator,
    Prototypes,
    Support,
    build_prototypes,
)
from src.defrcn.pcb_encoder import ResNetEncoder
from tests.golden import golden

pytestmark = pytest.mark.golden
VECTORS = 1e-3  # relative to the largest magnitude
SCORES = 1e-3
MAX_PIXELS = 10**8
KINDS = ("fsod", "gfsod")
TREE = golden.HERE / "tree" if not (golden.root() / "tree").exists() else golden.root() / "tree"


@pytest.fixture(scope="module", params=["plain", "kernels"])
def encoder(request):
    library = request.getfixturevalue("kernels") if request.param == "kernels" else ""
    settings = {"identity": "golden", "source": "golden", "max_pixels": MAX_PIXELS}
    return ResNetEncoder(golden.state_dict("pcb"), **settings, library=library)


@pytest.fixture(params=KINDS)
def case(request):
    data = golden.arrays("13_pcb")
    prefix = f"{request.param}."
    found = {name[len(prefix) :]: data[name] for name in data if name.startswith(prefix)}
    return {**found, **golden.record("13_pcb")[request.param]}


def supports(case, only=None):
    """The support set as the official loader hands it out, back in the image frame."""
    for one in case["support"]:
        name = str(TREE / one["file_name"])
        height, width = cv2.imread(name).shape[:2]
        ratio = np.float32(height / one["network_size"][0])
        boxes = np.array(one["boxes"], np.float32) * ratio
        classes = np.array(one["classes"])
        kept = np.isin(classes, only) if only is not None else np.full(len(classes), True)
        if kept.any():
            yield Support(name, height, width, boxes[kept], classes[kept])


def prototypes_of(case):
    """The stored prototypes, by class."""
    vectors = np.zeros((int(case["labels"].max()) + 1, case["prototypes"].shape[1]), np.float32)
    vectors[case["labels"]] = case["prototypes"]
    return Prototypes(vectors, np.isin(np.arange(len(vectors)), case["labels"]).astype(np.int64))


def calibrator(case, encoder, prototypes):
    return Calibrator(
        encoder,
        prototypes,
        excluded=case["exclude_cls"],
        alpha=case["alpha"],
        lower=case["lower"],
        upper=case["upper"],
        read=reader(MAX_PIXELS),
    )


def test_prototypes(encoder, case):
    # Of gfsod the first dozen classes and the last: each of them is a matter of its own boxes.
    labels = case["labels"] if len(case["labels"]) <= 20 else case["labels"][[*range(12), -1]]
    made = build_prototypes(
        encoder, supports(case, labels), int(labels.max()) + 1, read=reader(MAX_PIXELS)
    )
    expected = case["prototypes"][np.isin(case["labels"], labels)]
    assert (made.counts[labels] == 2).all()
    scale = np.abs(case["prototypes"]).max()
    np.testing.assert_allclose(made.vectors[labels], expected, rtol=0, atol=VECTORS * scale)


@pytest.mark.parametrize("query", range(4))
def test_vectors_and_scores(encoder, case, query):
    boxes, scores, classes, features, calibrated = (
        case[f"query{query}.{part}"]
        for part in ("boxes", "scores", "classes", "features", "calibrated")
    )
    name = str(TREE / case["queries"][query]["file_name"])
    chosen = (scores > np.float32(case["lower"])) & (scores <= np.float32(case["upper"]))
    assert chosen.sum() == len(features)
    if len(features):
        found = encoder.box_vectors(cv2.imread(name), boxes[chosen])
        scale = np.abs(features).max()
        np.testing.assert_allclose(found, features, rtol=0, atol=VECTORS * scale)
    calibrate = calibrator(case, encoder, prototypes_of(case))
    before = scores.copy()
    actual = calibrate(name, boxes, scores, classes)
    np.testing.assert_allclose(actual, calibrated, rtol=0, atol=SCORES)
    np.testing.assert_array_equal(scores, before)
    left = ~chosen | np.isin(classes, case["exclude_cls"])
    np.testing.assert_array_equal(actual[left], scores[left])


def test_support_boxes_return_by_the_ratio_of_heights(case):
    """From annotations to boxes as the official block sees them."""
    listed = golden.record("14_data")["coco"][case["support_set"]]
    records = {one["file_name"]: one for one in listed["records"]}
    for one in case["support"]:
        record = next(r for name, r in records.items() if one["file_name"].endswith(name))
        boxes = [to_xyxy(item["bbox"], item["bbox_mode"]) for item in record["annotations"]]
        moved, kept = support_boxes(
            np.array(boxes), record["height"], record["width"], short_edge=800, max_size=1333
        )
        ratio = record["height"] / one["network_size"][0]
        assert kept.all()
        np.testing.assert_allclose(moved, np.array(one["boxes"]) * ratio, rtol=0, atol=1e-4)


def test_excluded_classes_are_the_base_classes():
    names = [name for _, name in COCO_CATEGORIES]
    excluded = [i for i, name in enumerate(names) if name not in COCO_NOVEL_CLASSES]
    assert excluded == golden.record("13_pcb")["gfsod"]["exclude_cls"]
    assert golden.record("13_pcb")["fsod"]["exclude_cls"] == []
