# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""pkl2ckpt and pth2ckpt: names, numbers, strict lists, both directions, copies of the scripts."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from src import pkl2ckpt, pth2ckpt
from src.assembly.layout import configured_layout
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.network_define import build_detector
from src.util import run_main, sha256_file
from src.weights import checkpoint, conversion
from src.weights.parameter_rules import BACKBONE_PRETRAINED, shapes_of
from src.weights.torch_file import load_torch
from src.weights.weight_shapes import (
    DetectorLayout,
    EncoderLayout,
    detector_layout,
    encoder_layout,
)
from tests.golden import golden
from tests.helpers import fake_torch
from tests.helpers.data_helpers import shared

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


def _spread(shapes):
    """Arrays of these shapes that take no room."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def _layout(**changes):
    """A ResNet-50 with an eighth of the channels, so that whole files are small."""
    layout = DetectorLayout(
        50, 4, 8, num_anchors=15, num_classes=3, affine_rpn=True, affine_rcnn=True
    )
    return dataclasses.replace(layout, **changes)


BACKBONE = _layout(num_anchors=0, num_classes=0, affine_rpn=False, affine_rcnn=False)
ENCODER = EncoderLayout((3, 4, 23, 3), 4, (2, 4, 8, 16), (8, 16, 32, 64), 5)


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
    shapes = BACKBONE.shapes()
    params = _random(shapes)
    blobs = {caffe: params[official] for official, caffe in _caffe2_names(shapes).items()}
    blobs.update(fc1000_w=np.ones((5, 64), np.float32), fc1000_b=np.ones(5, np.float32))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(wrap(blobs), protocol))
    return blobs


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


def test_pkl_of_detectron2(tmp_path):
    params = _random(BACKBONE.shapes())
    model = {name.partition(".")[2]: array for name, array in params.items()}
    model["stem.fc.weight"] = np.ones(3)
    content = {"model": model, "__author__": "x", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert pkl2ckpt.main([f"--input={tmp_path / 'a.pkl'}", f"--output={tmp_path / 'b.ckpt'}"]) == 0
    result = checkpoint.load_weights(tmp_path / "b.ckpt")
    for name, array in params.items():
        np.testing.assert_array_equal(result[name], array)


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
    with pytest.raises(InputError, match=r"--input: .*absent\.pkl does not exist"):
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


def _detector(**changes):
    return _random(_layout(**changes).shapes())


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


def test_what_was_written_is_told(tmp_path, capsys):
    _official_file(tmp_path / "a.pth", _detector())
    pth2ckpt.main(["--input", str(tmp_path / "a.pth"), "--output", str(tmp_path / "b.ckpt")])
    text = capsys.readouterr().out
    assert _ANCHORS in text
    assert "entries not converted: iteration, optimizer, scheduler" in text
    assert f"279 parameters (detector), sha256 {sha256_file(tmp_path / 'b.ckpt')}" in text


def test_detector_without_box_predictor(tmp_path):
    params = {name: a for name, a in _detector().items() if "box_predictor" not in name}
    _official_file(tmp_path / "model_reset_remove.pth", params)
    assert pth2ckpt.main(["--input", str(tmp_path / "model_reset_remove.pth")]) == 0
    assert set(checkpoint.load_weights(tmp_path / "model_reset_remove.ckpt")) == set(params)


@pytest.mark.parametrize("save", [fake_torch.save_zip, fake_torch.save_legacy])
def test_torchvision_and_back(tmp_path, save):
    params = _random(ENCODER.shapes())
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


def test_torchvision_of_2017(tmp_path):
    """resnet101-5d3b4d8f.pth itself: a tar archive, parameters as objects, no counters."""
    params = _random(ENCODER.shapes())
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
    assert conversion.kind_of(_specs("base"), "f") == "detector"
    assert conversion.kind_of(_specs("pcb"), "f") == "pcb"
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
    params = _detector()
    for name, array in change.items():
        if array is None:
            del params[name]
        else:
            params[name] = array
    with pytest.raises(InputError, match=message):
        conversion.whole(params, "detector", "f")


# ---- every layout that can be built, both ways ----


CONFIGURATIONS = [
    ("demo/shapes_base.yaml", 5),
    ("demo/shapes_fsod_5shot.yaml", 3),
    ("own/bccd_base.yaml", 2),
    ("own/bccd_gfsod_10shot.yaml", 3),
]


@pytest.mark.parametrize(("name", "num_classes"), CONFIGURATIONS)
@pytest.mark.parametrize("coupled", [[], ["--model.rpn.enable_decouple=false"]])
def test_a_layout_is_that_of_the_network(name, num_classes, coupled):
    path = str(ROOT / "configs" / name)
    net = build_detector(
        load_config(path, coupled).model,
        num_classes=num_classes,
        max_size=288,
        masked=False,
        fast=False,
    )
    shapes = {parameter.name: tuple(parameter.shape) for parameter in net.get_parameters()}
    configured = configured_layout(path, coupled)
    assert dataclasses.replace(configured, num_classes=num_classes).shapes() == shapes
    assert detector_layout(shapes, "f").shapes() == shapes
    assert configured.num_classes == 0 and configured.affine_rpn == (not coupled)


@pytest.mark.parametrize("kind", ["base", "novel", "all"])
def test_layout_of_official_detectors(kind):
    specs = _specs(kind)
    layout = detector_layout(specs, "f")
    assert layout.shapes() == specs
    assert (layout.depth, layout.stem_channels, layout.res2_channels) == (101, 64, 256)
    without = {name: shape for name, shape in specs.items() if "box_predictor" not in name}
    assert detector_layout(without, "f").shapes() == without
    path = str(ROOT / "configs" / "coco" / "defrcn_det_r101_base.yaml")
    flags = [f"--model.num_classes={layout.num_classes}"]
    assert layout.differences(configured_layout(path, flags)) == []


def test_layout_of_torchvision():
    specs = {name: s for name, s in _specs("pcb").items() if "num_batches_tracked" not in name}
    assert encoder_layout(specs, "f").shapes() == specs
    assert encoder_layout(ENCODER.shapes(), "f") == ENCODER


def test_depth_from_the_names():
    shapes = _layout().shapes()
    assert detector_layout(shapes, "f") == _layout()
    with pytest.raises(InputError, match="has 7 blocks in backbone.res4.*ResNet-26"):
        detector_layout({**shapes, "backbone.res4.6.conv1.weight": (8, 32, 1, 1)}, "f")


def test_a_width_is_what_most_arrays_say():
    shapes = {**_layout().shapes(), "backbone.res2.0.conv3.weight": (9, 2, 1, 1)}
    shapes["backbone.stem.conv1.weight"] = (5, 3, 7, 7)
    assert detector_layout(shapes, "f") == _layout()


PUBLISHED = DetectorLayout(101, 64, 256, 15, 60, affine_rpn=True, affine_rcnn=True)
LAYOUTS = {
    "demo": DetectorLayout(26, 16, 32, 15, 5, affine_rpn=True, affine_rcnn=True),
    "own": DetectorLayout(26, 16, 32, 15, 2, affine_rpn=True, affine_rcnn=True),
    "published": PUBLISHED,
    "thin backbone": DetectorLayout(50, 64, 128, 0, 0, affine_rpn=False, affine_rcnn=False),
    "demo's backbone": DetectorLayout(26, 16, 32, 0, 0, affine_rpn=False, affine_rcnn=False),
    "without class layers": _layout(num_classes=0),
    "coupled": _layout(affine_rpn=False, affine_rcnn=False),
    "half coupled": _layout(affine_rpn=False, depth=152),
    "stem as wide as res2": _layout(stem_channels=8),
    "other anchors": _layout(num_anchors=4),
    "encoder": ENCODER,
    "encoder of no known depth": EncoderLayout((1, 1, 1, 1), 4, (4, 8, 16, 32), (8, 16, 32, 64), 7),
    "wide encoder": EncoderLayout((3, 4, 6, 3), 4, (4, 8, 16, 32), (8, 16, 32, 64), 5),
}


def _same(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == np.float32 and actual[name].shape == array.shape, name
        assert actual[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("name", LAYOUTS)
def test_round_trip(tmp_path, name, monkeypatch):
    """.ckpt to .pth to .ckpt: the numbers to the bit, and the second .ckpt's bytes."""
    monkeypatch.setattr("os.fsync", lambda _: None)  # 600 MB of zeros need no safe place
    layout = LAYOUTS[name]
    make = _spread if layout is PUBLISHED else _random
    params = make(layout.shapes())
    first = checkpoint.write_weights(tmp_path / "a.ckpt", params)
    assert pth2ckpt.main(["--to-pth", f"--input={first}", f"--output={tmp_path / 'b.pth'}"]) == 0
    content = load_torch(tmp_path / "b.pth")
    _same(content if isinstance(layout, EncoderLayout) else content["model"], params)
    assert pth2ckpt.main([f"--input={tmp_path / 'b.pth'}"]) == 0
    assert (tmp_path / "b.ckpt").read_bytes() == first.read_bytes()


