# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Detections of one image after the other, with outputs that are given."""

import logging

import numpy as np
import pytest

from src.data.batching import Batch
from src.engine.inference import detect, rows_of

THRESHOLDS = {"score_threshold": 0.25, "nms_threshold": 0.5, "max_detections": 9}


def image(number):
    """Twice as high and four times as wide as in the model's frame."""
    return Batch(
        images=np.zeros((1, 3, 10, 10), np.float32),
        image_sizes=np.array([[10.0, 10.0]], np.float32),
        padded_size=np.array([10, 10], np.int32),
        gt_boxes=np.zeros((1, 1, 4), np.float32),
        gt_classes=np.zeros((1, 1), np.int32),
        gt_valid=np.zeros((1, 1), bool),
        image_ids=[number],
        file_names=[f"{number}.png"],
        original_sizes=np.array([[20, 40]], np.int32),
    )


def outputs_of(batch):
    """Image N has N objects of class 1, side by side; and one of class 0 that is too weak."""
    count = batch.image_ids[0]
    lefts = np.arange(count + 1, dtype=np.float32) * 2
    boxes = np.stack([lefts, lefts * 0, lefts + 1, lefts * 0 + 5], axis=1)
    scores = np.tile(np.array([0.125, 0.5, 0.375], np.float32), (count + 1, 1))
    scores[-1] = (0.25, 0.0, 0.75)
    return np.repeat(boxes[:, None], 2, axis=1), scores, np.ones(count + 1, bool)


def test_boxes_are_those_of_the_image_frame():
    (found,) = detect(outputs_of, [image(2)], 1, **THRESHOLDS)
    assert found.image.image_ids == [2]
    assert found.boxes.tolist() == [[0, 0, 4, 10], [8, 0, 12, 10]]
    assert found.scores.tolist() == [0.5, 0.5] and found.classes.tolist() == [1, 1]


def test_an_image_without_detections_is_there_too():
    (found,) = detect(outputs_of, [image(0)], 1, **THRESHOLDS)
    assert found.boxes.shape == (0, 4) and len(found.scores) == len(found.classes) == 0
    assert rows_of([found], (11, 12)) == []


def test_an_image_is_looked_at_when_it_is_asked_for(caplog):
    taken = []

    def images():
        for number in (1, 3, 2):
            taken.append(number)
            yield image(number)

    with caplog.at_level(logging.INFO):
        found = detect(outputs_of, images(), 3, **THRESHOLDS)
        assert taken == []
        assert len(next(found).scores) == 1 and taken == [1]
        assert [len(one.scores) for one in found] == [3, 2]
    assert caplog.messages[-1].startswith("3 images in ")
    assert caplog.messages[-1].endswith(" images/s after the first, 6 detections")


def test_an_end_before_the_end_is_no_report(caplog):
    with caplog.at_level(logging.INFO):
        found = detect(outputs_of, map(image, (1, 2)), 2, **THRESHOLDS)
        next(found)
        found.close()
    assert not caplog.messages


def test_rows_keep_the_order_and_take_calibrated_scores():
    def calibrate(file_name, boxes, scores, classes):
        assert file_name == "2.png" and len(boxes) == len(classes) == 2
        return np.array([0.25, 0.75], np.float32)

    rows = rows_of(detect(outputs_of, [image(2)], 1, **THRESHOLDS), (11, 12), calibrate)
    assert [row["score"] for row in rows] == [0.25, 0.75]
    assert [row["bbox"] for row in rows] == [[0, 0, 4, 10], [8, 0, 4, 10]]
    assert {(row["image_id"], row["category_id"]) for row in rows} == {(2, 12)}


def test_an_error_of_an_image_is_not_swallowed():
    def broken(batch):
        raise ValueError(f"image {batch.image_ids[0]}")

    with pytest.raises(ValueError, match="image 1"):
        next(detect(broken, [image(1)], 1, **THRESHOLDS))
