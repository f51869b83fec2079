# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Reading MindSpore's `.ckpt` format into numpy arrays.

`mindspore.load_checkpoint` trusts sizes inside the file: a flipped bit in a file without CRC can
abort the whole process (seen with 2.8.0: a C++ error in a destructor), and a file cut between two
entries passes. This reader checks every length, so damage ends in a sentence. It needs no
MindSpore, which also spares the converters three seconds of import.

The format is a protocol buffer, in effect a list of fields, each a key (number and wire type)
followed by a value:

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
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import numpy as np

from src.model_utils.errors import InputError

_FOOTER = b"crc_num"
_FOOTER_SIZE = len(_FOOTER) + 10
_VARINT, _BYTES = 0, 2
_DTYPES = {
    "Int8": "<i1",
    "UInt8": "<u1",
    "Int16": "<i2",
    "UInt16": "<u2",
    "Int32": "<i4",
    "UInt32": "<u4",
    "Int64": "<i8",
    "UInt64": "<u8",
    "Float16": "<f2",
    "Float32": "<f4",
    "Float64": "<f8",
    "Bool": "?",
    "BFloat16": "<u2",
}

Field = tuple[int, Union[int, memoryview]]


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
    pieces: dict[str, tuple[tuple[int, ...], str, list[memoryview]]] = {}
    previous = None
    for number, value in _fields(content):
        if number != 1 or isinstance(value, int):
            raise _FormatError(f"field {number} where an entry belongs")
        name, dims, kind, data = _entry(value)
        if name in pieces:
            if name != previous or pieces[name][:2] != (dims, kind):
                raise _FormatError(f"'{name}' occurs twice")
            pieces[name][2].append(data)
        else:
            pieces[name] = (dims, kind, [data])
        previous = name
    return {
        name: _array(name, dims, kind, data)
        for name, (dims, kind, data) in pieces.items()
        if kind != "str"
    }


def _entry(content: memoryview) -> tuple[str, tuple[int, ...], str, memoryview]:
    """Return name, dimensions, type name and bytes of one entry."""
    fields = _fields_once(content, wanted=(1, 2))
    tensor = fields[2]
    dims: list[int] = []
    rest = {}
    for number, value in _fields(tensor):
        if number == 1 and isinstance(value, int):
            dims.append(value)
        elif number in (2, 3) and not isinstance(value, int) and number not in rest:
            rest[number] = value
        else:
            raise _FormatError(f"unexpected field {number} in a tensor")
    if set(rest) != {2, 3}:
        raise _FormatError("a tensor without type or content")
    return _text(fields[1]), tuple(dims), _text(rest[2]), rest[3]


def _fields_once(content: memoryview, wanted: tuple[int, ...]) -> dict[int, memoryview]:
    found: dict[int, memoryview] = {}
    for number, value in _fields(content):
        if number not in wanted or number in found or isinstance(value, int):
            raise _FormatError(f"unexpected field {number} in an entry")
        found[number] = value
    if len(found) != len(wanted):
        raise _FormatError("an entry without name or tensor")
    return found


def _array(name: str, dims: tuple[int, ...], kind: str, data: list[memoryview]) -> np.ndarray:
    if kind not in _DTYPES:
        raise _FormatError(f"'{name}' has the unknown type '{kind}'")
    shape = () if dims == (0,) else dims  # a scalar is written with the one dimension 0
    dtype = np.dtype(_DTYPES[kind])
    size = sum(len(piece) for piece in data)
    if any(dim >= 1 << 62 for dim in shape) or math.prod(shape) * dtype.itemsize != size:
        raise _FormatError(f"'{name}' has {size} bytes for the shape {shape}")
    array = np.frombuffer(b"".join(data), dtype).reshape(shape)
    if kind == "Bool":
        return array.view(np.uint8) != 0
    if kind == "BFloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(dtype.newbyteorder("="))


def _text(content: memoryview) -> str:
    try:
        return str(content, "utf-8")
    except UnicodeDecodeError as error:
        raise _FormatError("a name that is no text") from error


def _fields(content: memoryview) -> Iterator[Field]:
    """Yield number and value of every field; the lengths must fill the content exactly."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        value, position = _varint(content, position)
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _BYTES:
            if value > len(content) - position:
                raise _FormatError("an entry reaches beyond the end")
            yield key >> 3, content[position : position + value]
            position += value
        else:
            raise _FormatError(f"wire type {key & 7}")


def _varint(content: memoryview, position: int) -> tuple[int, int]:
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
