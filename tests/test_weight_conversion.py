# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""pkl2ckpt and pth2ckpt: names, numbers, strict lists, both directions, copies of the scripts."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from src import pkl2ckpt, pth2ckpt
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.util import sha256_file
from src.weights import checkpoint, weight_shapes
from src.weights.parameter_rules import BACKBONE_PRETRAINED, shapes_of
from src.weights.torch_file import load_torch
from tests.golden import golden
from tests.helpers import fake_torch

ROOT = project_folder()


def _specs(kind):
    specs = json.loads((golden.HERE / f"specs_{kind}.json").read_text())
    return {name: tuple(shape) for name, shape in specs.items()}


def _tiny(names):
    """One number per parameter, different for each."""
    return {name: np.float32([index]) for index, name in enumerate(names)}


def _random(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def narrow(monkeypatch):
    """ResNets with an eighth of the channels, so that whole files are small."""
    monkeypatch.setattr(weight_shapes, "_STEM_CHANNELS", 4)
    monkeypatch.setattr(weight_shapes, "_STAGE_CHANNELS", (8, 16, 32, 64))
    monkeypatch.setattr(weight_shapes, "_NUM_IMAGENET_CLASSES", 5)


# ---- the expected shapes are those of the official files ----


@pytest.mark.parametrize("kind", ["base", "novel", "all"])
def test_detector_shapes(kind):
    specs = _specs(kind)
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in specs.items()}
    assert weight_shapes.detector_shapes(arrays, "f") == specs
    without = {name: array for name, array in arrays.items() if "box_predictor" not in name}
    assert weight_shapes.detector_shapes(without, "f") == shapes_of(without)


def test_torchvision_shapes():
    specs = {name: s for name, s in _specs("pcb").items() if "num_batches_tracked" not in name}
    assert weight_shapes.torchvision_shapes(specs, "f") == specs


def test_depth_from_the_names():
    names = [f"layer3.{block}.conv1.weight" for block in range(6)]
    assert "layer3.5.conv3.weight" in weight_shapes.torchvision_shapes(names, "f")
    with pytest.raises(InputError, match="7 blocks"):
        weight_shapes.torchvision_shapes([*names, "layer3.6.conv1.weight"], "f")


# ---- R-101.pkl ----

_CAFFE = {"weight": "w", "norm.weight": "bn_s", "norm.bias": "bn_b"}
_BRANCH = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}


def _caffe2_names(specs):
    """Official backbone names to caffe2 ones, written the other way round than the converter."""
    table = {}
    for name in specs:
        parts = name.split(".")
        if parts[0] == "backbone" or parts[1] == "res5":
            if "running" in name:
                continue
            if parts[1] == "stem":
                stem = {"weight": "conv1_w", "norm.weight": "res_conv1_bn_s"}
                table[name] = stem.get(".".join(parts[3:]), "res_conv1_bn_b")
            else:
                suffix = _CAFFE[".".join(parts[4:])]
                table[name] = f"{parts[1]}_{parts[2]}_{_BRANCH[parts[3]]}_{suffix}"
    return table


@pytest.fixture(scope="module")
def caffe2_table():
    return _caffe2_names(_specs("base"))


def test_caffe2_names_one_by_one(caffe2_table):
    assert len(caffe2_table) == 312
    assert caffe2_table["roi_heads.res5.0.shortcut.norm.weight"] == "res5_0_branch1_bn_s"
    given = _tiny(caffe2_table.values())
    result = pkl2ckpt.convert(given)
    for official, caffe in caffe2_table.items():
        np.testing.assert_array_equal(result[official], given[caffe], err_msg=official)
    wanted = {name for name in _specs("base") if name.startswith(("backbone.", "roi_heads.res5."))}
    assert set(result) == wanted
    rule = {name: (1,) for name in _specs("base")}
    report = BACKBONE_PRETRAINED.check(shapes_of(result), rule, "f")
    assert len(report.missing) == 14


