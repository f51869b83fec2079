# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""ONNX encoders: graphs of mean colours, whose vectors one can calculate by hand."""

import re
import sys

import numpy as np
import pytest

from src.defrcn.onnx_session import INSTALL
from src.defrcn.pcb_onnx import OnnxCrops, OnnxMaps
from src.model_utils.errors import InputError
from src.model_utils.onnx_settings import OnnxSettings
from src.model_utils.paths import project_folder
from tests.helpers import tiny_onnx

MEAN, STD = (0.2, 0.4, 0.6), (0.5, 0.25, 0.125)  # R, G, B
COLOURS = {"grey": (102, 102, 102), "red": (51, 102, 204), "blue": (255, 0, 102)}  # B, G, R
# (value / 255 - mean) / std of R, G, B
VECTORS = {
    "grey": [(0.4 - 0.2) / 0.5, 0.0, (0.4 - 0.6) / 0.125],
    "red": [(0.8 - 0.2) / 0.5, 0.0, (0.2 - 0.6) / 0.125],
    "blue": [(0.4 - 0.2) / 0.5, (0.0 - 0.4) / 0.25, (1.0 - 0.6) / 0.125],
}


def picture(height=64, width=96):
    """Grey, with a red and a blue rectangle."""
    pixels = np.full((height, width, 3), COLOURS["grey"], np.uint8)
    pixels[8:48, 8:40] = COLOURS["red"]
    pixels[16:64, 48:88] = COLOURS["blue"]
    return pixels


def boxes(*corners):
    return np.array(corners, np.float32).reshape(-1, 4)


INSIDE = boxes([16, 16, 32, 40], [56, 24, 80, 56])


@pytest.fixture
def make(tmp_path):
    """An encoder of a model's bytes and settings."""

    def run(content, kind=OnnxMaps, **settings):
        features = "map" if kind is OnnxMaps else "crop"
        settings = {"model": "m.onnx", "features": features, "mean": MEAN, "std": STD, **settings}
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        given = OnnxSettings.model_validate(settings)
        return kind(path, given, identity="tiny", source="e.yaml")

    return run


def expected(*names):
    return np.array([VECTORS[name] for name in names], np.float32)


MAPS = {
    "map": (tiny_onnx.map_model, {"output": "map"}),
    "patch": (tiny_onnx.map_model, {"output": "map", "patch": 8}),
    "tokens": (tiny_onnx.token_model, {"patch": 8, "prefix_tokens": 1}),
}


@pytest.mark.parametrize("kind", MAPS)
def test_boxes_are_pooled_from_a_map(make, kind):
    content, settings = MAPS[kind]
    encoder = make(content(), **settings)
    assert encoder.stride == 8 and encoder.identity == "tiny"
    assert encoder.feature_map(picture()).shape == (8, 12, 3)
    found = encoder.box_vectors(picture(), INSIDE)
    np.testing.assert_allclose(found, expected("red", "blue"), atol=1e-5)
    # Half red, half grey: [0, 16) x [16, 40), two cells wide.
    found = encoder.box_vectors(picture(), boxes([0, 16, 16, 40]))
    np.testing.assert_allclose(found[0], expected("grey", "red").mean(0), atol=1e-5)
    assert encoder.box_vectors(picture(), boxes()).shape == (0, 3)


def test_order_of_channels(make):
    """Blue first: the mean of the first channel is taken off the blue one."""
    encoder = make(tiny_onnx.map_model(), output="map", channels="bgr")
    (found,) = encoder.box_vectors(picture(), INSIDE[1:])
    by_hand = [(1.0 - 0.2) / 0.5, (0.0 - 0.4) / 0.25, (0.4 - 0.6) / 0.125]
    np.testing.assert_allclose(found, by_hand, atol=1e-5)


@pytest.mark.parametrize("size", [(61, 90), (64, 96), (57, 89)])
def test_a_picture_is_filled_up_to_whole_cells_with_the_mean_colour(make, size):
    encoder = make(tiny_onnx.map_model(), output="map")
    found = encoder.feature_map(picture(*size))
    assert found.shape == (8, 12, 3) == (*encoder.map_shape(*size), 3)
    assert encoder.scale(*size) == (1.0, 1.0)
    share = (size[0] - 56) / 8, (size[1] - 88) / 8
    np.testing.assert_allclose(found[7, 11], expected("grey")[0] * share[0] * share[1], atol=1e-5)
    np.testing.assert_allclose(found[2, 2], expected("red")[0], atol=1e-5)


