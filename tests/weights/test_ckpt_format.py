# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The `.ckpt` format: the bytes that MindSpore itself writes, read back."""

import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest

from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.weights import ckpt_format
from src.weights.ckpt_format import read_ckpt, write_ckpt

PROJECT = project_folder()


def params():
    rng = np.random.default_rng(0)
    kinds = "int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 bool".split()
    found = {f"of.{kind}": rng.integers(0, 2, (3, 50, 2)).astype(kind) for kind in kinds}
    found["scalar"] = np.float32(2.5)
    found["fortran"] = np.asfortranarray(rng.normal(size=(3, 400)).astype(np.float32))
    found["reversed"] = rng.normal(size=300)[::-1]
    return found


def theirs(path, arrays):
    rows = [{"name": n, "data": ms.Tensor(np.array(a, order="C"))} for n, a in arrays.items()]
    ms.save_checkpoint(rows, str(path), crc_check=True)
    return path


def test_bytes_are_mindspores(tmp_path):
    mine = write_ckpt(tmp_path / "mine.ckpt", params())
    assert mine.read_bytes() == theirs(tmp_path / "theirs.ckpt", params()).read_bytes()
    loaded = ms.load_checkpoint(str(mine), crc_check=True)
    for name, array in params().items():
        np.testing.assert_array_equal(loaded[name].asnumpy(), array)


def test_bytes_of_a_long_array_are_mindspores(tmp_path, monkeypatch):
    from mindspore.train import serialization

    monkeypatch.setattr(serialization, "SLICE_SIZE", 1)  # KiB
    monkeypatch.setattr(ckpt_format, "SLICE_BYTES", 1024)
    arrays = {"long": np.arange(1000, dtype=np.float32).reshape(20, 50), "next": np.ones(2)}
    mine = write_ckpt(tmp_path / "mine.ckpt", arrays)
    assert mine.read_bytes() == theirs(tmp_path / "theirs.ckpt", arrays).read_bytes()
    read, has_crc = read_ckpt(mine)
    assert has_crc
    np.testing.assert_array_equal(read["long"], arrays["long"])


def test_big_endian_arrays_become_little_endian(tmp_path):
    path = write_ckpt(tmp_path / "a.ckpt", {"a": np.arange(5, dtype=">f4")})
    np.testing.assert_array_equal(read_ckpt(path)[0]["a"], np.arange(5, dtype=np.float32))


@pytest.mark.parametrize("arrays", [{}, {"a": np.zeros((0, 4))}, {"a": np.array(["text"])}])
def test_what_cannot_be_written(tmp_path, arrays):
    with pytest.raises(ValueError):
        write_ckpt(tmp_path / "a.ckpt", arrays)
    assert not list(tmp_path.iterdir())


def test_the_name_says_what_it_is(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.ckpt"):
        write_ckpt(tmp_path / "a.bin", {"a": np.ones(1)})


def test_writing_needs_no_mindspore():
    code = "import sys, src.weights.checkpoint; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0
