# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""ONNX files of a few nodes, written as protobuf by hand: the library `onnx` is not needed here.

Field numbers are those of onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import numpy as np

OPSET, IR_VERSION = 13, 7
FLOAT, INT64 = 1, 7
_INT, _TENSOR, _INTS = 2, 4, 7  # types of attributes


def _number(value: int) -> bytes:
    """A base-128 varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    data = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(data)) + data


def tensor(name: str, values, *, elsewhere: str = "") -> bytes:
    """An array of float32 or int64; `elsewhere` names the file that has its numbers."""
    array = np.asarray(values)
    array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
    out = b"".join(_field(1, side) for side in array.shape)
    out += _field(2, INT64 if array.dtype == np.int64 else FLOAT) + _field(8, name)
    if elsewhere:
        return out + _field(13, _field(1, "location") + _field(2, elsewhere)) + _field(14, 1)
    return out + _field(9, array.tobytes())


def node(kind: str, inputs: str, outputs: str, **attributes: int | list[int]) -> bytes:
    """An operator; names of inputs and outputs are separated by blanks."""
    out = b"".join(_field(1, name) for name in inputs.split())
    out += b"".join(_field(2, name) for name in outputs.split()) + _field(4, kind)
    for name, value in attributes.items():
        if isinstance(value, int):
            content = _field(3, value) + _field(20, _INT)
        else:
            content = b"".join(_field(8, one) for one in value) + _field(20, _INTS)
        out += _field(5, _field(1, name) + content)
    return out


def value(name: str, *shape: int | str, kind: int = FLOAT) -> bytes:
    """An input or output; a side that is text is a dynamic one."""
    sides = (_field(1 if isinstance(side, int) else 2, side) for side in shape)
    dims = b"".join(_field(1, side) for side in sides)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def model(nodes, inputs, outputs, arrays=()) -> bytes:
    """A whole file."""
    graph = b"".join(_field(1, one) for one in nodes) + _field(2, "tiny")
    graph += b"".join(_field(5, one) for one in arrays)
    graph += b"".join(_field(11, one) for one in inputs)
    graph += b"".join(_field(12, one) for one in outputs)
    return _field(1, IR_VERSION) + _field(7, graph) + _field(8, _field(2, OPSET))


def cell_means(cell: int = 8) -> bytes:
    """The kernel of a convolution whose cells are the mean colours of patches."""
    kernel = np.zeros((3, 3, cell, cell), np.float32)
    for channel in range(3):
        kernel[channel, channel] = 1 / cell**2
    return tensor("kernel", kernel)


def map_model(sides: tuple = ("height", "width"), cell: int = 8, batch: int | str = 1) -> bytes:
    """A map of mean colours, stride `cell`; outputs `map`, and `total`, which is no map."""
    return model(
        [
            node("Conv", "image kernel", "map", strides=[cell, cell]),
            node("ReduceSum", "map", "total"),
        ],
        [value("image", batch, 3, *sides)],
        [value("map", batch, 3, "h", "w"), value("total", 1, 1, 1, 1)],
        [cell_means(cell)],
    )


def token_model(prefix: int = 1, cell: int = 8) -> bytes:
    """The same map as tokens (1, N, 3), behind `prefix` tokens of 99s."""
    return model(
        [
            node("Conv", "image kernel", "map", strides=[cell, cell]),
            node("Reshape", "map shape", "flat"),
            node("Transpose", "flat", "patches", perm=[0, 2, 1]),
            node("Concat", "prefix patches", "tokens", axis=1),
        ],
        [value("image", 1, 3, "height", "width")],
        [value("tokens", 1, "tokens", 3)],
        [
            cell_means(cell),
            tensor("shape", [1, 3, -1]),
            tensor("prefix", np.full((1, prefix, 3), 99.0)),
        ],
    )


def crop_model(size: tuple = (16, 16), batch: int | str = "batch") -> bytes:
    """The mean colour of each picture: (N, 3)."""
    return model(
        [node("ReduceMean", "image", "vector", axes=[2, 3], keepdims=0)],
        [value("image", batch, 3, *size)],
        [value("vector", batch, 3)],
    )
