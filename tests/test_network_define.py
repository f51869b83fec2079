# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Parameter names and shapes are those of the official checkpoint."""

import pytest

from src.defrcn.fast import make_fast
from src.model_utils.config_model import ModelSection
from src.network_define import build_detector
from tests.golden import golden, weights


@pytest.mark.parametrize("name", ["base", "novel", "all"])
def test_names_and_shapes(name):
    specs = weights.load_specs(golden.common(f"specs_{name}.json"))
    wanted = {key: tuple(shape) for key, shape in dict(specs).items()}
    num_classes = wanted["roi_heads.box_predictor.cls_score.bias"][0] - 1
    net = build_detector(ModelSection(), num_classes=num_classes, max_size=1333, masked=False)
    assert {p.name: tuple(p.shape) for p in net.get_parameters()} == wanted
    order = list(wanted)
    make_fast(net)
    assert {p.name: tuple(p.shape) for p in net.get_parameters()} == wanted
    assert len([p for p in net.get_parameters()]) == len(order)
