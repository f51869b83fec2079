# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The restricted unpickler and torch's file formats, without torch.

`torch_files/torch_zip.pth` and `torch_legacy.pth` were written by torch 2.13.0 with its own two
serializers, `torch_expected.npz` holds the same tensors as numpy saw them there. No torch of
today writes the oldest format; `torch_tar.pth` was made by `fake_torch` and read by torch 2.13.0.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import tarfile
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest

from src.model_utils.errors import InputError
from src.weights.restricted_pickle import load_pickle, named_arrays
from src.weights.torch_file import load_torch, save_torch
from tests.helpers import fake_torch
from tests.helpers.fake_torch import Storage, Tensor, tensor

DATA = Path(__file__).parent / "torch_files"


def _same(actual, expected):
    expected = np.asarray(expected)
    assert isinstance(actual, (np.ndarray, np.generic))
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


# ---- arrays and containers ----

ARRAYS = {
    "f4": np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32),
    "f8": np.arange(3.0),
    "f2": np.arange(4, dtype=np.float16),
    "i8": np.arange(6).reshape(2, 3),
    "u1": np.arange(5, dtype=np.uint8),
    "big endian": np.arange(4, dtype=">f4"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12.0).reshape(3, 4)[:, ::2],
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "zero d": np.array(2.5),
    "text": np.array(["ab", "c"]),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers(tmp_path, protocol):
    content = {
        **ARRAYS,
        "list": [1, -2.5, None, True, "text", b"bytes", (1, (2,)), 2**70],
        "ordered": OrderedDict(a=1),
        "counter": Counter("aab"),
        "set": {1, 2},
        "frozen": frozenset([3]),
        "number": np.float64(1.5),
        "shared": [ARRAYS["f4"], ARRAYS["f4"]],
    }
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    loaded = load_pickle(path)
    for name, array in ARRAYS.items():
        _same(loaded[name], array.astype(array.dtype.newbyteorder("=")))
    assert loaded["list"] == content["list"]
    assert loaded["ordered"] == content["ordered"]
    assert loaded["counter"] == content["counter"]
    assert loaded["set"] == content["set"]
    assert loaded["frozen"] == content["frozen"]
    assert loaded["number"] == 1.5
    assert loaded["shared"][0] is loaded["shared"][1]


def test_newer_numpy_and_python_2_spellings(tmp_path):
    """numpy 2 says numpy._core; Python 2 stores bytes as text, read as latin1."""
    array = np.arange(250, 258, dtype=np.float32)
    newer = pickle.dumps(array, 0).replace(b"numpy.core.", b"numpy._core.")
    (tmp_path / "a.pkl").write_bytes(newer)
    _same(load_pickle(tmp_path / "a.pkl"), array)
    raw = array.tobytes()
    program = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x08\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(raw).to_bytes(4, "little")
        + raw
        + b"tb."
    )
    (tmp_path / "b.pkl").write_bytes(program)
    _same(load_pickle(tmp_path / "b.pkl"), array)


# ---- refusals ----


