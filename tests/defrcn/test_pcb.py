# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block: pooling, prototypes, which scores change and to what."""

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from src.calibration.pictures import read_picture, reader, support_boxes
from src.data.transforms import decode
from src.defrcn.pcb import (
    Calibrator,
    Prototypes,
    Support,
    build_prototypes,
    cosines,
)
from src.defrcn.pcb_pooling import MapEncoder, axis_weights, pool_boxes
from src.model_utils.errors import InputError
from tests.golden import golden

MAX_PIXELS = 10**6


class MeanColour(MapEncoder):
    """An encoder one can calculate by hand: each cell is its own mean colour."""

    stride = 8
    identity = "mean colour"

    def __init__(self):
        self.pictures = 0

    def feature_map(self, pixels):
        self.pictures += 1
        height, width = (side // 8 for side in pixels.shape[:2])
        cells = pixels[: 8 * height, : 8 * width].reshape(height, 8, width, 8, 3)
        return cells.mean((1, 3)).astype(np.float32)

    def project(self, pooled):
        return pooled - np.float32(100)


def picture(path, *blocks):
    """A grey (100) picture, 64 x 96, with coloured rectangles (x1, y1, x2, y2, B, G, R)."""
    pixels = np.full((64, 96, 3), 100, np.uint8)
    for x1, y1, x2, y2, *colour in blocks:
        pixels[y1:y2, x1:x2] = colour
    assert cv2.imwrite(str(path), pixels)
    return str(path)


def calibrator(encoder, **changes):
    vectors = np.eye(3, dtype=np.float32)
    settings = {"excluded": [], "alpha": 0.5, "lower": 0.05, "upper": 0.9}
    settings.update(read=reader(MAX_PIXELS), **changes)
    counts = settings.pop("counts", np.ones(3, np.int64))
    return Calibrator(encoder, Prototypes(vectors, counts), **settings)


@pytest.mark.golden
def test_pooling_is_the_official_one():
    data = golden.arrays("04_roi_align")
    features = np.ascontiguousarray(data["pcb.features"][0].transpose(1, 2, 0))
    boxes, expected = data["pcb.boxes"][0], data["pcb.pooled"][:, :, 0, 0]
    np.testing.assert_allclose(pool_boxes(features, boxes, 32), expected, rtol=0, atol=1e-5)
    in_chunks = pool_boxes(features, boxes, 32, max_numbers=1)
    np.testing.assert_allclose(in_chunks, expected, rtol=0, atol=1e-5)
    assert pool_boxes(features, boxes[:0], 32).shape == (0, features.shape[2])


def test_axis_weights_by_hand():
    start, end = np.array([0.0, 1.5, -3.0], np.float32), np.array([2.0, 1.5, -2.0], np.float32)
    # Two samples at 0.5 and 1.5; a box without extent; a box beyond the map.
    expected = [[0.25, 0.5, 0.25, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(axis_weights(start, end, 4), expected, atol=1e-7)
    # Samples between -1 and 0 and in the last cell's second half count for the cells at the edge.
    start, end = np.array([-0.9, 3.1], np.float32), np.array([-0.1, 3.9], np.float32)
    np.testing.assert_allclose(axis_weights(start, end, 4), [[1, 0, 0, 0], [0, 0, 0, 1]])


def test_memory_of_pooling_is_bounded(monkeypatch):
    """However many boxes there are, no array of theirs exceeds the limit."""
    seen = []

    def watched(start, end, length):
        seen.append(len(start) * length)
        return axis_weights(start, end, length)

    monkeypatch.setattr("src.defrcn.pcb_pooling.axis_weights", watched)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 200, (500, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + 50], 1)
    features = rng.normal(size=(30, 30, 4)).astype(np.float32)
    pooled = pool_boxes(features, boxes, 8, max_numbers=9000)
    assert max(seen) == 10 * 30 and len(seen) == 100
    np.testing.assert_allclose(pooled, pool_boxes(features, boxes, 8), rtol=0, atol=1e-6)


def test_prototypes_are_means_over_pictures(tmp_path):
    red = picture(tmp_path / "a.png", (8, 8, 40, 40, 100, 100, 200))
    both = picture(
        tmp_path / "b.png", (8, 8, 40, 40, 100, 100, 140), (56, 8, 88, 40, 220, 100, 100)
    )
    inner, other = [16, 16, 32, 32], [64, 16, 80, 32]
    encoder = MeanColour()
    supports = [
        Support(red, 64, 96, np.array([inner], np.float32), np.array([2])),
        Support(both, 64, 96, np.array([inner, other], np.float32), np.array([2, 0])),
    ]
    made = build_prototypes(encoder, supports, 3, read=reader(MAX_PIXELS))
    np.testing.assert_allclose(made.vectors, [[120, 0, 0], [0, 0, 0], [0, 0, 70]], atol=1e-4)
    assert made.counts.tolist() == [1, 0, 2]
    assert encoder.pictures == 2


def test_prototypes_refuse_a_picture_of_another_size(tmp_path):
    name = picture(tmp_path / "a.png")
    support = Support(name, 64, 80, np.zeros((1, 4), np.float32), np.array([0]))
    with pytest.raises(InputError, match=r"a.png: the picture is 96 x 64 .* says 80 x 64"):
        build_prototypes(MeanColour(), [support], 1, read=reader(MAX_PIXELS))
    with pytest.raises(InputError, match="no boxes"):
        build_prototypes(MeanColour(), [], 1, read=reader(MAX_PIXELS))


def test_scores_by_hand(tmp_path):
    """Blue is class 0's prototype: cosine 1 with blue, 0 with red, 0 with grey."""
    name = picture(
        tmp_path / "a.png", (8, 8, 40, 40, 200, 100, 100), (56, 8, 88, 40, 100, 100, 200)
    )
    blue, red, grey = [16, 16, 32, 32], [64, 16, 80, 32], [0, 48, 8, 56]
    boxes = np.array([red, blue, blue, red, grey, blue, blue], np.float32)
    scores = np.array([0.95, 0.9, 0.8, 0.6, 0.4, 0.05, 0.01], np.float32)
    classes = np.array([0, 0, 1, 0, 0, 0, 0])
    before = scores.copy()
    result = calibrator(MeanColour())(name, boxes, scores, classes)
    # Above `upper`; at `upper`, right; of another class; wrong; no direction; at `lower`; below.
    np.testing.assert_allclose(result, [0.95, 0.95, 0.4, 0.3, 0.2, 0.05, 0.01], atol=1e-6)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(scores, before)
    pixels = cv2.imread(name)
    in_memory = calibrator(MeanColour()).on_pixels(pixels, boxes, scores, classes)
    np.testing.assert_array_equal(in_memory, result)


def test_alpha_weighs_the_score(tmp_path):
    name = picture(tmp_path / "a.png", (8, 8, 40, 40, 100, 200, 100))
    box = np.array([[16, 16, 32, 32]], np.float32)
    result = calibrator(MeanColour(), alpha=0.75)(name, box, np.array([0.4]), np.array([1]))
    np.testing.assert_allclose(result, [0.75 * 0.4 + 0.25], atol=1e-6)


def test_an_unsorted_list_is_calibrated_all_the_same(tmp_path):
    """The order of detections neither matters nor changes."""
    name = picture(tmp_path / "a.png", (8, 8, 40, 40, 200, 100, 100))
    boxes = np.array([[16, 16, 32, 32]] * 3, np.float32)
    scores, order = np.array([0.2, 0.95, 0.6], np.float32), [1, 2, 0]
    result = calibrator(MeanColour())(name, boxes, scores, np.zeros(3, int))
    again = calibrator(MeanColour())(name, boxes, scores[order], np.zeros(3, int))
    np.testing.assert_allclose(result, [0.6, 0.95, 0.8], atol=1e-6)
    np.testing.assert_array_equal(again, result[order])


def test_excluded_classes_and_classes_without_prototype_stay(tmp_path):
    name = picture(tmp_path / "a.png", (8, 8, 40, 40, 200, 100, 100))
    boxes = np.array([[16, 16, 32, 32]] * 3, np.float32)
    scores, classes = np.array([0.8, 0.6, 0.4], np.float32), np.array([0, 1, 2])
    counts = np.array([1, 1, 0])
    result = calibrator(MeanColour(), excluded=[0], counts=counts)(name, boxes, scores, classes)
    np.testing.assert_allclose(result, [0.8, 0.3, 0.4], atol=1e-6)


def test_the_picture_is_not_touched_without_need():
    """No detection, none in the range, base classes only: the file need not exist."""
    encoder = MeanColour()
    calibrate = calibrator(encoder, excluded=[0, 1])
    boxes = np.zeros((2, 4), np.float32)
    empty = calibrate("nowhere.png", boxes[:0], np.zeros(0, np.float32), np.zeros(0, int))
    assert empty.shape == (0,) and empty.dtype == np.float32
    scores = np.array([0.95, 0.5], np.float32)
    kept = calibrate("nowhere.png", boxes, scores, np.array([2, 0]))
    np.testing.assert_array_equal(kept, scores)
    assert encoder.pictures == 0
    with pytest.raises(InputError, match=r"nowhere.png cannot be read .*test.pcb.enable"):
        calibrate("nowhere.png", boxes, scores, np.array([2, 2]))


def test_a_cache_stands_in_for_the_encoder(tmp_path):
    name = picture(tmp_path / "a.png")
    asked = []

    def vectors(given, boxes):
        asked.append(given)
        return np.full((len(boxes), 3), (0, 1, 0), np.float32)

    encoder = MeanColour()
    calibrate = calibrator(encoder, vectors=vectors)
    box = np.array([[16, 16, 32, 32]], np.float32)
    assert calibrate(name, box, np.array([0.2]), np.array([1]))[0] == pytest.approx(0.6)
    assert encoder.pictures == 0 and asked[0].pixels.shape == (64, 96, 3)


def test_cosines():
    first = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [-2.0, 0.0]], np.float32)
    second = np.array([[4.0, 3.0], [0.0, 5.0], [1.0, 1.0], [7.0, 0.0]], np.float32)
    np.testing.assert_allclose(cosines(first, second), [0.96, 0, 0, -1], atol=1e-7)


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("place", ["detection", "prototype"])
def test_an_encoder_without_finite_vectors_is_refused(tmp_path, number, place):
    """A score of NaN would be below any threshold: the detection would be gone."""
    row = np.array([[number, 0, 0]], np.float32)
    one = np.ones((1, 3), np.float32)
    found = row if place == "detection" else one
    made = calibrator(MeanColour(), vectors=lambda picture, boxes: found)
    if place == "prototype":
        made.prototypes.vectors[1] = row
    name = picture(tmp_path / "a.png")
    box, scores = np.zeros((1, 4), np.float32), np.array([0.5], np.float32)
    with pytest.raises(InputError, match=r"test\.pcb\.encoder or pcb_modelpath.*gives NaN"):
        made(name, box, scores, np.array([1]))
    # a score that does not change asks nothing of the encoder
    assert made(name, box, scores * 0, np.array([1])).tolist() == [0]


