# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Hostile and broken weights, checkpoints, MindRecord and results, handed to the entry points.

As in `test_hostile_data`: one sentence, exit code 1, nothing run, within limits.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import eval as eval_entry
import train
from src import model_surgery, pkl2ckpt, pth2ckpt
from src.assembly import training as assembly
from src.dataset import TrainLoader, build_mindrecord
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.tools import report
from src.weights.checkpoint import _checksum, save_checkpoint
from src.weights.ckpt_format import write_ckpt
from src.weights.initialise import initialise
from tests.helpers import fake_torch
from tests.helpers.data_helpers import picture_records
from tests.helpers.hostile import cut, flip, refuse, time_limit, toy  # noqa: F401 - fixtures

NAMES = ["cross", "ring"]
NOT_MADE = ("**/metrics.json",)  # beside the damaged checkpoints that the tests make


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    """Weights that fit the configuration of `toy`."""
    from tests.helpers.data_helpers import coco_tree
    from tests.helpers.hostile import write_config

    root = tmp_path_factory.mktemp("net")
    coco_tree(root)
    net = assembly.make_detector(load_config(write_config(root)), tuple(NAMES))
    initialise(net, 0)
    return {p.name: p.asnumpy() for p in net.get_parameters()}


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGE = {
    "zero bytes": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"\x0a"),
    **{
        f"cut at {share}": (lambda path, s=share: cut(path, s)) for share in (0.1, 0.5, 0.9, 0.9999)
    },
    **{f"bit flipped at {p}": (lambda path, p=p: flip(path, p)) for p in (0, 9, 5000, -1, -12)},
    "zeros": zeros,
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "a ZIP archive": lambda path: zipfile.ZipFile(path, "w").writestr("a", "b"),
}


@pytest.mark.parametrize("breaking", DAMAGE.values(), ids=DAMAGE)
def test_weights_to_start_from(toy, refuse, params, breaking):  # noqa: F811
    path = write_ckpt(toy / "base.ckpt", params)
    breaking(path)
    flags = f"--config_path={toy / 'tiny.yaml'}", f"--model_pretrained_path={path}"
    assert "base.ckpt" in refuse(train.main, *flags, left=NOT_MADE)
    flags = f"--config_path={toy / 'tiny.yaml'}", f"--eval_checkpoint_path={path}"
    assert "base.ckpt" in refuse(eval_entry.main, *flags, left=NOT_MADE)


def without(params, name):
    return {key: value for key, value in params.items() if key != name}


UNFIT = {
    "a name missing": lambda p: without(p, "affine_rpn.bias"),
    "a name too many": lambda p: {**p, "extra.weight": np.ones(3, np.float32)},
    "another shape": lambda p: {**p, "affine_rpn.bias": np.ones((1, 3, 1, 1), np.float32)},
    "a huge name": lambda p: {**p, "x" * 100_000: np.ones(1, np.float32)},
    "other numbers": lambda p: {"a": np.ones(3, np.float32)},
}


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT)
def test_weights_of_another_network(toy, refuse, params, change):  # noqa: F811
    path = write_ckpt(toy / "base.ckpt", change(params))
    flags = f"--config_path={toy / 'tiny.yaml'}", f"--model_pretrained_path={path}"
    told = refuse(train.main, *flags, left=NOT_MADE)
    assert "base.ckpt" in told and len(told) < 3000


PARTS = (".ckpt", ".state.npz", ".json")


def saved(root: Path, params, step: int) -> Path:
    state = {"seed": np.array(0), "world_size": np.array(1), "seconds": np.array(1.0)}
    return save_checkpoint(root / "run" / "ckpt_0", step, params, state, {"class_names": NAMES})


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_nothing_intact_to_resume(toy, refuse, params, part, share):  # noqa: F811
    path = saved(toy, params, 7)
    victim = path.with_name(f"defrcn-7{part}")
    cut(victim, share if part != ".json" else min(share, 0.99))
    told = refuse(train.main, f"--config_path={toy / 'tiny.yaml'}", "--resume=true", left=NOT_MADE)
    assert "ckpt_0: none of the 1 checkpoints is intact" in told


def test_a_state_that_holds_a_pickle(toy, refuse, params):  # noqa: F811
    """Even if its checksums are right."""
    path = saved(toy, params, 7)
    state = path.with_name("defrcn-7.state.npz")
    np.savez(state, seed=np.array([_Call()], dtype=object))
    manifest = path.with_suffix(".json")
    content = json.loads(manifest.read_text())
    content.pop("checksum")
    from src.weights.checkpoint import _describe

    content["state"] = _describe(state)
    manifest.write_text(json.dumps({**content, "checksum": _checksum(content)}))
    flags = f"--config_path={toy / 'tiny.yaml'}", "--resume=true"
    assert "none of the 1 checkpoints" in refuse(train.main, *flags, left=NOT_MADE)


class _Call:
    def __reduce__(self):
        return os.system, ("touch owned",)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": {"w": np.zeros(3), "x": _Call()}}))


def text(content: bytes):
    return lambda path: path.write_bytes(content)


def zipped(path: Path) -> None:
    fake_torch.save_zip(path, {"model": {"x": _Call()}})


def legacy(path: Path) -> None:
    fake_torch.save_legacy(path, {"model": {"x": _Call()}})


def bomb(path: Path) -> None:
    """A pickle of some kB whose one list would hold 10^9 entries."""
    nested = b"\x80\x04]\x94" + b"".join(
        b"]\x94(" + f"h{chr(n)}".encode("latin1") * 10 + b"e" for n in range(9)
    )
    path.write_bytes(nested + b".")