class _Call:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {marker}",), "system"),
        (eval, ("open({marker!r}, 'w')",), "eval"),
        (exec, ("open({marker!r}, 'w')",), "exec"),
        (open, ("{marker}", "w"), "open"),
        (getattr, ("a", "upper"), "getattr"),
        (__import__, ("antigravity",), "__import__"),
        (np.load, ("{marker}",), "load"),
        (np.fromfile, ("{marker}",), "fromfile"),
        (Path, ("{marker}",), "Path"),
        (bytearray, (10,), "bytearray"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("form", ["pkl", "zip", "legacy"])
def test_calls_are_refused_by_name(tmp_path, function, arguments, name, protocol, form):
    marker = str(tmp_path / "marker")
    arguments = tuple(
        part.format(marker=marker) if isinstance(part, str) else part for part in arguments
    )
    content = {"model": {"w": np.zeros(3)}, "extra": [_Call(function, *arguments)]}
    path = tmp_path / "evil.bin"
    with pytest.raises(InputError, match=rf"evil\.bin asks to load '[\w.]*{name}'"):
        if form == "pkl":
            path.write_bytes(pickle.dumps(content, protocol))
            load_pickle(path)
        elif form == "zip":
            fake_torch.save_zip(path, content, protocol=protocol)
            load_torch(path)
        else:
            fake_torch.save_legacy(path, content, protocol=protocol)
            load_torch(path)
    assert not os.path.exists(marker)


class _Plain:
    """An ordinary class, even without a call."""


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_of_classes_are_refused(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([_Plain()], protocol))
    with pytest.raises(InputError, match="refused"):
        load_pickle(path)


@pytest.mark.parametrize(
    "program",
    [
        b"(cos\nsystem\nX\x02\x00\x00\x00lso.",  # OBJ
        b"(X\x02\x00\x00\x00lsios\nsystem\n.",  # INST
        b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x08set.copy\x93.",  # attribute of a permitted class
        b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x01x\x85R.",
        b"\x80\x02cnumpy.core.multiarray\nfromfile\n)R.",
    ],
)
def test_raw_programs_are_refused_by_name(tmp_path, program):
    path = tmp_path / "raw.pkl"
    path.write_bytes(program)
    with pytest.raises(InputError, match="asks to load"):
        load_pickle(path)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02]X\x01\x00\x00\x00aR.",  # call of a list
        b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",  # call of a name that only stands for a type
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",  # attributes for a class
        b"\x80\x02X\x01\x00\x00\x00aQ.",  # persistent id in a plain pickle
        b"\x80\x02cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R.",
        b"\x80\x02cnumpy\ndtype\nU\x05f4,O8K\x00K\x01\x87R.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        b"\x80\x02]" + b"a" * 50 + b".",
        b"h\x05.",
        b"",
        b"\x80\x09.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # 2^63 bytes announced
        b"PK\x03\x04 not a zip",
    ],
)
def test_nonsense_is_an_error_not_a_crash(tmp_path, program):
    path = tmp_path / "raw.pkl"
    path.write_bytes(program)
    # A lone dtype is inert; within an array it must be refused.
    if b"O8" in program:
        state = b"(K\x01K\x01\x85" + program[2:-1] + b"\x89U\x08" + b"A" * 8 + b"tb."
        head = (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        )
        path.write_bytes(head + state)
    with pytest.raises(InputError, match=r"raw\.pkl"):
        load_pickle(path)
    with pytest.raises(InputError, match=r"raw\.pkl"):
        load_torch(path)


@pytest.mark.parametrize(
    "array",
    [np.array([{}], dtype=object), np.zeros(2, [("a", "f4")]), np.array(["2020"], "M8[D]")],
)
def test_arrays_that_are_no_numbers_are_refused(tmp_path, array):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(array))
    with pytest.raises(InputError, match=r"a\.pkl"):
        load_pickle(path)


# ---- files written by torch itself ----


