# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Weights of small networks, and the files that others would have written of them."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections import OrderedDict

import numpy as np

from src.weights.weight_shapes import DetectorLayout, EncoderLayout
from tests.golden import golden
from tests.helpers import fake_torch


def official_shapes(kind):
    specs = json.loads((golden.HERE / f"specs_{kind}.json").read_text())
    return {name: tuple(shape) for name, shape in specs.items()}


def random_arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def spread(shapes):
    """Arrays of these shapes that take no room."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def small(**changes):
    """A ResNet-50 with an eighth of the channels, so that whole files are small."""
    layout = DetectorLayout(
        50, 4, 8, num_anchors=15, num_classes=3, affine_rpn=True, affine_rcnn=True
    )
    return dataclasses.replace(layout, **changes)


BACKBONE = small(num_anchors=0, num_classes=0, affine_rpn=False, affine_rcnn=False)
ENCODER = EncoderLayout((3, 4, 23, 3), 4, (2, 4, 8, 16), (8, 16, 32, 64), 5)


_CAFFE = {"weight": "w", "norm.weight": "bn_s", "norm.bias": "bn_b"}
_BRANCH = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}


def caffe2_names(specs):
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


def caffe2_file(path, wrap=lambda blobs: blobs, protocol=2):
    """A file like R-101.pkl, of a ResNet-50 with few channels, fc1000 included."""
    shapes = BACKBONE.shapes()
    params = random_arrays(shapes)
    blobs = {caffe: params[official] for official, caffe in caffe2_names(shapes).items()}
    blobs.update(fc1000_w=np.ones((5, 64), np.float32), fc1000_b=np.ones(5, np.float32))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(wrap(blobs), protocol))
    return blobs


def tensors(params):
    """As a state_dict: ordered, with the `_metadata` attribute that torch gives it."""
    result = OrderedDict(
        (name, fake_torch.tensor(str(index), array))
        for index, (name, array) in enumerate(params.items())
    )
    result._metadata = OrderedDict({"": {"version": 1}})
    return result


def detector(**changes):
    return random_arrays(small(**changes).shapes())


ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"


def official_file(path, params, save=fake_torch.save_zip):
    model = tensors({**params, ANCHORS: np.zeros((15, 4), np.float32)})
    moment = fake_torch.tensor("m", np.ones(3, np.float32))
    content = {
        "model": model,
        "optimizer": {"state": {0: {"momentum_buffer": moment}}, "param_groups": [{"lr": 0.02}]},
        "scheduler": {"last_epoch": 4, "milestones": [1, 2]},
        "iteration": 109999,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, content)


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for name, array in expected.items():
        assert actual[name].dtype == np.float32 and actual[name].shape == array.shape, name
        assert actual[name].tobytes() == array.tobytes(), name
