# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Files of pictures: their suffixes, their size by the header, what Pillow finds wrong in words."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from src.model_utils.errors import InputError
from src.util import open_regular

SUFFIXES = (
    ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .gif .tif .tiff .webp .ppm .pgm .pbm .pnm .jp2"
).split()
EXIF_ORIENTATION = 0x0112
QUARTER_TURNS = (5, 6, 7, 8)  # the orientations that exchange height and width
PILLOW_MAX_PIXELS = 178_956_970  # Pillow itself refuses larger images
# a damaged file makes Pillow's readers raise nearly anything; its name must be told all the same
DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    EOFError,
    MemoryError,
    AssertionError,
    struct.error,
    zlib.error,
)


def _reason(error: BaseException) -> str:
    """What is wrong with an image, without Pillow's mention of the buffer."""
    unknown = isinstance(error, UnidentifiedImageError)
    return "unknown format or damaged header" if unknown else str(error) or type(error).__name__


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn what Pillow raises inside the block into a sentence."""
    try:
        yield
    except Image.DecompressionBombError:
        raise InputError(f"{name}: over the limit of {PILLOW_MAX_PIXELS} pixels") from None
    except DECODE_ERRORS as error:
        raise InputError(f"{name}: not a readable image ({_reason(error)})") from error


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of a picture after its EXIF orientation; no pixel is decoded for it.

    Raises:
        InputError: there is no such file, it is no regular one, or its header does not parse.
    """
    try:
        handle = open_regular(path)
    except OSError as error:
        raise InputError(f"picture {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"picture {str(path)!r} cannot be read ({error})") from error
    with handle, decoding(str(path)):
        image = Image.open(handle)
        if orientation_of(image, handle) in QUARTER_TURNS:
            return image.width, image.height
        return image.height, image.width


def orientation_of(image: Image.Image, handle: BinaryIO) -> int:
    """How an opened image must be turned, 1 to 8 as EXIF numbers it; by EXIF, else by XMP.

    1 for TIFF, which every decoder turns by itself.

    Args:
        image: not loaded yet.
        handle: the file that it was opened from.
    """
    if image.format == "TIFF":
        return 1
    if image.format == "PNG" and _says_more_behind_pixels(handle):
        image.load()
    # the base class's: that of PNG files decodes every picture that has no EXIF
    found = Image.Image.getexif(image).get(EXIF_ORIENTATION, 1)
    return int(found) if found in range(1, 9) else 1


def _says_more_behind_pixels(handle: BinaryIO) -> bool:
    """Whether a PNG file has chunks that may hold an orientation where only decoding finds them."""
    place = handle.tell()
    handle.seek(8)
    pixels = found = False
    while not found and len(head := handle.read(8)) == 8:  # noqa: PLR2004 - length and name
        length, kind = struct.unpack(">I4s", head)
        pixels = pixels or kind == b"IDAT"
        found = pixels and kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt")
        handle.seek(length + 4, 1)
    handle.seek(place)
    return found
