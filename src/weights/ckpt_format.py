# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""MindSpore's `.ckpt` format to numpy arrays and back, without MindSpore.

`mindspore.load_checkpoint` trusts sizes inside the file: a flipped bit in a file without CRC can
abort the whole process (seen with 2.8.0: a C++ error in a destructor), and a file cut between two
entries passes. Here every length is checked, so damage ends in a sentence. Tools that only
rearrange weights need neither a device nor the three seconds that importing MindSpore takes. What
is written is byte for byte what `mindspore.save_checkpoint(..., crc_check=True)` writes.

The format is a protocol buffer, read by hand because MindSpore has to be imported before anything
that imports protobuf (it chooses protobuf's implementation). It is in effect a list of fields, each
a key (number and wire type) followed by a value:

    Checkpoint   1: Value, repeated
    Value        1: name   2: Tensor   (3: map tensor, not used for network weights)
    Tensor       1: dimension, repeated   2: type name   3: bytes, little-endian

A tensor of more than 512 MB is spread over consecutive values of the same name. A file written
with `crc_check=True` ends in `crc_num` and the CRC-32 of what precedes as 10 bytes.
"""

from __future__ import annotations

import binascii
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.model_utils.errors import InputError
from src.util import atomic_path

#: Bytes of a tensor in one entry; the rest follows in entries of the same name.
SLICE_BYTES = 512 << 20
_FOOTER = b"crc_num"
_FOOTER_SIZE = len(_FOOTER) + 10
_VARINT, _BYTES = 0, 2
_CODES = {
    "Int8": "i1",
    "UInt8": "u1",
    "Int16": "i2",
    "UInt16": "u2",
    "Int32": "i4",
    "UInt32": "u4",
    "Int64": "i8",
    "UInt64": "u8",
    "Float16": "f2",
    "Float32": "f4",
    "Float64": "f8",
    "Bool": "b1",
}
_KINDS = {code: kind for kind, code in _CODES.items()}


class _FormatError(Exception):
    """The bytes are no checkpoint; the text says what was found."""


def read_ckpt(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], bool]:
    """Read every tensor of a MindSpore checkpoint.

    Returns:
        Arrays by parameter name (own memory, bfloat16 as float32), and whether the file carries
        a CRC. Text entries, which `append_dict` makes, are left out.

    Raises:
        InputError: the file cannot be read, is damaged, or is no MindSpore checkpoint.
    """
    source = Path(path)
    try:
        content = memoryview(source.read_bytes())
        has_crc = bytes(content[-_FOOTER_SIZE:][: len(_FOOTER)]) == _FOOTER
        if has_crc:
            expected = int.from_bytes(content[-10:], "big")
            content = content[:-_FOOTER_SIZE]
            if binascii.crc32(content) != expected:
                raise _FormatError("its CRC does not match")
        params = _arrays(content)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error
    except _FormatError as error:
        raise InputError(
            f"{source} is damaged or no MindSpore checkpoint ({error}); make or copy it again"
        ) from error
    if not params:
        raise InputError(f"{source} holds no parameters; make or copy it again")
    return params, has_crc


def _arrays(content: memoryview) -> dict[str, np.ndarray]:
    pieces: dict[str, list[memoryview]] = {}
    heads: dict[str, tuple[tuple[int, ...], str]] = {}
    previous = None
    for entry in _message(content, {1: memoryview})[1]:
        names, tensors = _message(entry, {1: memoryview, 2: memoryview}).values()
        if len(names) != 1 or len(tensors) != 1:
            raise _FormatError("an entry without its one name and its one tensor")
        dims, kinds, data = _message(tensors[0], {1: int, 2: memoryview, 3: memoryview}).values()
        if len(kinds) != 1 or len(data) != 1:
            raise _FormatError("a tensor without its one type and its one content")
        name, head = _text(names[0]), (tuple(dims), _text(kinds[0]))
        if heads.setdefault(name, head) != head or (name in pieces and name != previous):
            raise _FormatError(f"'{name[:99]}' occurs twice")
        pieces.setdefault(name, []).extend(data)
        previous = name
    return {
        name: _array(name, *heads[name], data)
        for name, data in pieces.items()
        if heads[name][1] != "str"
    }


def _array(name: str, dims: tuple[int, ...], kind: str, data: list[memoryview]) -> np.ndarray:
    if kind not in _CODES and kind != "BFloat16":
        raise _FormatError(f"'{name[:99]}' has the unknown type '{kind[:99]}'")
    shape = () if dims == (0,) else dims  # a scalar is written with the one dimension 0
    dtype = np.dtype("<" + _CODES.get(kind, "u2"))
    size = sum(len(piece) for piece in data)
    if any(dim >= 1 << 62 for dim in shape) or math.prod(shape) * dtype.itemsize != size:
        raise _FormatError(f"'{name[:99]}' has {size} bytes for the shape {shape[:9]}")
    array = np.frombuffer(b"".join(data), dtype).reshape(shape)
    if kind == "Bool":
        return array.view(np.uint8) != 0
    if kind == "BFloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(dtype.newbyteorder("="))


def _message(content: memoryview, types: Mapping[int, type]) -> dict[int, list[Any]]:
    """The values of a message by field number, for each field in `types`; others are refused."""
    found: dict[int, list[Any]] = {number: [] for number in types}
    for number, value in _fields(content):
        if not isinstance(value, types.get(number, ())):
            raise _FormatError(f"an unexpected field {number}")
        found[number].append(value)
    return found


def _text(content: memoryview) -> str:
    try:
        return str(content, "utf-8")
    except UnicodeDecodeError as error:
        raise _FormatError("a name that is no text") from error


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of every field; the lengths must fill the content exactly."""
    position = 0
    while position < len(content):
        key, position = _read_varint(content, position)
        value, position = _read_varint(content, position)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _BYTES:
            if value > len(content) - position:
                raise _FormatError("an entry reaches beyond the end")
            yield key >> 3, content[position : position + value]
            position += value
        else:
            raise _FormatError(f"wire type {key & 7}")


def _read_varint(content: memoryview, position: int) -> tuple[int, int]:
    """Decode a base-128 number, least significant group first, at most 64 bits."""
    result = 0
    for shift in range(0, 64, 7):
        if position >= len(content):
            raise _FormatError("the end comes within a number")
        byte = content[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            return result, position
    raise _FormatError("a number without end")


def write_ckpt(path: str | os.PathLike[str], params: Mapping[str, np.ndarray]) -> Path:
    """Write a checkpoint with CRC, whole or not at all.

    Args:
        path: the file; its name ends in `.ckpt`.
        params: arrays by parameter name, of numbers or booleans.

    Raises:
        ValueError: no parameters, an empty array (MindSpore would drop it silently), or one of
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
    unknown = [name for name, array in arrays.items() if array.dtype.str[1:] not in _KINDS]
    if unknown:
        raise ValueError(f"{target}: {unknown} are not arrays of numbers")
    crc = 0
    with atomic_path(target) as partial, partial.open("wb") as handle:
        for name, array in arrays.items():
            for piece in _entries(name, array):
                crc = binascii.crc32(piece, crc)
                handle.write(piece)
        handle.write(_FOOTER + crc.to_bytes(10, "big"))
    return target


def _entries(name: str, array: np.ndarray) -> Iterator[bytes]:
    """The entries of one array."""
    content = memoryview(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    dims = b"".join(b"\x08" + _varint(size) for size in array.shape)
    kind = _field(2, _KINDS[array.dtype.str[1:]].encode())
    for start in range(0, len(content), SLICE_BYTES):
        tensor = dims + kind + _field(3, content[start : start + SLICE_BYTES])
        yield _field(1, _field(1, name.encode()) + _field(2, tensor))


def _field(number: int, value: bytes | memoryview) -> bytes:
    """A field of bytes: key (number and wire type), length, value."""
    return b"".join((_varint(number << 3 | _BYTES), _varint(len(value)), value))


def _varint(number: int) -> bytes:
    """A base-128 number, least significant group first."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)
