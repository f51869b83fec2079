# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What converters accept, and what they say of the rest: kinds, damage, wrong use, short lines."""

from __future__ import annotations

import re

import numpy as np
import pytest

from src import pkl2ckpt, pth2ckpt
from src.model_utils.errors import InputError
from src.util import run_main
from src.weights import conversion
from src.weights.ckpt_format import write_ckpt
from tests.helpers import fake_torch
from tests.helpers.weight_files import (
    ENCODER,
    caffe2_file,
    detector,
    official_file,
    official_shapes,
    random_arrays,
    small,
    tensors,
)


def test_kind_by_the_names():
    assert conversion.kind_of(official_shapes("base"), "f") == "detector"
    assert conversion.kind_of(official_shapes("pcb"), "f") == "pcb"
    assert conversion.kind_of(["stem.conv1.weight", "res5.0.conv1.weight"], "f") == "detector"
    with pytest.raises(InputError, match="detector but also has head.weight"):
        conversion.kind_of(["backbone.x", "head.weight"], "f")
    with pytest.raises(InputError, match=r"neither.*features\.0\.weight"):
        conversion.kind_of(["features.0.weight"], "f")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"affine_rpn.weight": None}, r"missing: 1 \(affine_rpn\.weight\)"),
        ({"affine_rpn.extra": np.zeros(2)}, r"unexpected: 1 \(affine_rpn\.extra\)"),
        (
            {"roi_heads.box_predictor.bbox_pred.bias": np.zeros(16, np.float32)},
            r"bbox_pred\.bias \(16,\) instead of \(12,\)",
        ),
        (
            {"roi_heads.box_predictor.cls_score.bias": None},
            r"no usable 'roi_heads\.box_predictor\.cls_score\.bias'",
        ),
        ({"affine_rpn.bias": np.zeros((1, 32, 1, 1), int)}, "not floating-point.*affine_rpn"),
    ],
)
def test_strict(change, message):
    params = detector()
    for name, array in change.items():
        if array is None:
            del params[name]
        else:
            params[name] = array
    with pytest.raises(InputError, match=message):
        conversion.whole(params, "detector", "f")


def _half(params):
    return dict(list(params.items())[::2])


def _mixed(params):
    wide = random_arrays(small(res2_channels=16).shapes())
    return {name: wide[name] if "res4" in name else array for name, array in params.items()}


def _renamed(params):
    return {f"module.{name}": array for name, array in params.items()}


BROKEN = {
    "every second array": (_half, r"missing: 139 \(.*and 134 more\); all else is of a detector of"),
    "two widths": (_mixed, r"of another shape: \d+ \(.*whole file of one network"),
    "other names": (_renamed, "neither of a DeFRCN detector nor of torchvision.*module"),
    "two kinds": (
        lambda p: {**p, **random_arrays(ENCODER.shapes())},
        "detector but also has bn1.bias",
    ),
    "an encoder's part": (lambda _: _half(random_arrays(ENCODER.shapes())), "lacks '|does not fit"),
    "no anchors": (lambda p: {**p, _OBJECTNESS: np.zeros(0, np.float32)}, "no usable 'proposal"),
    "whole numbers": (lambda p: {n: a.astype(int) for n, a in p.items()}, "not floating-point"),
    "a name of 100 kB": (lambda p: {**p, "backbone." + "x" * 10**5: np.ones(1)}, "unexpected: 1"),
    "names of several lines": (
        lambda p: {**p, **{f"roi_heads.\n{i}": np.ones(1) for i in range(99)}},
        "unexpected: 99",
    ),
}
_OBJECTNESS = "proposal_generator.rpn_head.objectness_logits.bias"


@pytest.mark.parametrize("case", BROKEN)
def test_messages_are_short(tmp_path, case, capsys):
    change, expected = BROKEN[case]
    fake_torch.save_zip(tmp_path / "a.pth", tensors(change(detector())))
    with pytest.raises(SystemExit) as end:
        run_main(lambda: pth2ckpt.main([f"--input={tmp_path / 'a.pth'}"]))
    told = capsys.readouterr()
    assert end.value.code == 1 and re.search(expected, told.err), told.err
    lines = (told.out + told.err).splitlines()
    assert len(lines) < 10 and max(map(len, lines)) < 1200, lines
    assert "2ckpt" not in told.err, "advice to run what was just run"
    assert not (tmp_path / "a.ckpt").exists()


