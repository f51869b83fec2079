# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""MindSpore's `.ckpt` format to numpy arrays and back, without MindSpore.

`mindspore.load_checkpoint` trusts sizes inside the file: a flipped bit in a file without CRC can
abort the whole process (seen with 2.8.0: a C++ error in a destructor), and a file cut between two
entries passes. Here every length is checked, so damage ends in a sentence. Tools that only
rearrange weights need neither a device nor the three seconds that importing MindSpore takes. What
is written is byte for byte what `mindspore.save_checkpoint(..., crc_check=True)` writes.

The format is a protocol buffer, see `_PROTO`. A tensor of more than 512 MB is spread over
consecutive values of the same name. A file written with `crc_check=True` ends in `crc_num` and the
CRC-32 of what precedes as 10 bytes.
"""

from __future__ import annotations

import binascii
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from src.model_utils.errors import InputError
from src.util import atomic_path

#: Bytes of a tensor in one entry; the rest follows in entries of the same name.
SLICE_BYTES = 512 << 20
_FOOTER = b"crc_num"
_FOOTER_SIZE = len(_FOOTER) + 10
# A value's field 3, a map tensor, is not used for network weights; numbers are little-endian.
_PROTO = """
name: "defrcn/checkpoint.proto"
message_type {
  name: "Checkpoint"
  field { name: "value" number: 1 label: LABEL_REPEATED type_name: "Value" }
}
message_type {
  name: "Value"
  field { name: "tag" number: 1 label: LABEL_REQUIRED type: TYPE_BYTES }
  field { name: "tensor" number: 2 label: LABEL_REQUIRED type_name: "Tensor" }
}
message_type {
  name: "Tensor"
  field { name: "dims" number: 1 label: LABEL_REPEATED type: TYPE_UINT64 }
  field { name: "tensor_type" number: 2 label: LABEL_REQUIRED type: TYPE_BYTES }
  field { name: "tensor_content" number: 3 label: LABEL_REQUIRED type: TYPE_BYTES }
}
"""
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()))
_Checkpoint: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("Checkpoint"))
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
        has_crc = content[-_FOOTER_SIZE:][: len(_FOOTER)] == _FOOTER
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
    checkpoint = _Checkpoint()
    try:
        checkpoint.ParseFromString(bytes(content))
    except DecodeError as error:
        raise _FormatError("an entry is cut off or no entry") from error
    checkpoint.DiscardUnknownFields()
    if not checkpoint.IsInitialized() or checkpoint.ByteSize() != len(content):
        raise _FormatError("fields are missing, unknown, or there twice")
    pieces: dict[str, list[bytes]] = {}
    heads: dict[str, tuple[tuple[int, ...], str]] = {}
    previous = None
    for value in checkpoint.value:
        tensor = value.tensor
        name, head = _text(value.tag), (tuple(tensor.dims), _text(tensor.tensor_type))
        if heads.setdefault(name, head) != head or (name in pieces and name != previous):
            raise _FormatError(f"'{name[:99]}' occurs twice")
        pieces.setdefault(name, []).append(tensor.tensor_content)
        previous = name
    return {
        name: _array(name, *heads[name], data)
        for name, data in pieces.items()
        if heads[name][1] != "str"
    }


def _array(name: str, dims: tuple[int, ...], kind: str, data: list[bytes]) -> np.ndarray:
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


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _FormatError("a name that is no text") from error


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
    content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    tensor = {"dims": array.shape, "tensor_type": _KINDS[array.dtype.str[1:]].encode()}
    for start in range(0, len(content), SLICE_BYTES):
        piece = {**tensor, "tensor_content": content[start : start + SLICE_BYTES]}
        yield _Checkpoint(value=[{"tag": name.encode(), "tensor": piece}]).SerializeToString()