def _bare(name):
    """detectron2's names of a backbone by itself."""
    return name.removeprefix("backbone.").removeprefix("roi_heads.")


@pytest.mark.parametrize("wrap", [dict, lambda params: {"model": params}], ids=["flat", "model"])
@pytest.mark.parametrize("rename", [str, _bare], ids=["official", "bare"])
@pytest.mark.parametrize("save", [fake_torch.save_zip, fake_torch.save_legacy])
def test_backbone_by_itself(tmp_path, save, rename, wrap, capsys):
    params = _random(BACKBONE.shapes())
    counter = {"stem.conv1.norm.num_batches_tracked": np.int64(3), "stem.fc.bias": np.ones(9)}
    save(
        tmp_path / "a.pth", wrap(_tensors({**{rename(n): a for n, a in params.items()}, **counter}))
    )
    assert pth2ckpt.main([f"--input={tmp_path / 'a.pth'}"]) == 0
    result = checkpoint.load_weights(tmp_path / "a.ckpt")
    _same(result, params)
    told = capsys.readouterr().out
    assert (
        "backbone with res5 of model.backbone.depth 50, model.backbone.stem_out_channels 4, "
        in told
    )
    assert "2 buffers left out" in told
    heads = {name: array.shape for name, array in _detector().items()}
    assert len(BACKBONE_PRETRAINED.check(shapes_of(result), heads, "f").missing) == 14


