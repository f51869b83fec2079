# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Reads pictures as training does; keeps what is wrong or unusual about each, and a fingerprint.

Nothing is raised for a picture: a problem is a sentence among others.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from src.data.mindrecord_io import MAX_IMAGE_BYTES
from src.data.prefetch import Prefetched
from src.data.transforms import check_size, decode, header
from src.model_utils.errors import InputError
from src.util import read_regular

THUMB = 16  # side of the grey miniature


@dataclass(frozen=True)
class Seen:
    """What is known of a picture that was read.

    Attributes:
        problem: why training would refuse it, without its name; "" if it would not.
        oddities: "rotated", "grey", "deep", see `transforms.header`.
        fingerprint: 64 bits: of a 9 x 8 grey miniature, whether each pixel is darker than the one
            to its right.
        thumb: 16 x 16 bytes, the grey miniature row by row; empty with a problem.
    """

    problem: str = ""
    oddities: tuple[str, ...] = ()
    fingerprint: int = 0
    thumb: bytes = b""


def file_problem(path: str) -> tuple[int, str]:
    """Bytes of a file, and why it cannot be read ("" if nothing speaks against it)."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return 0, f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return status.st_size, "" if stat.S_ISREG(status.st_mode) else "is not a regular file"


def look_at(path: str, size: tuple[int, int], max_pixels: int) -> Seen:
    """Read a picture as `build_mindrecord` does.

    Args:
        path: the file.
        size: height and width that the annotations say.
        max_pixels: larger ones are refused.
    """
    try:
        content = read_regular(path, MAX_IMAGE_BYTES)
        oddities = header(content, path, size)
        image = decode(content, path, max_pixels)
        check_size(image, *size, path)
    except OSError as error:
        return Seen(f"cannot be read ({error.strerror})")
    except (ValueError, InputError) as error:
        return Seen(str(error).removeprefix(f"{path}: "))
    grey = image.convert("L")
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(small[:, :-1] < small[:, 1:])
    thumb = grey.resize((THUMB, THUMB), Image.Resampling.BOX)
    return Seen("", tuple(oddities), int.from_bytes(bits.tobytes(), "big"), thumb.tobytes())


def look_at_all(
    sizes: Mapping[str, tuple[int, int]], max_pixels: int, num_workers: int
) -> dict[str, Seen]:
    """`look_at` for many files, in threads, with a progress bar.

    Args:
        sizes: height and width of each file.
        max_pixels: larger ones are refused.
        num_workers: threads.
    """
    jobs = (functools.partial(look_at, path, size, max_pixels) for path, size in sizes.items())
    with contextlib.closing(Prefetched(jobs, num_workers, 4 * max(num_workers, 1))) as found:
        bar = tqdm(zip(sizes, found), total=len(sizes), desc="pictures", unit="image")
        return dict(bar)


def spread(number: int, most: int) -> Sequence[int]:
    """At most `most` of the places 0 ... number - 1, evenly spread."""
    if number <= most:
        return range(number)
    return [place * number // most for place in range(most)]