def test_a_fixed_size_keeps_the_ratio_of_the_sides(make):
    """64 x 96 becomes 32 x 48 at the top left of 40 x 48: boxes shrink with it."""
    encoder = make(tiny_onnx.map_model((40, 48)), output="map", size=(40, 48))
    assert encoder.scale(64, 96) == (0.5, 0.5) and encoder.map_shape(64, 96) == (5, 6)
    found = encoder.feature_map(picture())
    np.testing.assert_array_equal(found[4], 0)  # the mean colour
    np.testing.assert_allclose(found[0, 0, 1], 0, atol=1e-5)  # green, everywhere but in the blue
    vectors = encoder.box_vectors(picture(), boxes([16, 16, 32, 32], [64, 32, 80, 48]))
    # By the outlines' bicubic overshoot the cells beside them differ a little.
    np.testing.assert_allclose(vectors, expected("red", "blue"), atol=0.05)
    # A larger one grows, and 33 x 95 keeps its own factors: 17 x 48.
    small = encoder.scale(33, 95)
    np.testing.assert_allclose(small, (17 / 33, 48 / 95))


def test_a_picture_above_the_limit_is_made_smaller(make):
    encoder = make(tiny_onnx.map_model(), output="map", max_pixels=64 * 96 // 4)
    assert encoder.feature_map(picture()).shape == (4, 6, 3)
    assert encoder.scale(64, 96) == (0.5, 0.5)
    found = encoder.box_vectors(picture(), boxes([16, 16, 32, 32]))
    np.testing.assert_allclose(found, expected("red"), atol=0.05)


@pytest.mark.parametrize("batch", [1, "batch"])
def test_each_box_is_looked_at_by_itself(make, batch):
    encoder = make(tiny_onnx.crop_model(batch=batch), OnnxCrops, size=(16, 16))
    many = np.concatenate([INSIDE] * 9)
    found = encoder.box_vectors(picture(), many)
    np.testing.assert_allclose(found, expected(*["red", "blue"] * 9), atol=1e-5)
    assert encoder.box_vectors(picture(), boxes()).shape == (0, 3)
    # Half red, half grey; a border of one pixel is sharpened by the resizing.
    (half,) = encoder.box_vectors(picture(), boxes([-8, 16, 16, 40]))
    np.testing.assert_allclose(half, expected("grey", "red").mean(0), atol=0.05)
    # Boxes without extent, and beyond the picture, have a pixel.
    points = boxes([20, 20, 20, 20], [95.9, 10, 120, 10], [-30, -30, -20, -20])
    found = encoder.box_vectors(picture(), points)
    np.testing.assert_allclose(found, expected("red", "grey", "grey"), atol=1e-5)


def test_context_makes_crops_larger(make):
    """The red rectangle is 32 x 40; twice as large it is a quarter of the crop, or cut."""
    pixels = np.full((200, 200, 3), COLOURS["grey"], np.uint8)
    pixels[80:120, 84:116] = COLOURS["red"]
    encoder = make(tiny_onnx.crop_model((64, 64)), OnnxCrops, size=(64, 64), context=2.0)
    (found,) = encoder.box_vectors(pixels, boxes([84, 80, 116, 120]))
    by_hand = expected("red")[0] / 4 + expected("grey")[0] * 3 / 4
    np.testing.assert_allclose(found, by_hand, atol=0.02)
    (found,) = encoder.box_vectors(pixels, boxes([96, 96, 104, 104]))
    np.testing.assert_allclose(found, expected("red")[0], atol=1e-4)


TWO = tiny_onnx.model(
    [tiny_onnx.node("ReduceMean", "image", "vector", axes=[2, 3], keepdims=0)],
    [tiny_onnx.value("image", 1, 3, 8, 8), tiny_onnx.value("ids", 1, 77, kind=tiny_onnx.INT64)],
    [tiny_onnx.value("vector", 1, 3)],
)


def reduced(**attributes):
    """Sums instead of features: a number for each of two axes that are gone, or one number."""
    return tiny_onnx.model(
        [tiny_onnx.node("ReduceMean", "image", "mean", keepdims=0, **attributes)],
        [tiny_onnx.value("image", 1, 3, 16, 16)],
        [tiny_onnx.value("mean", *[1] * ("axes" in attributes))],
    )


def spoiled(number, cells=None):
    """The map of mean colours times a number; with `cells`, crops' vectors."""
    whole = [tiny_onnx.node("Conv", "image kernel", "map", strides=[8, 8])]
    crops = [tiny_onnx.node("ReduceMean", "image", "map", axes=[2, 3], keepdims=0)]
    return tiny_onnx.model(
        [*(crops if cells else whole), tiny_onnx.node("Mul", "map factor", "out")],
        [tiny_onnx.value("image", 1, 3, *(cells or ("height", "width")))],
        [tiny_onnx.value("out", 1, 3, *(() if cells else ("h", "w")))],
        [tiny_onnx.cell_means(), tiny_onnx.tensor("factor", np.float32(number))],
    )


@pytest.mark.parametrize(
    ("content", "kind", "settings", "words"),
    [
        (b"abc", OnnxMaps, {}, r"cannot load .*m\.onnx .*; export it again"),
        (b"", OnnxMaps, {}, r"cannot load .*m\.onnx"),
        (TWO, OnnxCrops, {}, r"wants image tensor\(float\) \[1, 3, 8, 8\], ids .*encoder alone"),
        (
            tiny_onnx.crop_model(batch=4),
            OnnxCrops,
            {"size": (16, 16)},
            "takes 4 pictures at once only.*1 or dynamic",
        ),
        (
            tiny_onnx.map_model(),
            OnnxMaps,
            {"output": "feats"},
            r"output feats is not among the outputs of \S*m.onnx \(map, total\); name one",
        ),
        (tiny_onnx.map_model(), OnnxMaps, {}, r"output is empty, but there are several.*\(map, to"),
        (
            tiny_onnx.crop_model(),
            OnnxCrops,
            {"size": (16, 24)},
            r"size is \[16, 24\], but \S*m.onnx takes \[16, 16\] \(height, width\) only",
        ),
        (tiny_onnx.crop_model(), OnnxCrops, {}, r"size is null, but \S*m.onnx takes \[16, 16\]"),
        (
            tiny_onnx.crop_model(("h", "w")),
            OnnxCrops,
            {},
            r"size is null, but features crop brings every box to one size",
        ),
        (
            tiny_onnx.map_model(),
            OnnxMaps,
            {"output": "map", "patch": 16},
            r"output map is \[1, 3, 28, 28\] for an input of 224 x 224, which is no map .*"
            r"patches of 16 pixels; correct output, patch or prefix_tokens",
        ),
        (
            tiny_onnx.token_model(),
            OnnxMaps,
            {"patch": 8},
            r"output tokens is \[1, 785, 3\] .* nor 0 prefix_tokens and those of patches of 8",
        ),
        (tiny_onnx.token_model(), OnnxMaps, {"prefix_tokens": 1}, r"patches of None pixels"),
        (
            tiny_onnx.map_model(),
            OnnxMaps,
            {"output": "total"},
            r"is \[1, 1, 1, 1\] for an input of 224 x 224",
        ),
        (
            tiny_onnx.map_model(),
            OnnxMaps,
            {"output": "map", "size": (4, 4)},
            r"fails on a picture of 4 x 4 pixels .*; name the size or patch",
        ),
        (
            tiny_onnx.map_model(batch="batch"),
            OnnxCrops,
            {"output": "map", "size": (16, 16)},
            r"output map is \[1, 3, 2, 2\], no vector \(N, D\) .*features: map",
        ),
        (
            reduced(),
            OnnxMaps,
            {"size": (16, 16)},
            r"output mean of \S*m.onnx is float32 \[\] for 1 pictures, no features",
        ),
        (
            reduced(axes=[1, 2, 3]),
            OnnxCrops,
            {"size": (16, 16)},
            r"output mean of \S*m.onnx is float32 \[1\] for 1 pictures, no features; name another",
        ),
        (spoiled(np.nan), OnnxMaps, {}, r"output out of \S*m.onnx holds NaN or infinity; name an"),
        (spoiled(np.nan, (16, 16)), OnnxCrops, {"size": (16, 16)}, "holds NaN or infinity; name"),
    ],
    ids=lambda value: "" if isinstance(value, (bytes, dict, type)) else value[:30],
)
def test_what_does_not_fit_is_one_sentence(make, content, kind, settings, words):
    with pytest.raises(InputError, match=rf"^e\.yaml: .*{words}") as caught:
        make(content, kind, **settings)
    assert "\n" not in str(caught.value)


def test_a_picture_whose_features_are_not_finite_is_refused(make):
    """The encoder is tried on the mean colour, whose features are 0 here."""
    for encoder in (
        make(spoiled(3e38)),
        make(spoiled(3e38, (16, 16)), OnnxCrops, size=(16, 16)),
    ):
        with pytest.raises(InputError, match=r"^e\.yaml: output out of .* holds NaN or infinity"):
            encoder.box_vectors(picture(), INSIDE)


def test_onnxruntime_is_only_needed_here(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=rf"e.yaml needs onnxruntime.*; {INSTALL}$"):
        make(tiny_onnx.map_model(), output="map")
    for name in ("requirements-dev.txt", "requirements-onnxruntime.txt"):
        pinned = (project_folder() / name).read_text(encoding="utf-8")
        assert re.search(rf"^{INSTALL.split()[-1]}$", pinned, re.MULTILINE)
