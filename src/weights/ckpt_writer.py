# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Writing MindSpore's `.ckpt` format from numpy arrays, without MindSpore.

The counterpart of `ckpt_reader`, which describes the format; byte for byte what
`mindspore.save_checkpoint(..., crc_check=True)` writes. Tools that only rearrange weights need
neither a device nor the three seconds that importing MindSpore takes.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from src.model_utils.errors import InputError
from src.util import atomic_path

# Bytes of a tensor in one entry; the rest follows in entries of the same name.
SLICE_BYTES = 512 << 20
_TYPES = {
    "i1": "Int8",
    "u1": "UInt8",
    "i2": "Int16",
    "u2": "UInt16",
    "i4": "Int32",
    "u4": "UInt32",
    "i8": "Int64",
    "u8": "UInt64",
    "f2": "Float16",
    "f4": "Float32",
    "f8": "Float64",
    "b1": "Bool",
}


def write_ckpt(path: str | os.PathLike[str], params: Mapping[str, np.ndarray]) -> Path:
    """Write a checkpoint with CRC, whole or not at all.

    Args:
        path: the file; its name ends in `.ckpt`.
        params: arrays by parameter name, of numbers or booleans.

    Raises:
        ValueError: no parameters, an empty array (MindSpore would not read it), or one of
            objects or text.
        InputError: the name does not end in `.ckpt`.
    """
    target = Path(path)
    if target.suffix != ".ckpt":
        raise InputError(f"{target}: the name of a checkpoint must end in .ckpt")
    arrays = {name: np.asarray(array) for name, array in params.items()}
    empty = [name for name, array in arrays.items() if array.size == 0]
    if empty or not arrays:
        raise ValueError(f"{target}: nothing to write for {empty or 'any parameter'}")
    unknown = [name for name, array in arrays.items() if array.dtype.str[1:] not in _TYPES]
    if unknown:
        raise ValueError(f"{target}: {unknown} are not arrays of numbers")
    crc = 0
    with atomic_path(target) as partial, partial.open("wb") as handle:
        for name, array in arrays.items():
            for piece in _entries(name, array):
                crc = binascii.crc32(piece, crc)
                handle.write(piece)
        handle.write(b"crc_num" + crc.to_bytes(10, "big"))
    return target


def _entries(name: str, array: np.ndarray) -> Iterator[bytes]:
    """The entries of one array: see the format in `ckpt_reader`."""
    content = memoryview(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    dims = b"".join(b"\x08" + _varint(size) for size in array.shape)
    kind = _field(2, _TYPES[array.dtype.str[1:]].encode())
    for start in range(0, len(content), SLICE_BYTES):
        tensor = dims + kind + _field(3, content[start : start + SLICE_BYTES])
        yield _field(1, _field(1, name.encode()) + _field(2, tensor))


def _field(number: int, value: bytes | memoryview) -> bytes:
    """A field of bytes: key (number and wire type 2), length, value."""
    return b"".join((_varint(number << 3 | 2), _varint(len(value)), value))


def _varint(number: int) -> bytes:
    """A base-128 number, least significant group first."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)