def test_norm_is_the_affine_map_of_caffe2(caffe2_table):
    """The frozen norm with these statistics is x * s + b, to the last bit of float32."""
    rng = np.random.default_rng(0)
    result = pkl2ckpt.convert(
        {"conv1_w": np.ones((2, 3, 7, 7)), "res_conv1_bn_s": [1.7, -0.2], "res_conv1_bn_b": [3, 4]}
    )
    norm = {key.rpartition(".")[2]: value for key, value in result.items() if "norm" in key}
    assert norm["running_mean"].tolist() == [0, 0]
    assert norm["running_var"].dtype == np.float32
    np.testing.assert_array_equal(norm["running_var"] + np.float32(1e-5), np.float32([1, 1]))
    x = rng.normal(size=(100, 2)).astype(np.float32)
    scale = norm["weight"] / np.sqrt(norm["running_var"] + np.float32(1e-5))
    actual = (x - norm["running_mean"]) * scale + norm["bias"]
    np.testing.assert_array_equal(actual, x * np.float32([1.7, -0.2]) + np.float32([3, 4]))


def test_running_statistics_of_the_file_are_kept():
    result = pkl2ckpt.convert(
        {"res2_0_branch2a_bn_s": [2.0], "res2_0_branch2a_bn_rm": [3], "res2_0_branch2a_bn_riv": [4]}
    )
    prefix = "backbone.res2.0.conv1.norm"
    assert result[f"{prefix}.running_mean"] == 3
    assert result[f"{prefix}.running_var"] == 4
    longer = pkl2ckpt.convert(
        {
            "conv1_bn_gamma": [1.0],
            "conv1_bn_beta": [2],
            "conv1_bn_running_mean": [3],
            "conv1_bn_running_var": [4],
        }
    )
    assert [value.item() for value in longer.values()] == [1, 2, 3, 4]


def test_unused_entries_are_logged_and_unknown_ones_refused(caplog):
    caplog.set_level(logging.INFO)
    one = np.ones(1)
    unused = ["fc1000_w", "fc1000_b", "conv1_b", "conv1_w_momentum", "fc1000_w_momentum"]
    assert list(pkl2ckpt.convert({name: one for name in [*unused, "conv1_w"]})) == [
        "backbone.stem.conv1.weight"
    ]
    assert all(name in caplog.text for name in unused)
    for stranger in ("res6_0_branch1_w", "rpn_conv_w", "res2_0_branch2d_w", "conv1_w_x", ""):
        with pytest.raises(InputError, match=f"unknown entries {stranger}"):
            pkl2ckpt.convert({stranger: one, "conv1_w": one})
    with pytest.raises(InputError, match="twice"):
        pkl2ckpt.convert({"conv1_w": one, "stem.conv1.weight": one})


def _caffe2_file(path, wrap=lambda blobs: blobs, protocol=2):
    """A file like R-101.pkl, of a ResNet-50 with few channels, fc1000 included."""
    names = [f"backbone.res4.{block}.x" for block in range(6)]
    shapes = weight_shapes.backbone_shapes(names, "f")
    params = _random(shapes)
    blobs = {caffe: params[official] for official, caffe in _caffe2_names(shapes).items()}
    blobs.update(fc1000_w=np.ones((5, 64), np.float32), fc1000_b=np.ones(5, np.float32))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(wrap(blobs), protocol))
    return blobs


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("wrap", [dict, lambda blobs: {"blobs": blobs}], ids=["flat", "blobs"])
def test_pkl_to_ckpt(tmp_path, wrap, caplog):
    caplog.set_level(logging.INFO)
    blobs = _caffe2_file(tmp_path / "R-50.pkl", wrap)
    output = tmp_path / "new folder" / "b.ckpt"
    assert pkl2ckpt.main(["--input", str(tmp_path / "R-50.pkl"), "--output", str(output)]) == 0
    loaded = ms.load_checkpoint(str(output), crc_check=True)
    key = "roi_heads.res5.2.conv3.norm.bias"
    np.testing.assert_array_equal(loaded[key].asnumpy(), blobs["res5_2_branch2c_bn_b"])
    assert len(checkpoint.load_weights(output)) == 265


@pytest.mark.usefixtures("narrow")
def test_pkl_of_detectron2(tmp_path):
    shapes = weight_shapes.backbone_shapes([f"backbone.res4.{i}.x" for i in range(6)], "f")
    params = _random(shapes)
    model = {name.partition(".")[2]: array for name, array in params.items()}
    model["stem.fc.weight"] = np.ones(3)
    content = {"model": model, "__author__": "x", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert pkl2ckpt.main([f"--input={tmp_path / 'a.pkl'}", f"--output={tmp_path / 'b.ckpt'}"]) == 0
    result = checkpoint.load_weights(tmp_path / "b.ckpt")
    for name, array in params.items():
        np.testing.assert_array_equal(result[name], array)


@pytest.mark.usefixtures("narrow")
def test_incomplete_pkl_is_refused_and_leaves_nothing(tmp_path):
    blobs = _caffe2_file(tmp_path / "a.pkl")
    output = tmp_path / "b.ckpt"
    for change in (
        lambda: blobs.pop("res3_1_branch2b_w"),
        lambda: blobs.update(res3_1_branch2b_w=np.ones((1, 1, 3, 3))),
    ):
        change()
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(blobs))
        with pytest.raises(InputError, match=r"a\.pkl.*backbone\.res3\.1\.conv2\.weight"):
            pkl2ckpt.main([f"--input={tmp_path / 'a.pkl'}", f"--output={output}"])
        assert not output.exists()
    with pytest.raises(InputError, match="no such file"):
        pkl2ckpt.main([f"--input={tmp_path / 'absent.pkl'}"])


