# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Checkpoints: round trips, damage at every kind of place, kills between the writes, pruning."""

from __future__ import annotations

import json
import logging
import re
import shutil
import stat
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from src.model_utils.errors import InputError
from src.weights import checkpoint as ck
from src.weights import ckpt_format
from src.weights.ckpt_format import write_ckpt

INFO = {"class_names": ["cat", "dog"], "scale": 0.5}


def _params(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "backbone.res2.0.conv1.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "affine_rpn.bias": rng.normal(size=(1, 5, 1, 1)).astype(np.float32),
        "scalar": np.float32(2.5),
        "half": np.arange(3, dtype=np.float16),
        "count": np.arange(4, dtype=np.int64),
        "flag": np.array([True, False]),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4)).astype(np.float32)),
    }


def _state(seed=1):
    rng = np.random.default_rng(seed)
    return {
        "momentum/backbone.res2.0.conv1.weight": rng.normal(size=(4, 3, 3, 3)),
        "step": np.int64(7),
        "file": np.array("numpy.savez refuses this name"),
        "empty": np.zeros((0, 4), np.float32),
        "random": rng.integers(0, 2**63, 6, dtype=np.uint64),
    }


def _assert_same(actual, expected):
    assert set(actual) == set(expected)
    for name, array in expected.items():
        array = np.asarray(array)
        assert actual[name].dtype == array.dtype, name
        assert actual[name].shape == array.shape, name
        np.testing.assert_array_equal(actual[name], array)


def _save(folder, step, seed=0, **options):
    return ck.save_checkpoint(folder, step, _params(seed), _state(seed), INFO, **options)


def _flip(path: Path, position: int, bit: int = 3) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def test_round_trip(tmp_path):
    path = _save(tmp_path / "with a space", 12)
    assert path.name == "defrcn-12.ckpt"
    loaded = ck.load_training_checkpoint(path.parent)
    assert loaded.step == 12
    assert loaded.class_names == ("cat", "dog")
    assert loaded.info == {"scale": 0.5}
    _assert_same(loaded.params, _params())
    _assert_same(loaded.state, _state(0))
    _assert_same(ck.load_weights(path), _params())
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "defrcn-12.ckpt",
        "defrcn-12.json",
        "defrcn-12.state.npz",
    ]


def test_mindspore_reads_the_weights(tmp_path):
    path = _save(tmp_path, 1)
    loaded = ms.load_checkpoint(str(path), crc_check=True)
    np.testing.assert_array_equal(loaded["half"].asnumpy(), _params()["half"])
    # Not the 0400 that MindSpore gives its files.
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(
        path.with_suffix(".json").stat().st_mode
    )
    assert path.stat().st_mode & stat.S_IWUSR


def test_explicit_paths_and_empty_folders(tmp_path):
    path = _save(tmp_path, 3)
    assert ck.load_training_checkpoint(path).step == 3
    assert ck.load_training_checkpoint(path.with_suffix(".json")).step == 3
    assert ck.load_training_checkpoint(tmp_path / "absent") is None
    assert ck.find_latest(tmp_path / "absent") is None
    with pytest.raises(InputError, match=r"defrcn-4\.json"):
        ck.load_training_checkpoint(tmp_path / "defrcn-4.ckpt")


