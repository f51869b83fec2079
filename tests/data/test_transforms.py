# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Pictures and boxes on their way to the model frame."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from src.data.transforms import (
    check_size,
    decode,
    flip_boxes,
    header,
    normalise_into,
    resize,
    resized_shape,
    to_bgr,
    to_xyxy,
    transform_boxes,
)
from src.defrcn.picture_file import EXIF_ORIENTATION
from src.model_utils.errors import InputError
from tests.helpers.data_helpers import encoded, pixels


def test_extreme_strip_keeps_one_row():
    assert resized_shape(1, 10_000, 800, 1333) == (1, 1333)
    assert resized_shape(10_000, 1, 800, 1333) == (1333, 1)


def test_grey_becomes_three_equal_channels():
    grey = Image.fromarray(pixels(20, 30)[:, :, 0])
    content = encoded(grey)
    assert header(content, "g") == ["grey"]
    bgr = to_bgr(decode(content, "g"))
    for channel in range(3):
        np.testing.assert_array_equal(bgr[:, :, channel], np.asarray(grey))


DEEP = np.linspace(0, 65535, 20 * 30).astype(np.uint16).reshape(20, 30)


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("PPM", "I")])
def test_sixteen_bits_lose_the_lower_eight_as_in_opencv(kind, mode):
    """Pillow by itself would make 255 of everything above 255."""
    if kind == "PPM":  # which Pillow reads but does not write with 16 bits
        content = b"P5 30 20 65535\n" + DEEP.astype(">u2").tobytes()
    else:
        content = encoded(Image.fromarray(DEEP), kind)
    assert Image.open(io.BytesIO(content)).mode == mode
    assert header(content, "d") == ["grey", "deep"]
    bgr = to_bgr(decode(content, "d"))
    np.testing.assert_array_equal(bgr, np.repeat((DEEP >> 8).astype(np.uint8)[:, :, None], 3, 2))
    seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(bgr, seen)


def test_sixteen_bits_are_turned_by_exif_too():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    content = encoded(Image.fromarray(DEEP), exif=exif.tobytes())
    upright = np.rot90((DEEP >> 8).astype(np.uint8), -1)
    np.testing.assert_array_equal(to_bgr(decode(content, "d"))[:, :, 0], upright)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_are_refused(kind):
    content = encoded(Image.fromarray(DEEP.astype(kind)), "TIFF")
    with pytest.raises(InputError, match=r"^x\.tif: 32 bits a pixel and channel; save it with 8"):
        decode(content, "x.tif")


# what must be done to stored pixels so that they stand upright, by EXIF orientation
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("orientation", list(UPRIGHT))
def test_exif_orientation(orientation):
    stored = pixels(20, 30)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    content = encoded(Image.fromarray(stored), exif=exif)
    assert header(content, "e") == (["rotated"] if orientation > 1 else [])
    image = decode(content, "e")
    np.testing.assert_array_equal(np.asarray(image), UPRIGHT[orientation](stored))
    assert (image.height, image.width) == ((30, 20) if orientation > 4 else (20, 30))


def test_size_mismatch_names_file_and_sizes():
    image = Image.fromarray(pixels(20, 30))
    check_size(image, 20, 30, "x.png")
    with pytest.raises(InputError, match=r"^x\.png: .* 30 x 20 .* says 31 x 20$"):
        check_size(image, 20, 31, "x.png")
    with pytest.raises(InputError, match="EXIF"):
        check_size(image, 30, 20, "x.png")


def test_transparent_and_palette_images_decode():
    rgb = Image.fromarray(pixels(6, 7))
    for mode in ("RGBA", "P", "LA", "1", "CMYK"):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        assert decode(encoded(rgb.convert(mode), kind), mode).mode == "RGB"


@pytest.mark.parametrize("limit", [599, 600])
def test_pixel_limit(limit):
    content = encoded(Image.fromarray(pixels(20, 30)))
    if limit >= 600:
        assert decode(content, "big.png", limit).size == (30, 20)
    else:
        with pytest.raises(InputError, match=r"big\.png: 30 x 20 pixels are over the limit"):
            decode(content, "big.png", limit)


def test_flip_is_in_continuous_coordinates():
    boxes = np.array([[10.0, 1.0, 30.5, 4.0], [0.0, 0.0, 100.0, 1.0]])
    expected = [[69.5, 1.0, 90.0, 4.0], [0.0, 0.0, 100.0, 1.0]]
    np.testing.assert_array_equal(flip_boxes(boxes, 100), expected)
    np.testing.assert_array_equal(flip_boxes(flip_boxes(boxes, 100), 100), boxes)
    assert flip_boxes(np.zeros((0, 4)), 5).shape == (0, 4)


def test_boxes_are_resized_flipped_clipped_then_dropped():
    boxes = np.array(
        [[-5, 2, 10, 8], [90, 40, 130, 60], [120, 0, 130, 5], [3, 3, 3, 9]], dtype=np.float32
    )
    moved, valid = transform_boxes(boxes, (50, 100), (100, 300), flip=True)
    assert valid.tolist() == [True, True, False, False]
    expected = [[270.0, 4.0, 300.0, 16.0], [0.0, 80.0, 30.0, 100.0]]
    np.testing.assert_allclose(moved[valid], expected, rtol=1e-6)
    assert moved.dtype == np.float32


def test_no_boxes():
    moved, valid = transform_boxes(np.zeros((0, 4), np.float32), (5, 5), (9, 9), flip=True)
    assert moved.shape == (0, 4) and valid.shape == (0,)


def test_flipped_pixels_and_boxes_agree():
    """A bright rectangle is where its box says, before and after the flip."""
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:20, 5:25] = 255
    box = np.array([[5, 10, 25, 20]], np.float32)
    for flip in (False, True):
        bgr = to_bgr(resize(Image.fromarray(picture), 80, 120), flip)
        moved, _ = transform_boxes(box, (40, 60), (80, 120), flip)
        rows, columns = np.nonzero(bgr[:, :, 0] > 127)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(moved[0], found)


def test_box_modes():
    assert to_xyxy((1, 2, 3, 4), 0) == (1.0, 2.0, 3.0, 4.0)
    assert to_xyxy((1, 2, 3, 4), 1) == (1.0, 2.0, 4.0, 6.0)


def test_normalise_divides_when_asked():
    target = np.empty((3, 2, 2), np.float32)
    values = np.full((2, 2, 3), 100, np.uint8)
    normalise_into(target, values, (90.0, 100.0, 110.0), (2.0, 4.0, 5.0))
    assert target[:, 0, 0].tolist() == [5.0, 0.0, -2.0]
