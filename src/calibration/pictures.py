# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block's pictures: read as the official code does, their support boxes moved.

Boxes are float32 (x1, y1, x2, y2) pixels of the image frame.
"""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.data.transforms import check_pixels, resized_shape, transform_boxes
from src.defrcn.pcb import Picture, Reader
from src.defrcn.picture_file import DECODE_ERRORS, QUARTER_TURNS, orientation_of
from src.model_utils.errors import InputError


def read_picture(file_name: str, max_pixels: int) -> Picture:
    """Read a picture by OpenCV as the official code does, turned as it is for the detector.

    `cv2.imread` gives the same where it knows the orientation; it knows neither WebP's nor XMP's.

    Raises:
        InputError: the file is missing, too large, or does not decode.
    """
    try:
        content = Path(file_name).read_bytes()
    except OSError as error:
        raise InputError(
            f"{file_name} cannot be read ({error.strerror}); the calibration block "
            "(test.pcb.enable) needs the picture itself, put it back where the data set has it"
        ) from error
    try:
        with io.BytesIO(content) as handle, Image.open(handle) as header:
            check_pixels(header, file_name, max_pixels)
            orientation = orientation_of(header, handle)
    except (Image.DecompressionBombError, *DECODE_ERRORS) as error:
        raise InputError(f"{file_name}: not a readable picture ({error})") from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if pixels is None:
        raise InputError(f"{file_name}: OpenCV cannot decode this picture; save it as JPEG or PNG")
    return Picture(turned(pixels, orientation), hashlib.sha256(content).hexdigest())


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W, 3) as they are to be seen; `orientation` is numbered as in EXIF, 1 to 8."""
    if orientation in QUARTER_TURNS:
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def support_boxes(
    boxes: np.ndarray, height: int, width: int, *, short_edge: int, max_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bring support boxes into the frame that the official code compares them in.

    They go to the detector's test size and come back by the ratio of heights for x and y alike,
    as officially; since sizes are whole numbers, x may end some hundredths of a pixel off.

    Args:
        boxes: (R, 4), image frame.
        height: pixels of the image.
        width: pixels.
        short_edge: of the detector's input in evaluation.
        max_size: limit of its long edge.

    Returns:
        Boxes (R, 4) float32, and (R,) bool which of them are not empty.
    """
    size = resized_shape(height, width, short_edge, max_size)
    moved, kept = transform_boxes(np.asarray(boxes).reshape(-1, 4), (height, width), size)
    return moved * np.float32(height / size[0]), kept


def reader(max_pixels: int) -> Reader:
    """`read_picture` with its limit."""
    return functools.partial(read_picture, max_pixels=max_pixels)
