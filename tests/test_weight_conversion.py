# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""pkl2ckpt and pth2ckpt: names, numbers, strict lists, both directions, copies of the scripts."""

from __future__ import annotations

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
from src.weights import checkpoint
from src.weights.ckpt_format import write_ckpt
from src.weights.parameter_rules import BACKBONE_PRETRAINED, shapes_of
from src.weights.torch_file import load_torch
from src.weights.weight_shapes import (
    DetectorLayout,
    EncoderLayout,
)
from tests.helpers import fake_torch
from tests.helpers.data_helpers import shared
from tests.helpers.weight_files import (
    ANCHORS,
    BACKBONE,
    ENCODER,
    assert_same,
    caffe2_file,
    caffe2_names,
    detector,
    official_file,
    official_shapes,
    random_arrays,
    small,
    spread,
    tensors,
)

ROOT = project_folder()


def _tiny(names):
    """One number per parameter, different for each."""
    return {name: np.float32([index]) for index, name in enumerate(names)}


# ---- R-101.pkl ----


@pytest.fixture(scope="module")
def caffe2_table():
    return caffe2_names(official_shapes("base"))


def test_caffe2_names_one_by_one(caffe2_table):
    assert len(caffe2_table) == 312
    assert caffe2_table["roi_heads.res5.0.shortcut.norm.weight"] == "res5_0_branch1_bn_s"
    given = _tiny(caffe2_table.values())
    result = pkl2ckpt.convert(given)
    for official, caffe in caffe2_table.items():
        np.testing.assert_array_equal(result[official], given[caffe], err_msg=official)
    wanted = {
        name
        for name in official_shapes("base")
        if name.startswith(("backbone.", "roi_heads.res5."))
    }
    assert set(result) == wanted
    rule = {name: (1,) for name in official_shapes("base")}
    missing, _ = BACKBONE_PRETRAINED.check(shapes_of(result), rule, "f")
    assert len(missing) == 14


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


@pytest.mark.parametrize("wrap", [dict, lambda blobs: {"blobs": blobs}], ids=["flat", "blobs"])
def test_pkl_to_ckpt(tmp_path, wrap, caplog):
    caplog.set_level(logging.INFO)
    blobs = caffe2_file(tmp_path / "R-50.pkl", wrap)
    output = tmp_path / "new folder" / "b.ckpt"
    assert pkl2ckpt.main(["--input", str(tmp_path / "R-50.pkl"), "--output", str(output)]) == 0
    loaded = ms.load_checkpoint(str(output), crc_check=True)
    key = "roi_heads.res5.2.conv3.norm.bias"
    np.testing.assert_array_equal(loaded[key].asnumpy(), blobs["res5_2_branch2c_bn_b"])
    assert len(checkpoint.load_weights(output)) == 265


def test_pkl_of_detectron2(tmp_path):
    params = random_arrays(BACKBONE.shapes())
    model = {name.partition(".")[2]: array for name, array in params.items()}
    model["stem.fc.weight"] = np.ones(3)
    content = {"model": model, "__author__": "x", "matching_heuristics": True}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert pkl2ckpt.main([f"--input={tmp_path / 'a.pkl'}", f"--output={tmp_path / 'b.ckpt'}"]) == 0
    result = checkpoint.load_weights(tmp_path / "b.ckpt")
    for name, array in params.items():
        np.testing.assert_array_equal(result[name], array)


def test_incomplete_pkl_is_refused_and_leaves_nothing(tmp_path):
    blobs = caffe2_file(tmp_path / "a.pkl")
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


@pytest.mark.parametrize("save", [fake_torch.save_zip, fake_torch.save_legacy])
def test_official_detector_and_back(tmp_path, save, caplog):
    caplog.set_level(logging.INFO)
    params = detector()
    official_file(tmp_path / "model_final.pth", params, save)
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
    official_file(tmp_path / "a.pth", detector())
    pth2ckpt.main(["--input", str(tmp_path / "a.pth"), "--output", str(tmp_path / "b.ckpt")])
    text = capsys.readouterr().out
    assert ANCHORS in text
    assert "entries not converted: iteration, optimizer, scheduler" in text
    assert f"279 parameters (detector), sha256 {sha256_file(tmp_path / 'b.ckpt')}" in text


