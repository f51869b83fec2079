# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Writes torch's two file formats with the standard library, for tests without torch."""

from __future__ import annotations

import contextlib
import copyreg
import io
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict
from unittest import mock

import numpy as np

STORAGE_OF = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "bfloat16": "BFloat16Storage",
}


class Storage:
    """Flat numbers under a key; `kind` overrides the type's name (bfloat16 has none in numpy)."""

    def __init__(self, key, array, kind=None, count=None, view=None):
        self.key, self.array, self.view = key, np.asarray(array).reshape(-1), view
        self.kind = kind or self.array.dtype.name
        self.count = self.array.size if count is None else count


class Tensor:
    """What `_rebuild_tensor_v2` is called with."""

    def __init__(self, storage, offset=0, size=None, stride=None):
        self.storage, self.offset = storage, offset
        self.size = (storage.array.size,) if size is None else size
        self.stride = (1,) if stride is None else stride


def tensor(key, array, **options):
    """A contiguous tensor with a storage of its own."""
    array = np.asarray(array)
    strides = np.empty(array.shape, np.uint8).strides
    return Tensor(Storage(key, array, **options), 0, array.shape, strides)


@contextlib.contextmanager
def _torch_modules():
    """Stand-ins for the names that pickle must be able to import while it writes."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGE_OF.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise AssertionError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        yield torch, utils


def _dump(obj, protocol, legacy, storages):
    with _torch_modules() as (torch, utils):

        class Pickler(pickle.Pickler):
            def persistent_id(self, value):
                if not isinstance(value, Storage):
                    return None
                storages[value.key] = value
                cls = getattr(torch, STORAGE_OF[value.kind])
                pid = ("storage", cls, value.key, "cpu", value.count)
                return (*pid, value.view) if legacy else pid

            def reducer_override(self, value):
                if not isinstance(value, Tensor):
                    return NotImplemented
                arguments = (value.storage, value.offset, value.size, value.stride)
                return utils._rebuild_tensor_v2, (*arguments, False, OrderedDict())

        buffer = io.BytesIO()
        Pickler(buffer, protocol).dump(obj)
    return buffer.getvalue()


def _raw(storage, order="<"):
    return storage.array.astype(storage.array.dtype.newbyteorder(order)).tobytes()


def save_zip(path, obj, *, protocol=2, order=None, folder="archive", compress=False, extra=()):
    """The format of torch >= 1.6; `order` adds the member that names the byte order."""
    storages = {}
    program = _dump(obj, protocol, False, storages)
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr(f"{folder}/data.pkl", program)
        if order:
            archive.writestr(f"{folder}/byteorder", order)
        for key, storage in storages.items():
            archive.writestr(f"{folder}/data/{key}", _raw(storage, ">" if order == "big" else "<"))
        archive.writestr(f"{folder}/version", "3\n")
        for name in extra:
            archive.writestr(f"{folder}/{name}", b"x")


def save_legacy(path, obj, *, protocol=2, keys=None, counts=None):
    """The format before 1.6; `keys` and `counts` falsify the list and the stored sizes."""
    storages = {}
    program = _dump(obj, protocol, True, storages)
    with open(path, "wb") as handle:
        info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
        for value in (0x1950A86A20F9469CFC6C, 1001, info):
            pickle.dump(value, handle, protocol=2)
        handle.write(program)
        order = sorted(storages)
        pickle.dump(order if keys is None else keys, handle, protocol=2)
        for key in order:
            count = (counts or {}).get(key, storages[key].array.size)
            handle.write(struct.pack("<q", count) + _raw(storages[key]))


class Parameter:
    """Becomes a `torch.nn.parameter.Parameter`; `form` is one of the ways torch 0.1 wrote it."""

    __module__ = "torch.nn.parameter"  # where pickle will say that it comes from

    def __init__(self, data, form="state"):
        self.data, self.form = data, form


def _program(value, forms, protocol):
    """The `pickle` member: tensors by key, parameters as objects."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch.nn", "torch.nn.parameter")}
    modules["torch.nn.parameter"].Parameter = Parameter

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return forms(value.storage.key) if isinstance(value, Tensor) else None

        def reducer_override(self, value):
            if not isinstance(value, Parameter):
                return NotImplemented
            flags = (True, False, OrderedDict())
            if value.form == "call":
                return Parameter, (value.data,), flags
            if value.form == "new":
                return copyreg.__newobj__, (Parameter, value.data), flags
            return copyreg.__newobj__, (Parameter,), (value.data, None, OrderedDict(), True, False)

    buffer = io.BytesIO()
    with mock.patch.dict(sys.modules, modules):
        Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def save_tar(path, obj, tensors, *, protocol=2, views=(), omit=(), kind=tarfile.REGTYPE):
    """The format of torch 0.1: `tensors` are those that occur in `obj`, keys are numbers."""
    storages, metadata = io.BytesIO(), io.BytesIO()
    with _torch_modules() as (torch, _):
        pickle.dump(len(tensors), storages, protocol)
        pickle.dump(len(tensors), metadata, protocol)
        for item in tensors:
            cls = getattr(torch, STORAGE_OF[item.storage.kind])
            pickle.dump((int(item.storage.key) + 1000, "cpu", cls), storages, protocol)
            storages.write(struct.pack("<q", item.storage.count) + _raw(item.storage))
            root = int(item.storage.key) + 1000
            for target, other, _offset, _length in views:
                root = target if other == root else root
            pickle.dump((int(item.storage.key), root, cls), metadata, protocol)
            numbers = (len(item.size), *item.size, *item.stride, item.offset)
            metadata.write(struct.pack(f"<i4x{len(numbers) - 1}q", *numbers))
        pickle.dump(list(views), storages, protocol)
    members = {
        "storages": storages.getvalue(),
        "tensors": metadata.getvalue(),
        "pickle": _program(obj, str, protocol),
    }
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            if name not in omit:
                info = tarfile.TarInfo(name)
                info.size, info.type = len(data), kind
                archive.addfile(info, io.BytesIO(data))