def test_support_boxes_use_the_heights_for_both_axes():
    # 100 x 150 becomes 33 x 50 (rounded: 33.3): x grows by 50 / 150 and shrinks by 100 / 33.
    boxes = np.array([[15.0, 20.0, 90.0, 80.0], [150.0, 0.0, 170.0, 50.0]])
    moved, kept = support_boxes(boxes, 100, 150, short_edge=40, max_size=50)
    np.testing.assert_allclose(moved[0], [15 * 100 / 99, 20, 90 * 100 / 99, 80], rtol=1e-6)
    assert kept.tolist() == [True, False]
    assert moved.dtype == np.float32


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp", "xmp.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_for_the_detector(tmp_path, kind, orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    path, exif, others = tmp_path / f"ä.{kind}", Image.Exif(), {}
    if kind == "xmp.png":
        others["pnginfo"] = PngImagePlugin.PngInfo()
        others["pnginfo"].add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{orientation}"/>')
    else:
        exif[0x0112] = orientation
        others["exif"] = exif
    if kind == "webp":
        others["lossless"] = True
    Image.fromarray(pixels).save(path, **others)
    found = read_picture(str(path), 960).pixels
    assert found.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    if kind in ("jpg", "png"):  # what OpenCV knows by itself, and the official code so
        np.testing.assert_array_equal(found, cv2.imread(str(path)))
    wanted = np.asarray(decode(path.read_bytes(), "a"))
    np.testing.assert_array_equal(found[:, :, ::-1], wanted)


def test_pictures_are_read_as_opencv_does(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    colour, grey = tmp_path / "a.jpg", tmp_path / "grey.png"
    Image.fromarray(pixels).save(colour)
    Image.fromarray(pixels[:, :, 0]).save(grey)
    for path in (colour, grey):
        np.testing.assert_array_equal(read_picture(str(path), 960).pixels, cv2.imread(str(path)))
    assert read_picture(str(colour), 960).sha256 != read_picture(str(grey), 960).sha256


def test_bad_pictures_are_named(tmp_path):
    path = tmp_path / "a.png"
    picture(path)
    with pytest.raises(InputError, match=r"a.png: 96 x 64 pixels .* 6143 .*max_image_pixels"):
        read_picture(str(path), 6143)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"a.png: .*(readable|decode)"):
        read_picture(str(path), MAX_PIXELS)
    path.write_text("text")
    with pytest.raises(InputError, match=r"a.png: not a readable picture"):
        read_picture(str(path), MAX_PIXELS)


def test_vectors_of_boxes_go_through_the_last_layer():
    features = np.full((4, 4, 3), 7, np.float32)
    boxes = np.array([[0, 0, 16, 16]], np.float32)
    vectors = MeanColour().pooled_vectors(features, (32, 32), boxes)
    np.testing.assert_allclose(vectors, [[-93, -93, -93]], rtol=1e-6)