def test_detector_without_box_predictor(tmp_path):
    params = {name: a for name, a in detector().items() if "box_predictor" not in name}
    official_file(tmp_path / "model_reset_remove.pth", params)
    assert pth2ckpt.main(["--input", str(tmp_path / "model_reset_remove.pth")]) == 0
    assert set(checkpoint.load_weights(tmp_path / "model_reset_remove.ckpt")) == set(params)


@pytest.mark.parametrize("save", [fake_torch.save_zip, fake_torch.save_legacy])
def test_torchvision_and_back(tmp_path, save):
    params = random_arrays(ENCODER.shapes())
    counter = {"bn1.num_batches_tracked": np.int64(5)}
    save(tmp_path / "resnet101.pth", tensors({**params, **counter}))
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
    params = random_arrays(ENCODER.shapes())
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


# ---- every layout that can be built, both ways ----


PUBLISHED = DetectorLayout(101, 64, 256, 15, 60, affine_rpn=True, affine_rcnn=True)
LAYOUTS = {
    "demo": DetectorLayout(26, 16, 32, 15, 5, affine_rpn=True, affine_rcnn=True),
    "own": DetectorLayout(26, 16, 32, 15, 2, affine_rpn=True, affine_rcnn=True),
    "published": PUBLISHED,
    "thin backbone": DetectorLayout(50, 64, 128, 0, 0, affine_rpn=False, affine_rcnn=False),
    "demo's backbone": DetectorLayout(26, 16, 32, 0, 0, affine_rpn=False, affine_rcnn=False),
    "without class layers": small(num_classes=0),
    "coupled": small(affine_rpn=False, affine_rcnn=False),
    "half coupled": small(affine_rpn=False, depth=152),
    "stem as wide as res2": small(stem_channels=8),
    "other anchors": small(num_anchors=4),
    "encoder": ENCODER,
    "encoder of no known depth": EncoderLayout((1, 1, 1, 1), 4, (4, 8, 16, 32), (8, 16, 32, 64), 7),
    "wide encoder": EncoderLayout((3, 4, 6, 3), 4, (4, 8, 16, 32), (8, 16, 32, 64), 5),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_round_trip(tmp_path, name, monkeypatch):
    """.ckpt to .pth to .ckpt: the numbers to the bit, and the second .ckpt's bytes."""
    monkeypatch.setattr("os.fsync", lambda _: None)  # 600 MB of zeros need no safe place
    layout = LAYOUTS[name]
    make = spread if layout is PUBLISHED else random_arrays
    params = make(layout.shapes())
    first = write_ckpt(tmp_path / "a.ckpt", params)
    assert pth2ckpt.main(["--to-pth", f"--input={first}", f"--output={tmp_path / 'b.pth'}"]) == 0
    content = load_torch(tmp_path / "b.pth")
    assert_same(content if isinstance(layout, EncoderLayout) else content["model"], params)
    assert pth2ckpt.main([f"--input={tmp_path / 'b.pth'}"]) == 0
    assert (tmp_path / "b.ckpt").read_bytes() == first.read_bytes()


def _bare(name):
    """detectron2's names of a backbone by itself."""
    return name.removeprefix("backbone.").removeprefix("roi_heads.")


@pytest.mark.parametrize("wrap", [dict, lambda params: {"model": params}], ids=["flat", "model"])
@pytest.mark.parametrize("rename", [str, _bare], ids=["official", "bare"])
@pytest.mark.parametrize("save", [fake_torch.save_zip, fake_torch.save_legacy])
def test_backbone_by_itself(tmp_path, save, rename, wrap, capsys):
    params = random_arrays(BACKBONE.shapes())
    counter = {"stem.conv1.norm.num_batches_tracked": np.int64(3), "stem.fc.bias": np.ones(9)}
    save(
        tmp_path / "a.pth", wrap(tensors({**{rename(n): a for n, a in params.items()}, **counter}))
    )
    assert pth2ckpt.main([f"--input={tmp_path / 'a.pth'}"]) == 0
    result = checkpoint.load_weights(tmp_path / "a.ckpt")
    assert_same(result, params)
    told = capsys.readouterr().out
    assert (
        "backbone with res5 of model.backbone.depth 50, model.backbone.stem_out_channels 4, "
        in told
    )
    assert "2 buffers left out" in told
    heads = {name: array.shape for name, array in detector().items()}
    missing, _ = BACKBONE_PRETRAINED.check(shapes_of(result), heads, "f")
    assert len(missing) == 14


def test_backbone_without_res5_is_named(tmp_path):
    params = {n: a for n, a in random_arrays(BACKBONE.shapes()).items() if "res5" not in n}
    fake_torch.save_zip(tmp_path / "a.pth", tensors(params))
    with pytest.raises(InputError, match=r"missing: 50 \(roi_heads\.res5\.0\.conv1\.norm\.bias"):
        pth2ckpt.main([f"--input={tmp_path / 'a.pth'}"])


def test_pkl_of_a_whole_detector(tmp_path):
    """As detectron2's model zoo has its Faster R-CNN C4: without decoupling layers."""
    params = random_arrays(small(affine_rpn=False, affine_rcnn=False).shapes())
    extra = {ANCHORS: np.zeros((15, 4), np.float32), "pixel_mean": np.ones((3, 1, 1))}
    content = {"model": {**params, **extra}, "__author__": "x"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    assert pkl2ckpt.main([f"--input={tmp_path / 'a.pkl'}", f"--output={tmp_path / 'b.ckpt'}"]) == 0
    assert_same(checkpoint.load_weights(tmp_path / "b.ckpt"), params)


THIN = ["--model.backbone.depth=50", "--model.backbone.res2_out_channels=128"]


def test_real_thin_resnet(tmp_path):
    """A half-width ResNet-50 trained on photographs: from a bare .pth, and there and back."""
    folder = shared("weights_thin_r50")
    real = checkpoint.load_weights(folder / "thin_r50.ckpt")
    bare = {_bare(name): array for name, array in real.items()}
    fake_torch.save_zip(tmp_path / "bare.pth", tensors(bare))
    config = f"--config_path={ROOT / 'configs' / 'defrcn_base.yaml'}"
    with pytest.raises(InputError, match="depth 50 instead of 101, .*res2_out_channels 128"):
        pth2ckpt.main([f"--input={tmp_path / 'bare.pth'}", config])
    assert pth2ckpt.main([f"--input={tmp_path / 'bare.pth'}", config, *THIN]) == 0
    assert_same(checkpoint.load_weights(tmp_path / "bare.ckpt"), real)
    back, again = tmp_path / "back.pth", tmp_path / "again.ckpt"
    pth2ckpt.main(["--to-pth", f"--input={folder / 'thin_r50.ckpt'}", f"--output={back}"])
    pth2ckpt.main([f"--input={back}", f"--output={again}"])
    assert again.read_bytes() == (tmp_path / "bare.ckpt").read_bytes()


def test_a_configuration_is_compared_with(tmp_path):
    path = write_ckpt(tmp_path / "a.ckpt", random_arrays(LAYOUTS["demo"].shapes()))
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
    encoder = write_ckpt(tmp_path / "e.ckpt", random_arrays(ENCODER.shapes()))
    with pytest.raises(InputError, match="says nothing of the calibration block's network"):
        pth2ckpt.main(["--to-pth", f"--input={encoder}", config])


# ---- run as users of the older port do ----


def _run(script, folder, **env):
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, script], cwd=folder, env={**clean, **env}, capture_output=True, text=True
    )


def _small_real_pth(path):
    """Not a ResNet: the scripts get as far as naming what is wrong with it."""
    path.parent.mkdir(parents=True)
    fake_torch.save_legacy(path, tensors({"layer3.0.conv1.weight": np.ones(1, np.float32)}))


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
