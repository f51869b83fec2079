# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""`create_network` builds the network of a recipe, with random or trained weights."""

import numpy as np
import pytest
from mindspore import Tensor

from mindspore_hub_conf import create_network, recipes
from src.model_utils.errors import InputError
from src.network_define import parameters_of
from src.weights.checkpoint import save_checkpoint
from src.weights.ckpt_format import write_ckpt

CLASSES = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def trained():
    """The demo's network for three classes, no weight of it as a fresh one has it."""
    params = parameters_of(create_network("shapes_base", num_classes=3, seed=7))
    return {name: array + np.float32(0.01) for name, array in params.items()}


def test_every_recipe_is_known_by_its_name():
    names = set(recipes())
    assert {"defrcn_det_r101_base", "defrcn_gfsod_r101_novel3_10shot", "shapes_base"} <= names
    assert not any(name.startswith("_") or name == "defrcn_base" for name in names)


def test_a_network_detects_at_once():
    net = create_network("shapes_base", num_classes=9)
    assert not net.training
    images = np.random.default_rng(0).uniform(0, 255, (1, 3, 96, 128)).astype(np.float32)
    size = np.array([96.0, 128.0], np.float32)
    boxes, scores, valid = net(Tensor(images), Tensor(size[None]), Tensor(size))
    assert boxes.shape == (1, 100, 9, 4) and scores.shape == (1, 100, 10)
    assert np.allclose(scores.asnumpy()[valid.asnumpy()].sum(axis=1), 1, atol=1e-5)


def test_the_recipe_and_keys_decide_what_is_built():
    net = create_network(
        "shapes_base", num_classes=2, **{"model.backbone.res2_out_channels": 16, "seed": 3}
    )
    shapes = {name: array.shape for name, array in parameters_of(net).items()}
    assert shapes["roi_heads.box_predictor.cls_score.weight"] == (3, 128)
    assert shapes["backbone.stem.conv1.weight"][0] == 16


@pytest.mark.parametrize("as_folder", [True, False], ids=["run", "file"])
def test_trained_weights_and_their_classes(tmp_path, trained, as_folder):
    if as_folder:
        save_checkpoint(
            tmp_path / "ckpt_0", 1, trained, {"seed": np.array(0)}, {"class_names": CLASSES}
        )
        net = create_network("shapes_base", pretrained=tmp_path)
    else:
        path = write_ckpt(tmp_path / "net.ckpt", trained)
        net = create_network("shapes_base", pretrained=path, num_classes=3)
    assert not net.training
    for name, array in parameters_of(net).items():
        assert np.array_equal(array, trained[name]), name


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no recipe 'fasterrcnn'.*defrcn_det_r101_base.*shapes"):
        create_network("fasterrcnn")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give num_classes"),
        ({"num_classes": 3, "model.depth": 50}, r"model\.depth: unknown key"),
        ({"num_classes": 3, "pretrained": "missing.ckpt"}, "pretrained: missing.ckpt does not"),
    ],
)
def test_what_cannot_be_built_is_said(given, message):
    with pytest.raises(InputError, match=message):
        create_network("shapes_base", **given)


def test_weights_of_other_classes_are_refused(tmp_path, trained):
    path = write_ckpt(tmp_path / "net.ckpt", trained)
    with pytest.raises(InputError, match="cls_score"):
        create_network("shapes_base", pretrained=path, num_classes=4)