# ---- .pth ----


def _tensors(params):
    """As a state_dict: ordered, with the `_metadata` attribute that torch gives it."""
    result = OrderedDict(
        (name, fake_torch.tensor(str(index), array))
        for index, (name, array) in enumerate(params.items())
    )
    result._metadata = OrderedDict({"": {"version": 1}})
    return result


def _detector(num_classes=3):
    names = {f"backbone.res4.{block}.x": np.zeros(1) for block in range(6)}
    names["proposal_generator.rpn_head.objectness_logits.bias"] = np.zeros(15)
    names["roi_heads.box_predictor.cls_score.bias"] = np.zeros(num_classes + 1)
    return _random(weight_shapes.detector_shapes(names, "f"))


_ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"


def _official_file(path, params, save=fake_torch.save_zip):
    model = _tensors({**params, _ANCHORS: np.zeros((15, 4), np.float32)})
    moment = fake_torch.tensor("m", np.ones(3, np.float32))
    content = {
        "model": model,
        "optimizer": {"state": {0: {"momentum_buffer": moment}}, "param_groups": [{"lr": 0.02}]},
        "scheduler": {"last_epoch": 4, "milestones": [1, 2]},
        "iteration": 109999,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, content)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("save", [fake_torch.save_zip, fake_torch.save_legacy])
def test_official_detector_and_back(tmp_path, save, caplog):
    caplog.set_level(logging.INFO)
    params = _detector()
    _official_file(tmp_path / "model_final.pth", params, save)
    assert pth2ckpt.main(["--input", str(tmp_path / "model_final.pth")]) == 0
    output = tmp_path / "model_final.ckpt"
    result = checkpoint.load_weights(output)
    assert set(result) == set(params)
    for name, array in params.items():
        np.testing.assert_array_equal(result[name], array)
    assert ms.load_checkpoint(str(output)).keys() == params.keys()

    back = tmp_path / "back.pth"
    assert pth2ckpt.main(["--to-pth", "--input", str(output), "--output", str(back)]) == 0
    content = load_torch(back)
    assert list(content) == ["model"]
    assert list(content["model"]) == list(result)
    for name, array in params.items():
        np.testing.assert_array_equal(content["model"][name], array)


@pytest.mark.usefixtures("narrow")
def test_what_was_written_is_told(tmp_path, capsys):
    _official_file(tmp_path / "a.pth", _detector())
    pth2ckpt.main(["--input", str(tmp_path / "a.pth"), "--output", str(tmp_path / "b.ckpt")])
    text = capsys.readouterr().out
    assert _ANCHORS in text
    assert "entries not converted: iteration, optimizer, scheduler" in text
    assert f"279 parameters (detector), sha256 {sha256_file(tmp_path / 'b.ckpt')}" in text


@pytest.mark.usefixtures("narrow")
def test_detector_without_box_predictor(tmp_path):
    params = {name: a for name, a in _detector().items() if "box_predictor" not in name}
    _official_file(tmp_path / "model_reset_remove.pth", params)
    assert pth2ckpt.main(["--input", str(tmp_path / "model_reset_remove.pth")]) == 0
    assert set(checkpoint.load_weights(tmp_path / "model_reset_remove.ckpt")) == set(params)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("save", [fake_torch.save_zip, fake_torch.save_legacy])
