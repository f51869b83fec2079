# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What happens to a picture and its boxes between the file and the network, in NumPy and Pillow.

Frames: image frame = pixels of the (EXIF-rotated) file; model frame = pixels after resizing.
Boxes are (x1, y1, x2, y2) in continuous pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from src.defrcn.picture_file import EXIF_ORIENTATION, PILLOW_MAX_PIXELS, decoding
from src.model_utils.errors import InputError

EMPTY_SIDE = 1e-5  # sides up to this many model-frame pixels count as empty, as officially
GREY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L")
DEEP_FORMATS = ("PNG", "PPM")  # whose mode "I" has 16 bits a pixel; that of TIFF has 32


def resized_shape(height: int, width: int, short_edge: int, max_size: int) -> tuple[int, int]:
    """Height and width of an image whose short edge becomes `short_edge`.

    If the long edge would exceed `max_size`, that edge becomes `max_size` instead. The order of
    the floating-point operations and the rounding (half up) are the official ones.
    """
    scale = short_edge / min(height, width)
    if height < width:
        new_height, new_width = float(short_edge), scale * width
    else:
        new_height, new_width = scale * height, float(short_edge)
    longest = max(new_height, new_width)
    if longest > max_size:
        shrink = max_size / longest
        new_height, new_width = new_height * shrink, new_width * shrink
    # an extreme strip would round to nothing; one row or column is the least that exists
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image is grey with 16 bits a pixel; Pillow's mode depends on the format."""
    mode, kind = image.mode, image.format
    return mode.startswith("I;16") or (mode == "I" and kind in DEEP_FORMATS)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Three channels of 8 bits.

    Of 16 bits the upper 8 are taken, as OpenCV does for the calibration block; Pillow would cut
    every value above 255 off, which makes pictures white.
    """
    deep = is_deep(image)
    if image.mode in ("I", "F") and not deep:
        raise InputError(f"{name}: 32 bits a pixel and channel; save it with 8 bits")
    image = ImageOps.exif_transpose(image)
    if deep:
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    return image.convert("RGB")


def check_pixels(image: Image.Image, name: str, max_pixels: int) -> None:
    """Refuse an image that is too large; its header is enough.

    Raises:
        InputError: naming the file and its size.
    """
    if image.width * image.height > max_pixels:
        raise InputError(
            f"{name}: {image.width} x {image.height} pixels are over the limit of "
            f"{max_pixels} (data.max_image_pixels)"
        )


def decode(content: bytes, name: str, max_pixels: int = PILLOW_MAX_PIXELS) -> Image.Image:
    """Decode an encoded image to 8-bit RGB with its EXIF orientation applied.

    Args:
        content: bytes of the file.
        name: the file's name, for messages.
        max_pixels: larger images are refused from their header, before decoding.

    Raises:
        InputError: the image is too large, does not decode, or has 32 bits a channel.
    """
    with decoding(name):
        image = Image.open(io.BytesIO(content))
        check_pixels(image, name, max_pixels)
        image.load()
        return _to_rgb(image, name)


def header(content: bytes, name: str, size: tuple[int, int] | None = None) -> list[str]:
    """What is unusual about an image, from its header: "rotated" (EXIF), "grey", "deep" (16 bits).

    Args:
        content: bytes of the file.
        name: for messages.
        size: height and width that it must have, before or after a quarter turn: so that what is
            larger is not decoded; None for any.

    Raises:
        InputError: the header does not parse, or the size is another one.
    """
    with decoding(name):
        image = Image.open(io.BytesIO(content))
        if size is not None and sorted(image.size) != sorted(size):
            check_size(image, *size, name)
        oddities = ["rotated"] if image.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1) else []
        oddities += ["grey"] if image.mode in GREY_MODES else []
        return oddities + (["deep"] if is_deep(image) else [])


def check_size(image: Image.Image, height: int, width: int, name: str) -> None:
    """Refuse an image whose size is not the annotated one.

    Raises:
        InputError: naming the file and both sizes.
    """
    if (image.height, image.width) != (height, width):
        turned = (image.width, image.height) == (height, width)
        hint = "; sizes and boxes must be those after the EXIF orientation" if turned else ""
        raise InputError(
            f"{name}: the image is {image.width} x {image.height} (width x height) but the "
            f"annotation says {width} x {height}{hint}"
        )


def resize(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resize bilinearly; Pillow smooths when it shrinks, which the official pictures have.

    Pillow works along rows, then along columns, with rounding in between; its later versions
    turn that round when only the height shrinks. Doing so here gives every version that result.
    """
    if height < image.height and width > image.width:
        image = image.resize((image.width, height), Image.Resampling.BILINEAR)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def to_bgr(image: Image.Image, flip: bool = False) -> np.ndarray:
    """Pixels (H, W, 3) uint8, blue first; mirrored left to right if `flip`."""
    pixels = np.asarray(image)[:, :, ::-1]
    return pixels[:, ::-1] if flip else pixels


def normalise_into(
    target: np.ndarray, pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Write (H, W, 3) uint8 BGR pixels into (3, H, W) float32: minus mean, divided by std."""
    planes = pixels.transpose(2, 0, 1)
    np.subtract(planes, np.asarray(mean, np.float32)[:, None, None], out=target)
    if any(value != 1.0 for value in std):
        target /= np.asarray(std, np.float32)[:, None, None]


def to_xyxy(bbox: Sequence[float], bbox_mode: int) -> tuple[float, float, float, float]:
    """Corners of a box that is stored as corners (mode 0) or corner and size (mode 1)."""
    x, y, third, fourth = (float(value) for value in bbox)
    return (x, y, third, fourth) if bbox_mode == 0 else (x, y, x + third, y + fourth)


def resize_boxes(boxes: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Move boxes (n, 4) from an image of (height, width) `old` to one of `new`; float64."""
    ratio_y, ratio_x = new[0] / old[0], new[1] / old[1]
    return np.asarray(boxes, dtype=np.float64) * np.array([ratio_x, ratio_y, ratio_x, ratio_y])


def flip_boxes(boxes: np.ndarray, width: float) -> np.ndarray:
    """Mirror boxes (n, 4) left to right in continuous coordinates: x' = width - x."""
    flipped = np.array(boxes)
    flipped[:, 0], flipped[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return flipped


def clip_boxes(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    """Clip boxes (n, 4) to an image."""
    return np.clip(boxes, 0.0, np.array([width, height, width, height], dtype=np.float64))


def non_empty(boxes: np.ndarray, threshold: float = EMPTY_SIDE) -> np.ndarray:
    """(n,) bool: both sides are longer than `threshold` pixels."""
    return np.asarray(np.all(boxes[:, 2:] - boxes[:, :2] > threshold, axis=1))


def transform_boxes(
    boxes: np.ndarray, old: tuple[int, int], new: tuple[int, int], flip: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Bring boxes (n, 4) of the image frame to the model frame: resize, flip, clip.

    Args:
        boxes: image frame.
        old: height and width of the image.
        new: height and width in the model frame.
        flip: mirror left to right.

    Returns:
        Boxes (n, 4) float32, and (n,) bool which of them are not empty.
    """
    moved = resize_boxes(boxes, old, new)
    if flip:
        moved = flip_boxes(moved, new[1])
    moved = clip_boxes(moved, *new).astype(np.float32)
    return moved, non_empty(moved)
