# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""How a device computes: formulation, precision, the factor of the loss."""

import logging

import mindspore as ms

from src.assembly.export import for_export
from src.assembly.training import amp_level_of, formulation_of, loss_scale_of, make_detector
from src.defrcn.half import HalfBackbone
from src.engine.loss_scale import LossScale
from src.model_utils.config import load_config
from src.model_utils.paths import project_folder

DEMO = project_folder() / "configs/demo/shapes_base.yaml"


def load(*flags):
    return load_config(DEMO, [f"--{flag}" for flag in flags])


def test_precision_and_formulation_by_device():
    found = {}
    for target in ("CPU", "GPU", "Ascend"):
        for level in ("O0", "auto"):
            config = load(f"device_target={target}", f"amp_level={level}")
            scale = loss_scale_of(config)
            found[target, level] = (formulation_of(config), amp_level_of(config), scale is not None)
    assert found == {
        ("CPU", "O0"): ("fast", "O0", False),
        ("CPU", "auto"): ("fast", "O0", False),
        ("GPU", "O0"): ("plain", "O0", False),
        ("GPU", "auto"): ("plain", "O2", True),
        ("Ascend", "O0"): ("plain", "O0", False),
        ("Ascend", "auto"): ("plain", "O3", True),
    }
    assert formulation_of(load("amp_level=O2")) == "plain"
    fixed = loss_scale_of(
        load("amp_level=O3", "solver.loss_scale=128", "solver.loss_scale_window=5")
    )
    assert fixed == LossScale(128.0, dynamic=False, window=5)


def test_half_precision_is_put_in_and_said(caplog):
    with caplog.at_level(logging.INFO):
        net = make_detector(load("amp_level=O2", "amp_dtype=bfloat16"), ("a", "b"))
    assert isinstance(net.backbone, HalfBackbone)
    assert net.roi_heads.res5[0].conv1.dtype == ms.bfloat16
    assert "backbone and res5 in bfloat16 (amp_level O2)" in caplog.text
    assert "kernels" not in caplog.text


def test_what_is_exported_is_float32():
    config = load("amp_level=O2", "img_height=96", "img_width=128")
    assert amp_level_of(for_export(config)) == "O0"