@pytest.mark.parametrize("suffix", [".ckpt", ".state.npz", ".json"])
def test_every_cut_and_flip_is_refused_by_name(tmp_path, suffix, caplog):
    _save(tmp_path, 1)
    _save(tmp_path, 2, seed=5)
    victim = tmp_path / f"defrcn-2{suffix}"
    whole = victim.read_bytes()
    size = len(whole)
    cuts = sorted({0, 1, 2, 16, 17, 18, size // 3, size // 2, size - 18, size - 17, size - 1})
    if suffix == ".json":
        cuts.remove(size - 1)  # the last byte of a manifest is only its line end
    for cut in cuts:
        victim.write_bytes(whole[:cut])
        caplog.clear()
        assert ck.load_training_checkpoint(tmp_path).step == 1
        assert f"defrcn-2{suffix}" in caplog.text
    rng = np.random.default_rng(0)
    for position in rng.integers(0, size, 40):
        victim.write_bytes(whole)
        _flip(victim, position, int(rng.integers(8)))
        with pytest.raises(InputError, match=f"defrcn-2{re.escape(suffix)}"):
            ck.load_training_checkpoint(tmp_path / "defrcn-2.ckpt")
        assert ck.find_latest(tmp_path).name == "defrcn-1.json"
    victim.unlink()
    assert ck.find_latest(tmp_path).name == "defrcn-1.json"
    victim.write_bytes(whole)
    assert ck.find_latest(tmp_path).name == "defrcn-2.json"


def test_nothing_intact_is_an_error_not_a_fresh_start(tmp_path):
    path = _save(tmp_path, 1)
    _flip(path, 100)
    assert ck.find_latest(tmp_path) is None
    with pytest.raises(InputError, match="none of the 1 checkpoints is intact"):
        ck.load_training_checkpoint(tmp_path)


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [2, 1], ids=["new step", "same step again"])
@pytest.mark.parametrize("moment", range(6))
def test_kill_during_a_save(tmp_path, monkeypatch, moment, step):
    """Stop at each of the save's renames, before and after: only whole checkpoints load."""
    _save(tmp_path, 0, seed=8)
    _save(tmp_path, 1, seed=9)
    calls = iter(range(100))

    def dying_replace(source, target):
        if next(calls) == moment:
            raise _Killed
        real_replace(source, target)
        if next(calls) == moment:
            raise _Killed

    real_replace = ck.os.replace
    monkeypatch.setattr("os.replace", dying_replace)
    with pytest.raises(_Killed):
        _save(tmp_path, step, seed=3)
    monkeypatch.undo()
    loaded = ck.load_training_checkpoint(tmp_path)
    # After the manifest's own rename (5) the new one counts; before it only intact older ones.
    seed = 3 if moment == 5 else 9 if step == 2 else 8
    _assert_same(loaded.params, _params(seed))
    _assert_same(loaded.state, _state(seed))
    _save(tmp_path, 4, seed=4)
    assert ck.load_training_checkpoint(tmp_path).step == 4


def test_leftovers_of_a_kill_inside_a_write_are_removed(tmp_path):
    leftover = tmp_path / ".defrcn-5.ckpt.abc123.tmp"
    leftover.write_bytes(b"half")
    _save(tmp_path, 6)
    assert not leftover.exists()


def test_pair_of_two_steps_is_refused(tmp_path):
    _save(tmp_path, 1)
    _save(tmp_path, 2, seed=5)
    shutil.copy(tmp_path / "defrcn-1.state.npz", tmp_path / "defrcn-2.state.npz")
    assert ck.find_latest(tmp_path).name == "defrcn-1.json"
    shutil.copy(tmp_path / "defrcn-1.json", tmp_path / "defrcn-9.json")
    with pytest.raises(InputError, match="renamed"):
        ck.verify(tmp_path / "defrcn-9.json")


def test_keep_last_prunes_by_order_of_saving(tmp_path):
    for step in (500, 600):
        _save(tmp_path, step)
    for step in (1, 2, 3):  # a run from the beginning in the same folder
        _save(tmp_path, step, keep_last=3)
    names = {path.name for path in tmp_path.iterdir()}
    assert {name for name in names if name.endswith(".ckpt")} == {
        "defrcn-1.ckpt",
        "defrcn-2.ckpt",
        "defrcn-3.ckpt",
    }
    assert len(names) == 9
    _save(tmp_path, 4, keep_last=1)
    assert ck.load_training_checkpoint(tmp_path).step == 4
    assert len(list(tmp_path.iterdir())) == 3


def test_latest_is_the_last_saved_not_the_highest_step(tmp_path):
    _save(tmp_path, 900)
    _save(tmp_path, 10)
    assert ck.find_latest(tmp_path).name == "defrcn-10.json"


def test_pruning_removes_the_manifest_first(tmp_path, monkeypatch):
    _save(tmp_path, 1)
    removed = []
    real = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda self, missing_ok=False: (removed.append(self.name), real(self, True))
    )
    _save(tmp_path, 2, keep_last=1)
    order = [name for name in removed if name.startswith("defrcn-1")]
    assert order[0] == "defrcn-1.json"
    assert len(order) == 3


def test_newer_format_version_is_named(tmp_path):
    manifest = _save(tmp_path, 1).with_suffix(".json")
    content = json.loads(manifest.read_text())
    content["format_version"] = 99
    content.pop("checksum")
    manifest.write_text(json.dumps({**content, "checksum": ck._checksum(content)}))
    with pytest.raises(InputError, match="version 99"):
        ck.verify(manifest)


def test_what_cannot_be_stored_fails_before_the_old_one_is_touched(tmp_path):
    _save(tmp_path, 1)
    with pytest.raises(ValueError, match="JSON"):
        ck.save_checkpoint(tmp_path, 1, _params(), _state(), {**INFO, "loss": float("nan")})
    assert ck.find_latest(tmp_path).name == "defrcn-1.json"
    with pytest.raises(ValueError, match="Object arrays"):
        ck.save_checkpoint(tmp_path, 2, _params(), {"bad": np.array([object()])}, INFO)
    with pytest.raises(ValueError, match="empty"):
        ck.save_checkpoint(tmp_path, 2, {"empty": np.zeros((0, 2))}, {}, INFO)
    assert ck.find_latest(tmp_path).name == "defrcn-1.json"
    assert {path.name for path in tmp_path.glob(".*")} == set()


