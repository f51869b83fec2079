# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""torch's `.pth` files without torch: all three formats are read, the newest is written.

Newest (torch >= 1.6), a zip archive whose one folder holds
    data.pkl          the object; each tensor refers to a storage by key
    data/<key>        the numbers of one storage, uncompressed
    byteorder         "little" or "big" (since 2.1; little if absent)
Older: five pickles in a row (magic number, protocol, facts about the system, the object, the
list of storage keys), then per key a count of 8 bytes and the numbers, all little-endian.
Oldest (torch 0.1, as torchvision's files of early 2017): a tar archive of
    storages          a count, then per storage a pickle of (key, place, type) and the numbers as
                      in the older format, then a list of views (key, storage, offset, length)
    tensors           a count, then per tensor a pickle of (key, storage, type), dimensions (4
                      bytes, 4 unused), shape, strides and offset (8 bytes each number)
    pickle            the object; it refers to tensors by key
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from src.model_utils.errors import InputError
from src.util import atomic_path
from src.weights.restricted_pickle import (
    DAMAGE,
    STORAGES,
    RestrictedUnpickler,
    Storage,
    Token,
    rebuild_tensor,
    stored_as,
    whole_numbers,
)

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGE_NAMES = {
    np.dtype(dtype).name: f"{title}Storage"
    for title, dtype in STORAGES.items()
    if dtype != "bfloat16"
}


def load_torch(path: str | os.PathLike[str]) -> Any:  # noqa: ANN401
    """Read a `.pth` of any of the three formats.

    Returns:
        The saved object: plain containers, with a numpy array for each tensor (own memory, C
        order; bfloat16 as float32). Parameter objects of the oldest torch stay wrapped in
        `restricted_pickle.Parameter`; `named_arrays` unwraps them.

    Raises:
        InputError: the file cannot be read, is damaged, is no torch file, or holds objects other
            than tensors and plain containers.
    """
    source = Path(path)
    try:
        with source.open("rb") as handle:
            if handle.read(4) == b"PK\x03\x04":
                return _load_zip(handle, source)
            handle.seek(257)
            is_tar = handle.read(5) == b"ustar"
            handle.seek(0)
            if is_tar:
                return _load_tar(handle, source)
            return _load_legacy(io.BytesIO(handle.read()), source)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, *DAMAGE) as error:
        raise InputError(f"{source} is damaged or no torch file ({error!s:.120})") from error
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error}") from error


def _storage_id(pid: Any) -> tuple[str, str, int]:  # noqa: ANN401
    """Return dtype, key and number of elements of a persistent id."""
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
        raise ValueError("a reference that is no storage")
    token, key = pid[1:3]
    if not isinstance(token, Token) or not token.dtype or not isinstance(key, str):
        raise ValueError("a storage of an unknown type")
    (count,) = whole_numbers(pid[4:5])
    return token.dtype, key, count


def _load_zip(handle: BinaryIO, source: Path) -> Any:  # noqa: ANN401
    with zipfile.ZipFile(handle) as archive:
        names = archive.namelist()
        objects = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(objects) != 1 or len(set(names)) != len(names):
            raise ValueError("a zip archive without the layout of torch")
        if sum(info.file_size for info in archive.infolist()) > source.stat().st_size:
            raise ValueError("members that overlap or are compressed")
        folder = objects[0].partition("/")[0]
        if f"{folder}/constants.pkl" in names:
            raise InputError(
                f"{source} is a TorchScript program, not a file of weights; save a state_dict"
            )
        order = {b"little": "<", b"big": ">"}[
            _record(archive, f"{folder}/byteorder") if f"{folder}/byteorder" in names else b"little"
        ]
        storages: dict[tuple[str, str], Storage] = {}

        def storage(pid: Any) -> Storage:  # noqa: ANN401
            dtype, key, count = _storage_id(pid)
            if (key, dtype) not in storages:
                raw = _record(archive, f"{folder}/data/{key}")
                if len(raw) != count * stored_as(dtype).itemsize:
                    raise ValueError(f"storage {key} has {len(raw)} bytes for {count} numbers")
                storages[key, dtype] = Storage(raw, dtype, order, count)
            if storages[key, dtype].array.size != count:
                raise ValueError(f"storage {key} has two sizes")
            return storages[key, dtype]

        content = io.BytesIO(_record(archive, objects[0]))
        return RestrictedUnpickler(content, source, storage).load()


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read one member, its CRC checked; torch never compresses, so a compressed one is refused."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"the member {name} is compressed")
    return archive.read(info)


