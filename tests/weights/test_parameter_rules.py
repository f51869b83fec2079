# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Strict parameter lists and the older port's names."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from src.model_utils.errors import InputError
from src.util import listing
from src.weights import parameter_rules as rules
from src.weights.weight_shapes import DetectorLayout
from tests.golden import golden


@pytest.fixture(scope="module")
def wanted():
    return json.loads((golden.HERE / "specs_base.json").read_text())


def test_whole_network_is_accepted_in_any_order(wanted):
    given = dict(sorted(wanted.items(), reverse=True))
    assert rules.FULL.check(given, wanted, "a.ckpt") == ([], [])


def test_every_problem_is_named_at_once(wanted):
    given = dict(wanted)
    del given["affine_rpn.bias"]
    given["extra.weight"] = (3,)
    given["roi_heads.box_predictor.cls_score.weight"] = (81, 2048)
    with pytest.raises(InputError) as caught:
        rules.FULL.check(given, wanted, "a.ckpt")
    text = str(caught.value)
    assert text.count("\n") == 0
    for part in (
        "a.ckpt",
        "missing: 1 (affine_rpn.bias)",
        "unexpected: 1 (extra.weight)",
        "cls_score.weight (81, 2048) instead of (61, 2048)",
        "num_classes",
    ):
        assert part in text


def test_long_lists_are_cut(wanted, caplog):
    with pytest.raises(InputError, match=r"missing: 534 \(.*, and 529 more\)") as caught:
        rules.FULL.check({}, wanted, "a.ckpt")
    assert len(str(caught.value)) < 500 and caplog.text == ""
    rule = rules.ParameterRule("any", allowed_missing=("*",))
    caplog.set_level(logging.INFO)
    missing, _ = rule.check({}, wanted, "a.ckpt")
    assert missing == sorted(wanted) and len(missing) == 534
    assert "534 not in the file" in caplog.text and len(caplog.text) < 1500


def test_names_that_are_no_names():
    names = ["x" * 10**5, "two\nlines", "\x1b[31m", "half \ud800", "a"]
    text = listing(names)
    assert len(text) < 300 and text.isprintable() and r"two\nlines" in text
    assert listing(["b", "a", "c"], 2) == "b, a, and 1 more"


def test_another_layout_is_named_by_its_keys(wanted):
    """A half-width ResNet-50 for the paper's ResNet-101: what to set, not 500 names."""
    layout = DetectorLayout(50, 64, 128, 15, 20, affine_rpn=False, affine_rcnn=True)
    with pytest.raises(InputError) as caught:
        rules.FULL.check(layout.shapes(), wanted, "a.ckpt")
    text = str(caught.value)
    for key in ("depth 50 instead of 101", "res2_out_channels 128 instead of 256"):
        assert f"model.backbone.{key}" in text
    assert "model.num_classes 20 instead of 60" in text and "stem_out_channels" not in text
    assert "model.rpn.enable_decouple false instead of true" in text
    assert "model.roi_heads" not in text and len(text) < 1500 and "\n" not in text
    backbone = DetectorLayout(50, 64, 256, 0, 0, affine_rpn=False, affine_rcnn=False)
    with pytest.raises(
        InputError, match=r"made with model\.backbone\.depth 50 instead of 101: set"
    ):
        rules.BACKBONE_PRETRAINED.check(backbone.shapes(), wanted, "a.ckpt")


def test_a_file_of_another_kind(wanted):
    with pytest.raises(InputError, match="of another kind; src/pth2ckpt.py"):
        rules.FULL.check({"conv1.weight": (64, 3, 7, 7)}, wanted, "a.ckpt")


def test_backbone_rule(wanted, caplog):
    caplog.set_level(logging.INFO)
    heads = ("proposal_generator.", "roi_heads.box_predictor.", "affine_")
    given = {name: shape for name, shape in wanted.items() if not name.startswith(heads)}
    missing, unused = rules.BACKBONE_PRETRAINED.check(
        {**given, "fc1000.weight": (1000, 2048)}, wanted, "b.ckpt"
    )
    assert len(missing) == 14
    assert unused == ["fc1000.weight"]
    assert all(name in caplog.text for name in (*missing, *unused))
    del given["roi_heads.res5.2.conv3.norm.bias"]
    with pytest.raises(InputError, match=r"missing: 1 \(roi_heads\.res5\.2\.conv3\.norm\.bias\)"):
        rules.BACKBONE_PRETRAINED.check(given, wanted, "b.ckpt")


def test_surgery_rule(wanted):
    given = {name: shape for name, shape in wanted.items() if "box_predictor" not in name}
    missing, _ = rules.SURGERY_REMOVE.check(given, wanted, "s.ckpt")
    assert len(missing) == 4
    with pytest.raises(InputError, match="missing: 4"):
        rules.FULL.check(given, wanted, "s.ckpt")
    del given["affine_rcnn.weight"]
    with pytest.raises(InputError, match="affine_rcnn.weight"):
        rules.SURGERY_REMOVE.check(given, wanted, "s.ckpt")


def test_shapes_of():
    assert rules.shapes_of({"a": np.zeros((2, 3)), "b": np.float32(1)}) == {"a": (2, 3), "b": ()}


@pytest.mark.parametrize(
    "name",
    [
        "rpn_with_loss.rpn_convs_list.0.rpn_cls.bias",
        "rcnn.cls_scores.weight",
        "rcnn.reg_scores.bias",
        "backbone.stem.bn1.moving_mean",
        "backbone.stem.bn1.gamma",
        "backbone.layer1.0.conv1.weight",
        "layer4.0.bn_down_sample.gamma",
        "layer4.0.conv_down_sample.weight",
        "end_point.weight",
        "accum.rcnn.cls_scores.weight",
        "bn1.moving_mean",
        "layer1.0.bn1.gamma",
        "layer1.0.downsample.1.moving_variance",
    ],
)
def test_older_port_is_recognised(name):
    with pytest.raises(InputError, match="older MindSpore port.*pth2ckpt"):
        rules.refuse_older_port(["conv1.weight", name], "old.ckpt")


@pytest.mark.parametrize("kind", ["base", "novel", "all", "pcb"])
def test_own_names_are_not_taken_for_the_older_port(kind):
    rules.refuse_older_port(json.loads((golden.HERE / f"specs_{kind}.json").read_text()), "a.ckpt")