def promised(path: Path) -> None:
    """A pickle that announces 2^62 bytes."""
    path.write_bytes(b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"abc.")


def inflating(path: Path) -> None:
    """A ZIP whose entry unfolds to 1 GB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        with out.open("archive/data.pkl", "w", force_zip64=True) as entry:
            for _ in range(64):
                entry.write(bytes(1 << 24))


def cut_zip(path: Path) -> None:
    fake_torch.save_zip(path, {"model": {"w": fake_torch.tensor("0", np.zeros(99, np.float32))}})
    cut(path, 0.6)


FOREIGN = {
    "a pickle that calls": pickled,
    "a ZIP that calls": zipped,
    "an old file that calls": legacy,
    "a pickle that announces too much": promised,
    "a ZIP that unfolds": inflating,
    "a ZIP cut": cut_zip,
    "zero bytes": text(b""),
    "zeros": text(bytes(4096)),
    "HTML": text(b"<html>404</html>"),
    "a list that holds itself": text(b"\x80\x04]\x94h\x00a."),
    "lists of lists of lists": bomb,
    "deeply nested": text(b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b"."),
    "a stack that is empty": text(b"\x80\x04R."),
    "no end": text(b"\x80\x04}"),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("kind", ["pkl", "pth"])
def test_weights_of_others(toy, refuse, make, kind):  # noqa: F811
    path = toy / f"weights.{kind}"
    make(path)
    main = pkl2ckpt.main if kind == "pkl" else pth2ckpt.main
    told = refuse(main, "--input", path, "--output", toy / "out.ckpt")
    assert f"weights.{kind}" in told and len(told) < 2000, told


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("/dev/zero")])
@pytest.mark.parametrize("kind", ["pkl", "pth", "ckpt"])
def test_weights_that_are_no_file(toy, refuse, make, kind):  # noqa: F811
    path = toy / f"weights.{kind}"
    make(path)
    if kind == "ckpt":
        flags = f"--config_path={toy / 'tiny.yaml'}", f"--model_pretrained_path={path}"
        assert "weights.ckpt" in refuse(train.main, *flags, left=NOT_MADE)
    else:
        main = pkl2ckpt.main if kind == "pkl" else pth2ckpt.main
        told = refuse(main, "--input", path, "--output", toy / "out.ckpt")
        assert f"weights.{kind}" in told


def test_surgery_of_a_cut_checkpoint(toy, refuse, params):  # noqa: F811
    path = write_ckpt(toy / "base.ckpt", params)
    cut(path, 0.5)
    flags = "--dataset", "coco", "--method", "remove", "--src-path", path, "--save-dir", toy / "out"
    assert "base.ckpt" in refuse(model_surgery.main, *flags, left=("out/*.ckpt",))


def row(**values):
    good = {"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5}
    return json.dumps([{**good, **values}]).encode()


RESULTS = {
    "zero bytes": b"",
    "an object": b"{}",
    "a score of NaN": row(score=float("nan")),
    "an endless box": row(bbox=[1, 2, float("inf"), 4]),
    "a huge box": row(bbox=[1, 2, 10**400, 4]),
    "a negative box": row(bbox=[1, 2, -3, 4]),
    "an unknown image": row(image_id=99),
    "a huge image id": row(image_id=10**400),
    "an unknown category": row(category_id=99),
    "a list as image": row(image_id=[5]),
    "deeply nested": b"[" * 200_000,
    "not UTF-8": b'["\xff"]',
}


@pytest.mark.parametrize("content", RESULTS.values(), ids=RESULTS)
def test_detections(toy, refuse, content):  # noqa: F811
    (toy / "rows.json").write_bytes(content)
    flags = f"--config_path={toy / 'tiny.yaml'}", f"--detections={toy / 'rows.json'}"
    told = refuse(report.main, *flags, f"--output={toy / 'page'}", "--data.test=[toy_test_all]")
    assert re.search(r"rows\.json|row 0", told) and len(told) < 1500, told


@pytest.mark.parametrize("name", ["data-0000.mindrecord", "data-0000.mindrecord.db", "meta.json"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.99])
def test_mindrecord_cut(tmp_path, whole, name, share):
    """A cut is told by whoever only reads; who has the pictures builds the folder again."""
    records, folder = whole
    copy = tmp_path / "m"
    shutil.copytree(folder, copy)
    cut(copy / name, share)
    with time_limit(), pytest.raises(InputError, match=r"m is not a whole MindRecord folder"):
        TrainLoader(copy, min_sizes=(20,))
    info = build_mindrecord(records, copy, class_names=("a",), training=True, show_progress=False)
    assert info.num_rows == 3
    next(TrainLoader(copy, min_sizes=(20,)))


@pytest.mark.parametrize("share", [0.3, 0.35, 0.5, 0.9])
def test_mindrecord_with_a_flipped_bit(tmp_path, whole, share):
    """Noticed where a whole file is not compared with its checksum: in its row, if it has one."""
    _, folder = whole
    copy = tmp_path / "m"
    shutil.copytree(folder, copy)
    data = copy / "data-0000.mindrecord"
    flip(data, int(data.stat().st_size * share))
    loader = TrainLoader(copy, min_sizes=(20,))
    with time_limit():
        try:
            shapes = [next(loader).images.shape for _ in range(3)]
        except InputError as error:
            assert str(copy) in str(error)
        else:  # the bit was in the room between rows
            assert len(shapes) == 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("mindrecord")
    records = picture_records(place / "i", [(20, 30), (33, 20), (24, 24)])
    build_mindrecord(records, place / "m", class_names=("a",), training=True, show_progress=False)
    return records, place / "m"