def test_torchvision_and_back(tmp_path, save):
    shapes = weight_shapes.torchvision_shapes([f"layer3.{i}.x" for i in range(23)], "f")
    params = _random(shapes)
    counter = {"bn1.num_batches_tracked": np.int64(5)}
    save(tmp_path / "resnet101.pth", _tensors({**params, **counter}))
    output = tmp_path / "pcb.ckpt"
    assert pth2ckpt.main([f"--input={tmp_path / 'resnet101.pth'}", f"--output={output}"]) == 0
    result = checkpoint.load_weights(output)
    assert set(result) == set(params)
    back = tmp_path / "back.pth"
    assert pth2ckpt.main(["--to-pth", f"--input={output}", f"--output={back}"]) == 0
    content = load_torch(back)
    for name, array in params.items():
        np.testing.assert_array_equal(content[name], array)


@pytest.mark.usefixtures("narrow")
def test_torchvision_of_2017(tmp_path):
    """resnet101-5d3b4d8f.pth itself: a tar archive, parameters as objects, no counters."""
    params = _random(weight_shapes.torchvision_shapes([f"layer3.{i}.x" for i in range(23)], "f"))
    tensors = {name: fake_torch.tensor(str(i), a) for i, (name, a) in enumerate(params.items())}
    content = OrderedDict(
        (name, item if "running" in name else fake_torch.Parameter(item))
        for name, item in tensors.items()
    )
    fake_torch.save_tar(tmp_path / "a.pth", content, list(tensors.values()))
    output = tmp_path / "pcb.ckpt"
    assert pth2ckpt.main([f"--input={tmp_path / 'a.pth'}", f"--output={output}"]) == 0
    result = checkpoint.load_weights(output)
    assert set(result) == set(params)
    for name, array in params.items():
        np.testing.assert_array_equal(result[name], array)


def test_kind_by_the_names():
    assert pth2ckpt.kind_of(list(_specs("base"))) == "detector"
    assert pth2ckpt.kind_of(list(_specs("pcb"))) == "pcb"
    with pytest.raises(InputError, match="detector but also has head.weight"):
        pth2ckpt.kind_of(["backbone.x", "head.weight"])
    with pytest.raises(InputError, match=r"neither.*features\.0\.weight"):
        pth2ckpt.kind_of(["features.0.weight"])


@pytest.mark.usefixtures("narrow")
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
    params = _detector()
    for name, array in change.items():
        if array is None:
            del params[name]
        else:
            params[name] = array
    with pytest.raises(InputError, match=message):
        pth2ckpt.convert(params, "detector")


def test_to_pth_flags(tmp_path):
    with pytest.raises(InputError, match="needs --input"):
        pth2ckpt.main(["--to-pth"])
    with pytest.raises(InputError, match="no such checkpoint"):
        pth2ckpt.main(["--to-pth", "--input", str(tmp_path / "a.ckpt")])
    with pytest.raises(InputError, match="no such file"):
        pth2ckpt.main(["--input", str(tmp_path / "a.pth")])


# ---- run as users of the older port do ----


def _run(script, folder, **env):
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, script], cwd=folder, env={**clean, **env}, capture_output=True, text=True
    )


def _small_real_pth(path):
    """Not a ResNet: the scripts get as far as naming what is wrong with it."""
    path.parent.mkdir(parents=True)
    fake_torch.save_legacy(path, _tensors({"layer3.0.conv1.weight": np.ones(1, np.float32)}))


@pytest.mark.parametrize("where", ["script in place", "copy below the project", "copy elsewhere"])
def test_without_flags_from_another_folder(tmp_path, where):
    """The old recipe: ImageNetPretrained/{MSRA,torchvision}, run in a folder beside them."""
    project = tmp_path / "a project"
    (project / "src").mkdir(parents=True)
    for path in (ROOT / "src").rglob("*.py"):
        target = project / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    data = (tmp_path if where == "copy elsewhere" else project) / "ImageNetPretrained"
    _small_real_pth(data / "torchvision" / "resnet101-5d3b4d8f.pth")
    (data / "MSRA").mkdir()
    (data / "MSRA" / "R-101.pkl").write_bytes(pickle.dumps({"conv1_w": np.ones(1)}, 2))
    for name, message in (
        ("pkl2ckpt.py", "../MSRA/R-101.pkl has 0 blocks in backbone.res4"),
        ("pth2ckpt.py", "resnet101-5d3b4d8f.pth has 1 blocks in layer3"),
    ):
        folder = data / "convert"
        folder.mkdir(exist_ok=True)
        script = project / "src" / name
        if where != "script in place":
            script = Path(shutil.copy(script, folder))
        result = _run(script, folder)
        assert result.returncode == 1
        if where == "copy elsewhere":
            assert "PYTHONPATH" in result.stderr
            result = _run(script, folder, PYTHONPATH=str(project))
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
