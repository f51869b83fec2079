# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A sweep of one run with the real train.py, K-shot files and surgery, on a few small pictures."""

import json

import pytest
import yaml

from src.assembly import training as assembly
from src.demo.make_data import make_demo_data
from src.model_utils.config import load_config
from src.sweep import __main__ as sweep
from src.tools import draw_kshot
from src.weights.checkpoint import save_checkpoint
from src.weights.initialise import initialise
from tests.helpers.trained import configuration


@pytest.fixture
def base(tmp_path):
    """Data with K-shot files, a configuration for every shot, and a base checkpoint."""
    make_demo_data(tmp_path / "shapes", seed=0, num_train=24, num_test=2)
    settings = configuration(tmp_path)
    settings["data"]["custom"]["shapes"]["few_shot"] = "shapes/split"
    settings["solver"].update(max_iter=2, images_per_card=1, images_per_batch=1)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    config = load_config(path)
    annotations = tmp_path / "shapes/annotations/train.json"
    flags = [f"--annotations={annotations}", f"--output={tmp_path / 'shapes/split'}"]
    assert draw_kshot.main([*flags, "--shots", "1", "--seeds", "1"]) == 0
    info, _ = assembly.read_sets(config, ("shapes_train_base",))
    net = assembly.make_detector(config, info.class_names)
    initialise(net, 0)
    params = {p.name: p.asnumpy() for p in net.get_parameters()}
    names = {"class_names": list(info.class_names)}
    save_checkpoint(tmp_path / "base", 1, params, {"seed": params["affine_rpn.bias"]}, names)
    return tmp_path


def test_surgery_training_evaluation_table(base, capsys):
    flags = [
        f"--output={base / 'sweep'}",
        "--dataset=own",
        "--setting=fsod",
        "--shots=1",
        "--seeds=0",
        f"--config_path={base / 'tiny.yaml'}",
        f"--base_checkpoint={base / 'base'}",
        "--data.train=[shapes_train_novel_{shot}shot_seedx]",
        "--data.test=[shapes_test_novel]",
        "--test.visualize_images=0",
        "--model.roi_heads.freeze_feat=true",
    ]
    assert sweep.main(flags) == 0
    folder = base / "sweep" / "tfa-like" / "1shot_seed0"
    result = json.loads((folder / "sweep_result.json").read_text())
    metrics = json.loads((folder / "eval_2" / "metrics.json").read_text())
    assert result["metrics"] == metrics and list(metrics) == ["shapes_test_novel"]
    assert (result["iterations"], result["images"]) == (2, 2)
    assert len(result["support_set_sha256"]) == 64
    assert (base / "sweep" / "surgery" / "model_reset_remove.ckpt").is_file()
    assert sorted(path.name for path in (folder / "ckpt_0").iterdir()) == [
        "defrcn-2.ckpt",
        "defrcn-2.json",
        "defrcn-2.state.npz",
    ]
    nap = metrics["shapes_test_novel"]["results"]["nAP"]
    text = capsys.readouterr().out
    assert f" {nap:.2f} |" in text
    table = (base / "sweep" / "tfa-like" / "table.md").read_text()
    for name in ("crescent", "cross", "checkerboard"):
        assert name in table
    # again: nothing is left to do
    changed = (folder / "sweep_result.json").stat().st_mtime_ns
    assert sweep.main(flags) == 0
    assert (folder / "sweep_result.json").stat().st_mtime_ns == changed