@pytest.fixture(scope="module")
def expected():
    with np.load(DATA / "torch_expected.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("name", ["torch_zip.pth", "torch_legacy.pth"])
def test_files_of_real_torch(name, expected):
    loaded = load_torch(DATA / name)
    assert len(expected) == 25
    for key, array in expected.items():
        group, _, entry = key.partition("/")
        _same(loaded[group][entry], array)
        assert loaded[group][entry].flags.owndata or loaded[group][entry].base is not None
    assert loaded["iteration"] == 12
    assert loaded["scheduler"]["counter"] == Counter([1, 1, 2])
    _same(loaded["np"], np.arange(3.0))
    assert loaded["size"] == (1, 2)


@pytest.mark.parametrize("name", ["torch_zip.pth", "torch_legacy.pth"])
def test_damage_of_real_files(tmp_path, name, expected):
    whole = (DATA / name).read_bytes()
    path = tmp_path / "cut.pth"
    for cut in range(0, len(whole), 13):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"cut\.pth"):
            load_torch(path)
    rng = np.random.default_rng(0)
    unnoticed = 0
    for position in rng.integers(0, len(whole), 400):
        data = bytearray(whole)
        data[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            loaded = load_torch(path)
        except InputError as error:
            assert "cut.pth" in str(error)
        else:
            unnoticed += 1
            if name == "torch_zip.pth":  # its CRC leaves only padding and file headers
                for key, array in expected.items():
                    group, _, entry = key.partition("/")
                    _same(loaded[group][entry], array)
    assert unnoticed < 400


def test_what_we_write_is_what_real_torch_reads(tmp_path, expected):
    """The bytes of `save_torch` are fixed: torch 2.13.0 was seen to read exactly these."""
    path = save_torch(tmp_path / "out.pth", {"model": expected, "iteration": 3})
    loaded = load_torch(path)
    for key, array in expected.items():
        _same(loaded["model"][key], array)
    assert loaded["iteration"] == 3
    again = save_torch(tmp_path / "again" / "out.pth", {"model": expected, "iteration": 3})
    assert again.read_bytes() == path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[:2] == ["out/data.pkl", "out/byteorder"]
        program = archive.read("out/data.pkl")
    names = {
        argument
        for opcode, argument, _ in pickletools.genops(program)
        if opcode.name == "GLOBAL" and "Storage" not in argument
    }
    assert names == {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"}


def test_values_without_a_place_are_refused(tmp_path):
    for value in (1.5, [1], np.zeros(2, complex)):
        with pytest.raises(TypeError):
            save_torch(tmp_path / "a.pth", {"a": value})
    assert list(tmp_path.iterdir()) == []


# ---- layouts made by hand ----

SAVERS = pytest.mark.parametrize("save", [fake_torch.save_zip, fake_torch.save_legacy])


@SAVERS
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_strides_offsets_and_shared_storages(tmp_path, save, protocol):
    flat = np.arange(20, dtype=np.float32)
    storage = Storage("0", flat)
    content = {
        "plain": Tensor(storage, 0, (4, 5), (5, 1)),
        "transposed": Tensor(storage, 0, (5, 4), (1, 5)),
        "part": Tensor(storage, 6, (2, 3), (5, 1)),
        "scalar": Tensor(storage, 19, (), ()),
        "expanded": Tensor(storage, 3, (2, 3), (0, 0)),
        "empty": Tensor(storage, 20, (0, 7), (7, 1)),
        "half": tensor("1", np.arange(3, dtype=np.float16)),
        "bfloat16": tensor("2", np.array([0x3FC0, 0xC000], np.uint16), kind="bfloat16"),
        "flag": tensor("3", np.array([0, 1, 2], np.uint8), kind="bool"),
        "count": tensor("4", np.int64(-9)),
        "byte": tensor("5", np.arange(250, 256, dtype=np.uint8)),
    }
    save(tmp_path / "a.pth", content, protocol=protocol)
    loaded = load_torch(tmp_path / "a.pth")
    matrix = flat.reshape(4, 5)
    _same(loaded["plain"], matrix)
    _same(loaded["transposed"], matrix.T)
    _same(loaded["part"], matrix[1:3, 1:4])
    _same(loaded["scalar"], np.float32(19))
    _same(loaded["expanded"], np.full((2, 3), 3, np.float32))
    _same(loaded["empty"], np.zeros((0, 7), np.float32))
    _same(loaded["half"], np.arange(3, dtype=np.float16))
    _same(loaded["bfloat16"], np.array([1.5, -2.0], np.float32))
    _same(loaded["flag"], np.array([False, True, True]))
    _same(loaded["count"], np.int64(-9))
    _same(loaded["byte"], np.arange(250, 256, dtype=np.uint8))
    assert all(array.flags.writeable and array.flags.c_contiguous for array in loaded.values())


@pytest.mark.parametrize("order", [None, "little", "big"])
def test_byte_orders(tmp_path, order):
    array = np.arange(1, 5, dtype=np.float32)
    bits = np.array([0x3FC0], np.uint16)
    content = {"w": tensor("0", array), "b": tensor("1", bits, kind="bfloat16")}
    fake_torch.save_zip(tmp_path / "a.pth", content, order=order)
    loaded = load_torch(tmp_path / "a.pth")
    _same(loaded["w"], array)
    _same(loaded["b"], np.array([1.5], np.float32))


def test_legacy_view_of_a_storage(tmp_path):
    storage = Storage("0", np.arange(10.0), view=("1", 4, 3))
    fake_torch.save_legacy(tmp_path / "a.pth", {"w": Tensor(storage, 1, (2,), (1,))})
    _same(load_torch(tmp_path / "a.pth")["w"], np.array([5.0, 6.0]))
    storage = Storage("0", np.arange(10.0), view=("1", 4, 7))
    fake_torch.save_legacy(tmp_path / "a.pth", {"w": Tensor(storage, 1, (2,), (1,))})
    with pytest.raises(InputError, match="view"):
        load_torch(tmp_path / "a.pth")


@SAVERS
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 3), (2, 1)),
        (0, (2,), (4,)),
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (0, (1,), (-1,)),
        (5, (0,), (1,)),
        (0, (2, 2), (1,)),
        (0, (1 << 40,), (0,)),
        (0, (1 << 50,), (0,)),
        (0, (1 << 30, 1 << 30, 1 << 30), (0, 0, 0)),
        (0, (1.0,), (1,)),
        (0, (True,), (1,)),
        (0, (1,) * 33, (1,) * 33),
        (0, None, None),
    ],
)
def test_impossible_tensors(tmp_path, save, offset, size, stride):
    made = Tensor(Storage("0", np.zeros(4, np.float32)), offset, size, stride)
    made.size, made.stride = size, stride
    save(tmp_path / "a.pth", {"w": made})
    with pytest.raises(InputError, match=r"a\.pth"):
        load_torch(tmp_path / "a.pth")