def _load_legacy(handle: io.BytesIO, source: Path) -> Any:  # noqa: ANN401
    if _plain(handle, source) != _LEGACY_MAGIC or _plain(handle, source) != _LEGACY_PROTOCOL:
        raise ValueError("it begins like none of torch's three formats")
    _plain(handle, source)
    start = handle.tell()
    # The object comes before its numbers: read it once to learn the types and where it ends,
    # and again when the numbers are at hand.
    found: dict[str, tuple[str, int]] = {}
    limit = len(handle.getbuffer())

    def collect(pid: Any) -> Storage:  # noqa: ANN401
        dtype, key, count = _storage_id(pid)
        if found.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f"storage {key} has two types")
        if sum(n * stored_as(kind).itemsize for kind, n in found.values()) > limit:
            raise ValueError("more numbers than the file can hold")
        if key not in blanks:
            blanks[key] = Storage(bytes(count * stored_as(dtype).itemsize), dtype, "<", count)
        return _view(blanks[key], pid)

    blanks: dict[str, Storage] = {}
    RestrictedUnpickler(handle, source, collect).load()
    blanks.clear()
    keys = _plain(handle, source)
    if not isinstance(keys, list) or sorted(keys) != sorted(found):
        raise ValueError("the list of storages differs from the tensors")
    storages = {key: _stored(handle, *found[key]) for key in keys}
    if handle.read(1):
        raise ValueError("more data than tensors")
    handle.seek(start)
    return RestrictedUnpickler(
        handle, source, lambda pid: _view(storages[_storage_id(pid)[1]], pid)
    ).load()


def _plain(handle: io.BytesIO, source: Path) -> Any:  # noqa: ANN401
    return RestrictedUnpickler(handle, source).load()


def _stored(handle: BinaryIO, dtype: str, count: int | None = None) -> Storage:
    """Read one storage of the two older formats: a count, which is checked, and the numbers."""
    (stored,) = struct.unpack("<q", handle.read(8))
    size = stored * stored_as(dtype).itemsize
    data = handle.read(size) if 0 <= stored < 1 << 48 else b""
    if len(data) != size or count not in (None, stored):
        raise ValueError("a storage is incomplete")
    return Storage(data, dtype, "<", stored)


def _view(storage: Storage, pid: tuple[Any, ...]) -> Storage:
    """Apply the view (key, offset, length) that the older format may name in a sixth element."""
    view = pid[5] if len(pid) > 5 else None
    return storage if view is None else _part(storage, *view[1:])


def _part(storage: Storage, offset: Any, length: Any) -> Storage:  # noqa: ANN401
    if sum(whole_numbers((offset, length))) > storage.array.size:
        raise ValueError("a view that reaches beyond its storage")
    part = Storage(b"", storage.dtype, "<", 0)
    part.array = storage.array[offset : offset + length]
    part.budget = storage.budget = storage.budget - length
    return part


def _load_tar(handle: BinaryIO, source: Path) -> Any:  # noqa: ANN401
    with tarfile.open(fileobj=handle, mode="r:") as archive:
        storages = _tar_storages(_member(archive, "storages", source), source)
        tensors = _tar_tensors(_member(archive, "tensors", source), storages, source)
        content = _member(archive, "pickle", source)

    def resolve(pid: Any) -> np.ndarray:  # noqa: ANN401
        if not isinstance(pid, (int, str)):
            raise ValueError("a reference that is no tensor")
        return tensors[int(pid)]

    return RestrictedUnpickler(content, source, resolve).load()


def _member(archive: tarfile.TarFile, name: str, source: Path) -> io.BytesIO:
    info = archive.getmember(name)
    stream = archive.extractfile(info) if info.isreg() and not info.issparse() else None
    if stream is None or info.size > source.stat().st_size:
        raise ValueError(f"the member {name} is no whole file")
    return io.BytesIO(stream.read())


