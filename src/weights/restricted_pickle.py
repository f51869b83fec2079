# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Unpickling that can only build arrays, tensors and plain containers.

A pickle is a program: the standard unpickler imports and calls whatever it names. Weight files
come from the internet, so this one knows a fixed list of names, gives each a harmless builder of
its own, and refuses everything else by its qualified name. Nothing is ever imported. Tensors
become numpy arrays; no torch is needed.

`torch_file` adds the containers in which torch keeps the numbers; here is the pickle itself.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from src.model_utils.errors import InputError

# What a damaged or hostile pickle makes the (pure Python) unpickler or a builder raise.
DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NameError,
    NotImplementedError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    struct.error,
)

# Tensors may share a storage or be expanded (stride 0) from a smaller one, but not so far that
# it could only be meant to exhaust memory: elements per element of storage, and a small excess.
_MAX_REUSE = 64
_MAX_EXPANDED = 1 << 16


@dataclass(frozen=True, eq=False)
class Token:
    """An inert stand-in for a name in a pickle; with a builder it may be called with REDUCE."""

    name: str
    build: Callable[..., Any] | None = None
    dtype: str = ""


def stored_as(dtype: str, order: str = "<") -> np.dtype[Any]:
    """How numpy sees the numbers of a storage; for two kinds it has no type of the same bytes."""
    return np.dtype(order + {"bool": "u1", "bfloat16": "u2"}.get(dtype, dtype))


class Storage:
    """A flat run of numbers: bytes without type and the way to see them."""

    def __init__(self, data: Any, dtype: str, order: str, count: int) -> None:  # noqa: ANN401
        self.dtype = dtype
        self.array = np.frombuffer(data, stored_as(dtype, order), count)
        self.budget = _MAX_REUSE * count + _MAX_EXPANDED


class Parameter:
    """A parameter object of torch before 0.4: the tensor comes with its making or its state."""

    def __init__(self, data: np.ndarray | None = None, *_flags: Any) -> None:  # noqa: ANN401
        self.data = data

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Take the tensor out of (tensor, gradient, hooks, flags) or ignore three flags."""
        if not isinstance(state, tuple) or len(state) not in (3, 5):
            raise ValueError("a parameter of an unknown form")
        if len(state) == 5:
            self.data = state[0]


class _Dtype:
    """A numpy dtype on its way: name first, byte order with the state that follows."""

    def __init__(self, name: Any, *_align_and_copy: Any) -> None:  # noqa: ANN401
        self.name = str(_bytes(name), "latin1")
        self.order = "<"
        if not self.name[:1].isalpha() or not self.name[1:].isdigit():
            raise ValueError("a numpy dtype of an unknown kind")

    def set_state(self, state: tuple[Any, ...]) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(state[2:5]):
            raise ValueError("a structured numpy dtype")
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError("the byte order of a numpy dtype")
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        dtype = np.dtype(self.order + self.name)
        if dtype.kind not in "biufcSU" or dtype.itemsize == 0:
            raise ValueError(f"a numpy array of type {dtype}")
        return dtype


def _bytes(data: Any) -> bytes:  # noqa: ANN401
    """Bytes as they are; text is how Python 2's bytes come in with the encoding latin1."""
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    raise ValueError("bytes are expected")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:  # noqa: ANN401
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise ValueError("an unexpected text encoding")
    return text.encode("latin1")