@SAVERS
@pytest.mark.parametrize("count", [3, 5, 0, -1, 1 << 40, 1 << 60])
def test_impossible_storages(tmp_path, save, count):
    made = Tensor(Storage("0", np.zeros(4, np.float32), count=count), 0, (0,), (1,))
    save(tmp_path / "a.pth", {"w": made})
    with pytest.raises(InputError, match=r"a\.pth"):
        load_torch(tmp_path / "a.pth")


def test_reusing_one_storage_without_end_is_refused(tmp_path):
    storage = Storage("0", np.zeros(100_000, np.float32))
    many = [Tensor(storage) for _ in range(200)]
    for save in (fake_torch.save_zip, fake_torch.save_legacy):
        save(tmp_path / "a.pth", {"w": many})
        with pytest.raises(InputError, match="larger than their storage"):
            load_torch(tmp_path / "a.pth")


# ---- the oldest format, a tar archive ----

TAR_ARRAYS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn1.running_mean": np.float32([5, 6]),
    "fc.bias": np.arange(3.0),
    "scalar": np.int64(4),
}


def _tar_content(form="state"):
    tensors = {name: tensor(str(i), array) for i, (name, array) in enumerate(TAR_ARRAYS.items())}
    content = OrderedDict(
        (name, fake_torch.Parameter(item, form) if "." in name and "running" not in name else item)
        for name, item in tensors.items()
    )
    return content, list(tensors.values())


@pytest.mark.parametrize("form", ["state", "new", "call"])
@pytest.mark.parametrize("protocol", [1, 2])
def test_tar_of_torch_0_1(tmp_path, form, protocol):
    content, tensors = _tar_content(form)
    fake_torch.save_tar(tmp_path / "a.pth", content, tensors, protocol=protocol)
    loaded = named_arrays(load_torch(tmp_path / "a.pth"), "a.pth")
    assert list(loaded) == list(TAR_ARRAYS)
    for name, array in TAR_ARRAYS.items():
        _same(loaded[name], array)