@pytest.fixture
def files(tmp_path):
    """One whole file of every kind, and a folder."""
    params = detector()
    official_file(tmp_path / "a.pth", params)
    write_ckpt(tmp_path / "a.ckpt", params)
    caffe2_file(tmp_path / "a.pkl")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:5000])
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:5000])
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "a.pkl").read_bytes()[:5000])
    (tmp_path / "called.pth").write_bytes(b"\x80\x02cos\n" + b"x" * 10**5 + b"\n.")
    (tmp_path / "folder.ckpt").mkdir()
    return tmp_path


WRONG = [
    (pth2ckpt, "--input=a.ckpt", "a.ckpt: a checkpoint; give --to-pth"),
    (pth2ckpt, "--input=a.pkl", "src/pkl2ckpt.py converts it"),
    (pkl2ckpt, "--input=a.pth --output=b.ckpt", "src/pth2ckpt.py converts it"),
    (pkl2ckpt, "--input=a.ckpt --output=b.ckpt", "a checkpoint already"),
    (pth2ckpt, "--to-pth --input=a.pth --output=b.pth", "leave it out"),
    (pth2ckpt, "--to-pth --input=a.pkl", "convert it with src/pkl2ckpt.py first"),
    (pth2ckpt, "--to-pth", "needs --input"),
    (pth2ckpt, "--input=folder.ckpt", "is not a file"),
    (pkl2ckpt, "--input=.", "is not a file"),
    (pth2ckpt, "--input=.", "is not a file"),
    (pth2ckpt, "--input=b.pth", r"b\.pth does not exist \(did you mean a\.pth"),
    (pth2ckpt, "--to-pth --input=b.ckpt", r"b\.ckpt does not exist"),
    (pth2ckpt, "--input=cut.pth", r"cut\.pth is damaged"),
    (pth2ckpt, "--input=called.pth", r"called\.pth asks to load 'os\.xxx"),
    (pth2ckpt, "--to-pth --input=cut.ckpt", r"cut\.ckpt is damaged"),
    (pkl2ckpt, "--input=cut.pkl", r"cut\.pkl is damaged"),
    (pth2ckpt, "--input=a.pth --output=a.pth", r"must end in \.ckpt"),
    (pth2ckpt, "--to-pth --input=a.ckpt --output=a.ckpt", r"must end in \.pth"),
    (pth2ckpt, "--input=a.pth --output=folder.ckpt", "--output: folder.ckpt is not a file"),
    (pth2ckpt, "--input=a.pth --output=.", r"must end in \.ckpt"),
    (pth2ckpt, "--input=a.pth --output=a.pth/b.ckpt", "name another folder"),
    (pkl2ckpt, "--input=a.pkl --output=a.ckpt", "a.ckpt exists and holds something else"),
    (pth2ckpt, "--input=a.pth --kind=pcb", "no encoder for the calibration block"),
    (pth2ckpt, "a.pth", "a.pth: unknown flag"),
    (pth2ckpt, "--input=a.pth --model.num_classes=3", "go with --config_path"),
    (pth2ckpt, "--input=a.pth --config_path=absent.yaml", "absent.yaml"),
]


@pytest.mark.parametrize(
    ("module", "words", "expected"), WRONG, ids=lambda v: v if isinstance(v, str) else v.__name__
)
def test_used_wrongly(files, monkeypatch, module, words, expected):
    monkeypatch.chdir(files)
    before = {path: path.is_file() and path.read_bytes() for path in files.rglob("*")}
    with pytest.raises(InputError, match=expected) as caught:
        module.main(words.split())
    assert len(str(caught.value)) < 600 and str(caught.value).count("\n") < 9
    assert {path: path.is_file() and path.read_bytes() for path in files.rglob("*")} == before


def test_the_same_again_is_no_error(files):
    """a.ckpt has the very bytes that a.pth gives; so has the .pth that is made twice."""
    assert pth2ckpt.main([f"--input={files / 'a.pth'}"]) == 0
    to_pth = ["--to-pth", f"--input={files / 'a.ckpt'}", f"--output={files / 'new.pth'}"]
    assert pth2ckpt.main(to_pth) == pth2ckpt.main(to_pth) == 0
    assert not list(files.glob(".*"))