def whole_numbers(values: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Check a shape, strides, places or counts: non-negative whole numbers of reasonable size."""
    numbers = tuple(values)
    if len(numbers) > 32 or any(type(n) is not int or not 0 <= n < 1 << 48 for n in numbers):
        raise ValueError("an impossible shape, place or count")
    return numbers


def _array_from(data: Any, dtype: Any, shape: Any, fortran: bool = False) -> np.ndarray:  # noqa: ANN401
    if not isinstance(dtype, _Dtype):
        raise ValueError("an array without dtype")
    raw, real, sizes = _bytes(data), dtype.real(), whole_numbers(shape)
    if math.prod(sizes) * real.itemsize != len(raw):
        raise ValueError(f"{len(raw)} bytes for an array of shape {sizes}")
    array = np.frombuffer(raw, np.uint8) != 0 if real.kind == "b" else np.frombuffer(raw, real)
    native = array.astype(array.dtype.newbyteorder("="))
    return native.reshape(sizes, order="F" if fortran else "C")


def _reconstruct(subtype: Any, shape: Any, kind: Any) -> np.ndarray:  # noqa: ANN401
    """The empty array that numpy pickles before the state that fills it."""
    if not isinstance(subtype, Token) or subtype.name != "numpy.ndarray":
        raise ValueError("a subclass of numpy's array")
    return np.zeros((0,), np.uint8)


def _fill(array: np.ndarray, state: Any) -> None:  # noqa: ANN401
    """Give an array made by `_reconstruct` its content, in place: the pickle may share it."""
    _version, shape, dtype, fortran, data = state
    filled = _array_from(data, dtype, shape, bool(fortran))
    if array.shape != (0,):
        raise ValueError("an array that is filled twice")
    ordered = filled.tobytes("F" if fortran else "C")
    state = (1, filled.shape, filled.dtype, bool(fortran), ordered)
    array.__setstate__(state)  # type: ignore[attr-defined]


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_rest: Any) -> np.ndarray:  # noqa: ANN401
    """Build what `torch._utils._rebuild_tensor_v2` would: an array of its own, C order."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without storage")
    shape, steps, (start,) = map(whole_numbers, (size, stride, (offset,)))
    if len(shape) != len(steps):
        raise ValueError("a tensor whose shape and strides differ in length")
    count = math.prod(shape)
    last = start + sum((n - 1) * step for n, step in zip(shape, steps)) if count else start - 1
    if last >= storage.array.size or start > storage.array.size:
        raise ValueError("a tensor that reaches beyond its storage")
    storage.budget -= count
    if storage.budget < 0:
        raise ValueError("tensors far larger than their storage")
    flat = storage.array[start:]
    view = np.lib.stride_tricks.as_strided(
        flat, shape, [step * flat.itemsize for step in steps], writeable=False
    )
    native = np.array(view, dtype=flat.dtype.newbyteorder("="), order="C")
    if storage.dtype == "bool":
        return native != 0
    if storage.dtype == "bfloat16":
        return (native.astype(np.uint32) << 16).view(np.float32)
    return native


def _new_object(token: Any, *arguments: Any) -> Parameter:  # noqa: ANN401
    if not isinstance(token, Token) or token.build is not Parameter:
        raise ValueError("an object of a class")
    return Parameter(*arguments)


#: numpy's name of the numbers that a storage holds, by the first part of the storage's name.
STORAGES = {
    "Float": "f4",
    "Double": "f8",
    "Half": "f2",
    "BFloat16": "bfloat16",
    "Char": "i1",
    "Byte": "u1",
    "Short": "i2",
    "Int": "i4",
    "Long": "i8",
    "Bool": "bool",
}


def _known_names() -> dict[str, Token]:
    builders: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": OrderedDict,
        "collections.Counter": Counter,
        "_codecs.encode": _encode,
        "numpy.dtype": _Dtype,
        "torch._utils._rebuild_tensor": rebuild_tensor,
        "torch._utils._rebuild_tensor_v2": rebuild_tensor,
        "torch._utils._rebuild_parameter": lambda data, *_rest: data,
        "torch.Size": tuple,
        "torch.nn.parameter.Parameter": Parameter,
        "torch.autograd.variable.Variable": Parameter,
        "copyreg.__newobj__": _new_object,
        "copy_reg.__newobj__": _new_object,
    }
    for module in ("builtins", "__builtin__"):
        builders.update({f"{module}.set": set, f"{module}.frozenset": frozenset})
        # How protocols before 3 spell empty bytes; with a length, bytes could exhaust memory.
        builders[f"{module}.bytes"] = lambda: b""
    for core in ("numpy.core", "numpy._core"):
        builders[f"{core}.multiarray._reconstruct"] = _reconstruct
        builders[f"{core}.multiarray.scalar"] = lambda dtype, data: _array_from(data, dtype, ())[()]
        builders[f"{core}.numeric._frombuffer"] = lambda data, dtype, shape, order: _array_from(
            data, dtype, shape, order == "F"
        )
    known = {name: Token(name, build) for name, build in builders.items()}
    known["numpy.ndarray"] = Token("numpy.ndarray")
    for title, dtype in STORAGES.items():
        for module in ("torch", "torch.cuda"):
            name = f"{module}.{title}Storage"
            known[name] = Token(name, dtype=dtype)
            # Only named, never used: the type that a tensor had in the oldest format.
            known[f"{module}.{title}Tensor"] = Token(f"{module}.{title}Tensor")
    return known