def test_tar_fixture():
    """This very file was read by torch 2.13.0 with the same result."""
    loaded = named_arrays(load_torch(DATA / "torch_tar.pth"), "a.pth")
    for name, array in TAR_ARRAYS.items():
        _same(loaded[name], array)


def test_tar_with_a_view_of_a_storage(tmp_path):
    item = tensor("0", np.arange(10.0))
    item.size, item.stride, item.offset = (2, 2), (1, 2), 1
    fake_torch.save_tar(tmp_path / "a.pth", {"w": item}, [item], views=[(7, 1000, 3, 5)])
    _same(load_torch(tmp_path / "a.pth")["w"], np.array([[4.0, 6.0], [5.0, 7.0]]))
    for view in ((7, 1000, 6, 5), (7, 1000, -1, 5), (7, 999, 0, 5), (7, 1000, 0, 3)):
        fake_torch.save_tar(tmp_path / "a.pth", {"w": item}, [item], views=[view])
        with pytest.raises(InputError, match=r"a\.pth"):
            load_torch(tmp_path / "a.pth")


def test_damage_of_tar_files(tmp_path):
    path = tmp_path / "cut.pth"
    whole = (DATA / "torch_tar.pth").read_bytes()
    end = whole.rindex(b"u.") + 2  # after it only padding
    for cut in range(0, end, 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"cut\.pth"):
            load_torch(path)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, end, 400):
        data = bytearray(whole)
        data[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            load_torch(path)
        except InputError as error:
            assert "cut.pth" in str(error)
    content, tensors = _tar_content()
    for options in ({"omit": ["tensors"]}, {"omit": ["pickle"]}, {"kind": tarfile.SYMTYPE}):
        fake_torch.save_tar(path, content, tensors, **options)
        with pytest.raises(InputError, match=r"cut\.pth"):
            load_torch(path)


def test_tar_refuses_calls(tmp_path):
    content = {"w": _Call(os.system, "true")}
    fake_torch.save_tar(tmp_path / "evil.pth", content, [])
    with pytest.raises(InputError, match=r"evil\.pth asks to load '\w+\.system'"):
        load_torch(tmp_path / "evil.pth")


def test_legacy_lists_that_lie(tmp_path):
    content = {"a": tensor("0", np.zeros(3)), "b": tensor("1", np.zeros(2))}
    path = tmp_path / "a.pth"
    for options in ({"keys": ["0"]}, {"keys": ["0", "1", "1"]}, {"keys": 5}, {"counts": {"1": 9}}):
        fake_torch.save_legacy(path, content, **options)
        with pytest.raises(InputError, match=r"a\.pth"):
            load_torch(path)
    fake_torch.save_legacy(path, content)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match="more data"):
        load_torch(path)


def test_zip_archives_that_lie(tmp_path):
    content = {"a": tensor("0", np.zeros(300, np.float32))}
    path = tmp_path / "a.pth"
    fake_torch.save_zip(path, content, compress=True)
    with pytest.raises(InputError, match="compressed"):
        load_torch(path)
    fake_torch.save_zip(path, content, extra=["constants.pkl"])
    with pytest.raises(InputError, match="TorchScript"):
        load_torch(path)
    fake_torch.save_zip(path, content, order="middle")
    with pytest.raises(InputError, match=r"a\.pth"):
        load_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("something/else.txt", "x")
    with pytest.raises(InputError, match="layout"):
        load_torch(path)


def test_unknown_storage_types_are_refused_by_name(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02ctorch\nQInt8Storage\n.")
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="torch.QInt8Storage"):
        load_torch(tmp_path / "a.pth")


def test_missing_files():
    for load in (load_pickle, load_torch):
        with pytest.raises(InputError, match="cannot be read"):
            load("/nowhere/a.pth")


def test_named_arrays():
    _same(named_arrays({"a": np.float32(1)}, "f")["a"], np.float32(1))
    for content in ([1], {}, None, {"a": 1}, {1: np.zeros(2)}):
        with pytest.raises(InputError, match="^f"):
            named_arrays(content, "f")