def _tar_storages(handle: io.BytesIO, source: Path) -> dict[int, Storage]:
    storages: dict[int, Storage] = {}
    (count,) = whole_numbers([_plain(handle, source)])
    for _ in range(count):
        key, _place, token = _plain(handle, source)
        if not isinstance(token, Token) or not token.dtype or key in storages:
            raise ValueError("a storage of an unknown type")
        storages[key] = _stored(handle, token.dtype)
    for key, root, offset, length in _plain(handle, source):
        storages[key] = _part(storages[root], offset, length)
    return storages


def _tar_tensors(
    handle: io.BytesIO, storages: dict[int, Storage], source: Path
) -> dict[int, np.ndarray]:
    tensors: dict[int, np.ndarray] = {}
    (count,) = whole_numbers([_plain(handle, source)])
    for _ in range(count):
        key, storage, _type = _plain(handle, source)
        (dimensions,) = whole_numbers(struct.unpack("<i4x", handle.read(8)))
        content = handle.read(16 * dimensions + 8)
        numbers = struct.unpack(f"<{2 * dimensions + 1}q", content)
        size, stride, offset = numbers[:dimensions], numbers[dimensions:-1], numbers[-1]
        tensors[key] = rebuild_tensor(storages[storage], offset, size, stride)
    return tensors


def save_torch(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Write a `.pth` that `torch.load(path, weights_only=True)` reads (torch >= 1.6).

    Args:
        path: the file; written whole or not at all.
        content: text keys; values are arrays (they become tensors), whole numbers, text, or
            such mappings again.

    Raises:
        TypeError: a value of another kind.
    """
    target = Path(path)
    storages: list[np.ndarray] = []
    program = pickle.PROTO + b"\x02" + _encode(content, storages) + pickle.STOP
    folder = target.stem or "archive"
    with atomic_path(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as out:
        # ZipInfo's fixed date makes equal content give equal files.
        out.writestr(zipfile.ZipInfo(f"{folder}/data.pkl"), program)
        out.writestr(zipfile.ZipInfo(f"{folder}/byteorder"), b"little")
        for key, array in enumerate(storages):
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            out.writestr(zipfile.ZipInfo(f"{folder}/data/{key}"), little.tobytes())
        out.writestr(zipfile.ZipInfo(f"{folder}/version"), b"3\n")
    return target


def _encode(value: Any, storages: list[np.ndarray]) -> bytes:  # noqa: ANN401
    """Return the pickle opcodes that put a value on the stack; collect its storages."""
    if isinstance(value, (np.ndarray, np.generic)):
        storages.append(np.array(value, order="C"))
        return _encode_tensor(storages[-1], str(len(storages) - 1))
    if isinstance(value, str):
        text = value.encode("utf-8")
        return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    if type(value) is int:
        size = (value.bit_length() >> 3) + 1
        return pickle.LONG1 + bytes([size]) + value.to_bytes(size, "little", signed=True)
    if isinstance(value, tuple):
        return pickle.MARK + b"".join(_encode(item, storages) for item in value) + pickle.TUPLE
    if isinstance(value, Mapping):
        items = [_encode(key, storages) + _encode(item, storages) for key, item in value.items()]
        return pickle.EMPTY_DICT + pickle.MARK + b"".join(items) + pickle.SETITEMS
    raise TypeError(f"{type(value).__name__} has no place in a file of weights")


def _encode_tensor(array: np.ndarray, key: str) -> bytes:
    storage = _STORAGE_NAMES.get(array.dtype.name)
    if storage is None:
        raise TypeError(f"torch has no tensor of type {array.dtype}")
    plain: Callable[[Any], bytes] = lambda value: _encode(value, [])  # noqa: E731
    strides = tuple(step // array.itemsize for step in array.strides)
    parts = (
        _global("torch._utils", "_rebuild_tensor_v2"),
        pickle.MARK,
        *(pickle.MARK, plain("storage"), _global("torch", storage), plain(key), plain("cpu")),
        *(plain(array.size), pickle.TUPLE, pickle.BINPERSID),
        *(plain(0), plain(tuple(array.shape)), plain(strides), pickle.NEWFALSE),
        *(_global("collections", "OrderedDict"), pickle.EMPTY_TUPLE, pickle.REDUCE),
        *(pickle.TUPLE, pickle.REDUCE),
    )
    return b"".join(parts)


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode("ascii")