def test_backbone_without_res5_is_named(tmp_path):
    params = {n: a for n, a in _random(BACKBONE.shapes()).items() if "res5" not in n}
    fake_torch.save_zip(tmp_path / "a.pth", _tensors(params))
    with pytest.raises(InputError, match=r"missing: 50 \(roi_heads\.res5\.0\.conv1\.norm\.bias"):
        pth2ckpt.main([f"--input={tmp_path / 'a.pth'}"])


def test_pkl_of_a_whole_detector(tmp_path):
    """As detectron2's model zoo has its Faster R-CNN C4: without decoupling layers."""
    params = _random(_layout(affine_rpn=False, affine_rcnn=False).shapes())
    extra = {_ANCHORS: np.zeros((15, 4), np.float32), "pixel_mean": np.ones((3, 1, 1))}
    content = {"model": {**params, **extra}, "__author__": "x"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert pkl2ckpt.main([f"--input={tmp_path / 'a.pkl'}", f"--output={tmp_path / 'b.ckpt'}"]) == 0
    _same(checkpoint.load_weights(tmp_path / "b.ckpt"), params)


THIN = ["--model.backbone.depth=50", "--model.backbone.res2_out_channels=128"]


def test_real_thin_resnet(tmp_path):
    """A half-width ResNet-50 trained on photographs: from a bare .pth, and there and back."""
    folder = shared("weights_thin_r50")
    real = checkpoint.load_weights(folder / "thin_r50.ckpt")
    bare = {_bare(name): array for name, array in real.items()}
    fake_torch.save_zip(tmp_path / "bare.pth", _tensors(bare))
    config = f"--config_path={ROOT / 'configs' / 'defrcn_base.yaml'}"
    with pytest.raises(InputError, match="depth 50 instead of 101, .*res2_out_channels 128"):
        pth2ckpt.main([f"--input={tmp_path / 'bare.pth'}", config])
    assert pth2ckpt.main([f"--input={tmp_path / 'bare.pth'}", config, *THIN]) == 0
    _same(checkpoint.load_weights(tmp_path / "bare.ckpt"), real)
    back, again = tmp_path / "back.pth", tmp_path / "again.ckpt"
    pth2ckpt.main(["--to-pth", f"--input={folder / 'thin_r50.ckpt'}", f"--output={back}"])
    pth2ckpt.main([f"--input={back}", f"--output={again}"])
    assert again.read_bytes() == (tmp_path / "bare.ckpt").read_bytes()


def test_a_configuration_is_compared_with(tmp_path):
    path = checkpoint.write_weights(tmp_path / "a.ckpt", _random(LAYOUTS["demo"].shapes()))
    config = f"--config_path={ROOT / 'configs' / 'demo' / 'shapes_base.yaml'}"
    to_pth = ["--to-pth", f"--input={path}"]
    for flags, told in (
        (["--model.num_classes=4"], r"model\.num_classes 5 instead of 4"),
        (["--model.anchors.sizes=[16]"], r"aspect_ratios of model\.anchors 15 instead of 3"),
        (["--model.roi_heads.enable_decouple=false"], "enable_decouple true instead of false"),
        (["--model.backbone.stem_out_channels=8"], "stem_out_channels 16 instead of 8"),
        (["--model.backbone.depht=26"], "did you mean"),
    ):
        with pytest.raises(InputError, match=told):
            pth2ckpt.main([*to_pth, config, *flags])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]
    assert pth2ckpt.main([*to_pth, config, "--model.num_classes=5"]) == 0
    encoder = checkpoint.write_weights(tmp_path / "e.ckpt", _random(ENCODER.shapes()))
    with pytest.raises(InputError, match="says nothing of the calibration block's network"):
        pth2ckpt.main(["--to-pth", f"--input={encoder}", config])