_KNOWN = _known_names()


# The pure Python unpickler: its opcodes can be replaced one by one, and no damage makes it crash.
class RestrictedUnpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Builds only what this module's list names.

    Args:
        file: the pickle.
        source: file name for messages.
        resolve: turns torch's persistent id into a `Storage` (or an array); None refuses ids.
    """

    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(
        self,
        file: BinaryIO,
        source: object,
        resolve: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(file, encoding="latin1")
        self._source = source
        self._resolve_id = resolve

    def find_class(self, module: str, name: str) -> Token:
        """Return the stand-in of a known name.

        Raises:
            InputError: naming anything else.
        """
        qualified = f"{module}.{name}"
        if qualified not in _KNOWN:
            raise InputError(
                f"{self._source} asks to load {qualified!r:.120}, which is refused: only arrays, "
                "tensors and plain containers are read; use a file that holds nothing else"
            )
        return _KNOWN[qualified]

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401
        """Resolve what the pickle keeps elsewhere in a torch file."""
        if self._resolve_id is None:
            raise ValueError("a reference to something outside the pickle")
        return self._resolve_id(pid)

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        token = self.stack[-1]
        if not isinstance(token, Token) or token.build is None or type(arguments) is not tuple:
            raise ValueError("a call of something that is no function")
        self.stack[-1] = token.build(*arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, (_Dtype, Parameter)):
            target.set_state(state)
        elif isinstance(target, np.ndarray):
            _fill(target, state)
        elif not isinstance(target, OrderedDict):
            raise ValueError("an object with attributes")
        # An OrderedDict's attributes (torch's `_metadata`: layer versions) are dropped.

    def _new(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _new_object(self.stack[-1], *arguments)

    def _refuse(self) -> None:
        raise ValueError("an object of a class")

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.NEWOBJ[0]] = _new
    for _opcode in (
        *(pickle.OBJ, pickle.NEWOBJ_EX),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    ):
        dispatch[_opcode[0]] = _refuse


def load_pickle(path: str | os.PathLike[str]) -> Any:  # noqa: ANN401
    """Read a `.pkl` of arrays, text from Python 2 decoded as latin1.

    Raises:
        InputError: the file cannot be read, is damaged, or asks for anything else.
    """
    source = Path(path)
    try:
        content = io.BytesIO(source.read_bytes())
        return RestrictedUnpickler(content, source).load()
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from error
    except DAMAGE as error:
        raise InputError(f"{source} is damaged or no pickle of arrays ({error!s:.120})") from error


def named_arrays(content: Any, source: object) -> dict[str, np.ndarray]:  # noqa: ANN401
    """Check that an object read from a file is a mapping from names to arrays.

    Raises:
        InputError: naming the first entry that is not.
    """
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{source} holds no mapping of parameter names to arrays")
    arrays = {}
    for name, value in content.items():
        array = value.data if isinstance(value, Parameter) else value
        if not isinstance(name, str) or not isinstance(array, (np.ndarray, np.generic)):
            kind = type(array).__name__
            raise InputError(f"{source}: the entry {name!r:.120} is no array but {kind}")
        arrays[name] = np.asarray(array)
    return arrays
