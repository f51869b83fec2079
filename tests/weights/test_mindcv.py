# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""ResNets of MindCV: features equal to those of MindCV's code, and files that are told apart."""

import numpy as np
import pytest

from src.defrcn.pcb_encoder import ResNetEncoder, normalised
from src.defrcn.pcb_resnet import layout_of
from src.model_utils.errors import InputError
from src.weights.checkpoint import load_weights
from src.weights.ckpt_format import write_ckpt
from src.weights.mindcv import is_mindcv, torchvision_names
from tests.helpers import mindcv_reference as reference


@pytest.fixture(scope="module")
def stored():
    with np.load(reference.PATH) as file:
        return dict(file)


@pytest.fixture(scope="module")
def params(stored):
    shapes = {name: array for name, array in stored.items() if "features" not in name}
    return {name: reference.values(name, tuple(shape)) for name, shape in shapes.items()}


def encoder_of(params, **settings):
    fixed = {"identity": "", "source": "resnet.ckpt", "max_pixels": 10**7}
    return ResNetEncoder(params, **{**fixed, **settings})


def check(encoder, stored, sizes=reference.SIZES):
    """Compare with MindCV's features; sides are odd and even after the stem."""
    for size in sizes:
        expected = stored[f"features {size[0]} {size[1]}"]
        found = encoder.feature_map(reference.pixels(size))[..., :: reference.EVERY]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * scale, err_msg=str(size))


def test_features_are_those_of_mindcv(stored, params, tmp_path):
    """From the file, whole pictures and pieces."""
    write_ckpt(tmp_path / "resnet.ckpt", params)
    encoder = encoder_of(load_weights(tmp_path / "resnet.ckpt", mindcv=True))
    assert encoder.layout.blocks == reference.BLOCKS and encoder.layout.num_outputs == 10
    check(encoder, stored)
    encoder.max_pixels = 1
    check(encoder, stored, reference.SIZES[-1:])
    # It must be able to fail: torchvision's pooling, which takes all sides as odd, is another.
    expected = stored["features 64 96"]
    image = normalised(reference.pixels((64, 96)))
    found = encoder._encode(image, np.ones(2, np.float32))[..., :: reference.EVERY]
    assert np.abs(found - expected).max() > 0.01 * np.abs(expected).max()


def test_kernels_give_the_same_features(stored, params, kernels):
    check(encoder_of(params, library=kernels), stored)


@pytest.mark.slow
def test_padding_changes_nothing(stored, params):
    """As for accelerators that want fixed shapes."""
    check(encoder_of(params, shape_step=128), stored)


def test_the_last_layer_makes_vectors(params):
    encoder = encoder_of(params)
    pooled = np.random.default_rng(0).normal(size=(3, 2048)).astype(np.float32)
    by_hand = pooled @ params["classifier.weight"].T + params["classifier.bias"]
    np.testing.assert_allclose(encoder.project(pooled), by_hand, rtol=1e-5, atol=1e-5)


def test_names_tell_the_kind(params):
    assert is_mindcv(params)
    renamed = torchvision_names(params)
    assert not is_mindcv(renamed) and len(renamed) == len(params)
    assert (
        renamed["layer1.0.downsample.1.running_var"]
        is params["layer1.0.down_sample.1.moving_variance"]
    )
    # The older port's encoder has such norms as well, but torchvision's other names.
    assert not is_mindcv({"conv1.weight", "bn1.gamma", "layer1.0.bn1.gamma", "fc.weight"})


def test_it_is_no_backbone(params, tmp_path):
    path = tmp_path / "resnet50.ckpt"
    write_ckpt(path, params)
    with pytest.raises(
        InputError, match=r"resnet50.ckpt is a ResNet of MindCV.*backbone_pretrained_path, no back"
    ):
        load_weights(path)


@pytest.mark.parametrize("change", ["groups", "basic"])
def test_relatives_are_refused(params, change):
    """ResNeXt has narrower 3x3 kernels, ResNet-18 no third convolution."""
    changed = dict(params)
    if change == "groups":
        changed["layer2.0.conv2.weight"] = params["layer2.0.conv2.weight"][:, :4]
    else:
        changed = {n: a for n, a in params.items() if "conv3" not in n and "bn3" not in n}
    shapes = {name: array.shape for name, array in torchvision_names(changed).items()}
    words = "layer2.0.conv2.weight" if change == "groups" else "lacks 'layer1.0.conv3.weight'"
    with pytest.raises(InputError, match=words):
        layout_of(shapes, "file.ckpt")