def test_state_with_a_pickle_and_right_checksums_gives_way(tmp_path):
    _save(tmp_path, 1)
    state = _save(tmp_path, 2).with_name("defrcn-2.state.npz")
    np.savez(state, bad=np.array([{"a": 1}], dtype=object))
    manifest = tmp_path / "defrcn-2.json"
    content = {**json.loads(manifest.read_text()), "state": ck._describe(state)}
    content.pop("checksum")
    manifest.write_text(json.dumps({**content, "checksum": ck._checksum(content)}))
    assert ck.verify(manifest)["step"] == 2
    assert ck.load_training_checkpoint(tmp_path).step == 1


def test_state_with_a_pickle_inside_is_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", bad=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match=r"bad\.npz"):
        ck._read_arrays(tmp_path / "bad.npz")


# ---- plain weight files ----


@pytest.fixture
def plain(tmp_path):
    return write_ckpt(tmp_path / "plain.ckpt", _params())


def test_plain_weights_damaged(plain):
    whole = plain.read_bytes()
    size = len(whole)
    # A cut that removes exactly the CRC, or whole entries, leaves a valid file without CRC; the
    # strict list of names catches those, so they are not among the cuts here.
    for cut in (0, 1, 2, 10, size // 3, size // 2, size - 18, size - 16, size - 5, size - 1):
        plain.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"plain\.ckpt"):
            ck.load_weights(plain)
    rng = np.random.default_rng(1)
    for position in rng.integers(0, size - 17, 60):
        plain.write_bytes(whole)
        _flip(plain, position, int(rng.integers(8)))
        with pytest.raises(InputError, match=r"plain\.ckpt"):
            ck.load_weights(plain)


def test_garbage_never_crashes(tmp_path):
    path = tmp_path / "garbage.ckpt"
    rng = np.random.default_rng(2)
    for size in (1, 17, 100, 5000):
        path.write_bytes(rng.bytes(size))
        with pytest.raises(InputError, match=r"garbage\.ckpt"):
            ck.load_weights(path)


def test_files_without_crc_are_read_and_their_damage_is_no_crash(tmp_path, caplog):
    path = tmp_path / "foreign.ckpt"
    ms.save_checkpoint(
        [{"name": name, "data": ms.Tensor(np.array(value))} for name, value in _params().items()],
        str(path),
        append_dict={"note": "text", "epoch": 3},
    )
    path.chmod(0o644)
    caplog.set_level(logging.INFO)
    loaded = ck.load_weights(path)
    assert "no CRC" in caplog.text
    assert set(loaded) - set(_params()) == {"epoch"}
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        for bit in (0, 3, 7):
            path.write_bytes(whole)
            _flip(path, position, bit)
            try:
                ck.load_weights(path)
            except InputError as error:
                refused += 1
                assert "foreign.ckpt" in str(error)
    assert refused > 100  # the rest changed a number or a letter of a name


def test_reader_equals_mindspore(tmp_path):
    dtypes = "int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 bool"
    params = {name: np.arange(6).reshape(1, 2, 3).astype(name) for name in dtypes.split()}
    path = write_ckpt(tmp_path / "all.ckpt", params)
    loaded = ms.load_checkpoint(str(path))
    _assert_same(ck.load_weights(path), {k: v.asnumpy() for k, v in loaded.items()})
    _assert_same(ck.load_weights(path), params)


def test_tensor_in_several_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(ckpt_format, "SLICE_BYTES", 1024)
    array = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)
    path = write_ckpt(tmp_path / "pieces.ckpt", {"a": array[:1], "w": array, "z": array[1:]})
    assert path.read_bytes().count(b"Float32") > 6
    _assert_same(ck.load_weights(path), {"a": array[:1], "w": array, "z": array[1:]})


def test_bfloat16_comes_as_float32(tmp_path):
    path = tmp_path / "b.ckpt"
    ms.save_checkpoint([{"name": "w", "data": ms.Tensor([1.5, -2.0], ms.bfloat16)}], str(path))
    loaded = ck.load_weights(path)["w"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, [1.5, -2.0])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("a.pth", "pth2ckpt"), ("a.pkl", "pkl2ckpt"), ("a.onnx", "ckpt"), ("absent.ckpt", "no such")],
)
def test_wrong_kind_of_file(tmp_path, name, hint):
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=hint):
        ck.load_weights(tmp_path / name)


def test_weights_changed_beside_their_manifest_are_refused(tmp_path):
    path = _save(tmp_path, 1)
    write_ckpt(path, _params(4))
    with pytest.raises(InputError, match=r"defrcn-1\.ckpt is damaged"):
        ck.load_weights(path)
    path.with_suffix(".json").unlink()
    _assert_same(ck.load_weights(path), _params(4))


def test_older_port_is_refused_when_loaded(tmp_path):
    path = write_ckpt(
        tmp_path / "old.ckpt", {"rpn_with_loss.rpn_convs_list.0.rpn_conv.weight": np.ones(3)}
    )
    with pytest.raises(InputError, match="older MindSpore port.*background.*pth2ckpt"):
        ck.load_weights(path)