# ---- used wrongly ----


def _half(params):
    return dict(list(params.items())[::2])


def _mixed(params):
    wide = _random(_layout(res2_channels=16).shapes())
    return {name: wide[name] if "res4" in name else array for name, array in params.items()}


def _renamed(params):
    return {f"module.{name}": array for name, array in params.items()}


BROKEN = {
    "every second array": (_half, r"missing: 139 \(.*and 134 more\); all else is of a detector of"),
    "two widths": (_mixed, r"of another shape: \d+ \(.*whole file of one network"),
    "other names": (_renamed, "neither of a DeFRCN detector nor of torchvision.*module"),
    "two kinds": (lambda p: {**p, **_random(ENCODER.shapes())}, "detector but also has bn1.bias"),
    "an encoder's part": (lambda _: _half(_random(ENCODER.shapes())), "lacks '|does not fit"),
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
    fake_torch.save_zip(tmp_path / "a.pth", _tensors(change(_detector())))
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
    params = _detector()
    _official_file(tmp_path / "a.pth", params)
    checkpoint.write_weights(tmp_path / "a.ckpt", params)
    _caffe2_file(tmp_path / "a.pkl")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:5000])
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:5000])
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "a.pkl").read_bytes()[:5000])
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


@pytest.mark.parametrize(("module", "words", "expected"), WRONG, ids=lambda value: str(value)[-40:])
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


WHERE = ["script in place", "copy below the project", "copy elsewhere", "run in the project"]


@pytest.mark.parametrize("where", WHERE)
def test_without_flags_from_another_folder(tmp_path, where):
    """The old recipe: ImageNetPretrained/{MSRA,torchvision}, run in a folder beside them."""
    project = tmp_path / "a project"
    (project / "src").mkdir(parents=True)
    for path in (ROOT / "src").rglob("*.py"):
        target = project / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    data = (tmp_path if where == WHERE[2] else project) / "ImageNetPretrained"
    _small_real_pth(data / "torchvision" / "resnet101-5d3b4d8f.pth")
    (data / "MSRA").mkdir()
    (data / "MSRA" / "R-101.pkl").write_bytes(pickle.dumps({"conv1_w": np.ones(1)}, 2))
    for name, message in (
        ("pkl2ckpt.py", "../MSRA/R-101.pkl has 0 blocks in backbone.res4"),
        ("pth2ckpt.py", "resnet101-5d3b4d8f.pth is no encoder for the calibration block: it lacks"),
    ):
        folder = data / "convert"
        folder.mkdir(exist_ok=True)
        script = project / "src" / name
        if where != "script in place":
            script = Path(shutil.copy(script, tmp_path if where == WHERE[3] else folder))
        result = _run(script, folder)
        assert result.returncode == 1
        if where == "copy elsewhere":
            assert "PYTHONPATH" in result.stderr
            result = _run(script, folder, PYTHONPATH=str(project))
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
