# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 06: resizing, normalising, padding, flipping of pictures and boxes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from src.data.batching import Preprocessing, collate
from src.data.mindrecord_io import Row
from src.data.transforms import (
    flip_boxes,
    normalise_into,
    resize,
    resize_boxes,
    resized_shape,
    to_bgr,
)
from tests.golden import golden
from tests.helpers.data_helpers import encoded

pytestmark = pytest.mark.golden
MEAN, STD = (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def data():
    return golden.arrays("06_preprocess")


def test_resized_shape_equals_the_table(data):
    table = data["resize_table"]
    assert len(table) > 400
    computed = [resized_shape(*(int(value) for value in row[:4])) for row in table]
    np.testing.assert_array_equal(computed, table[:, 4:])


@pytest.mark.parametrize("name", ["up", "down", "mixed"])
def test_resized_pixels(data, name):
    expected = data[f"pixels_{name}"]
    image = resize(Image.fromarray(data["pixels"]), *expected.shape[:2])
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_mirrored_pixels(data):
    rgb = np.ascontiguousarray(data["pixels"][:, :, ::-1])
    mirrored = to_bgr(Image.fromarray(rgb), flip=True)
    np.testing.assert_array_equal(mirrored, data["pixels_flipped"])


def test_normalised(data):
    target = np.empty((3, 37, 53), dtype=np.float32)
    normalise_into(target, data["pixels"], MEAN, STD)
    np.testing.assert_allclose(target, data["normalised"], atol=1e-5, rtol=0)


def test_padded_pair(data):
    """The two test pictures through `collate`, unresized, as one batch."""
    settings = Preprocessing(10_000, MEAN, STD, (), 1, 10**8)
    prepared = []
    for index in range(2):
        bgr = golden.arrays("00_inputs")[f"image{index}"]
        height, width = bgr.shape[:2]
        content = encoded(Image.fromarray(np.ascontiguousarray(bgr[:, :, ::-1])))
        empty = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
        prepared.append((Row(content, *empty, height, width, index, ""), (height, width), False))
    batch = collate(prepared, settings)
    np.testing.assert_array_equal(batch.image_sizes, data["padded_image_sizes"])
    np.testing.assert_array_equal(batch.padded_size, batch.images.shape[2:])
    golden.assert_digest(data, "padded", batch.images, 1e-5)


def test_boxes(data):
    boxes = data["boxes"]
    np.testing.assert_allclose(flip_boxes(boxes, 53), data["boxes_flipped"], atol=1e-9, rtol=0)
    resized = resize_boxes(boxes, (37, 53), (64, 92))
    np.testing.assert_allclose(resized, data["boxes_resized"], atol=1e-9, rtol=0)
