# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 02: boxes to deltas and back."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.box_ops import decode_boxes, encode_boxes
from tests.golden import golden

pytestmark = pytest.mark.golden
WEIGHTS = {"w1": (1.0, 1.0, 1.0, 1.0), "w10": (10.0, 10.0, 5.0, 5.0)}
DELTA_TOLERANCE = {"w1": 1e-4, "w10": 1e-3}


def assert_boxes(actual, expected):
    assert actual.shape == expected.shape
    assert (np.abs(actual - expected) <= 2e-5 * (1 + np.abs(expected))).all()


@pytest.fixture(scope="module")
def data():
    return golden.arrays("02_box_transform")


@pytest.fixture(params=[False, True], ids=["eager", "compiled"])
def run(request):
    """Call a function eagerly or compiled, with arrays for tensors."""

    def call(function, *arrays):
        function = ms.jit(function, fullgraph=True) if request.param else function
        return function(*map(Tensor, arrays)).asnumpy()

    return call


@pytest.mark.parametrize("name", WEIGHTS)
def test_encode(data, run, name):
    def encode(src, dst):
        return encode_boxes(src, dst, WEIGHTS[name])

    deltas = run(encode, data["src"], data["dst"])
    expected = data[f"deltas_{name}"]
    np.testing.assert_allclose(deltas, expected, atol=DELTA_TOLERANCE[name], rtol=0)


@pytest.mark.parametrize("name", WEIGHTS)
def test_decode(data, run, name):
    def decode(deltas, src):
        return decode_boxes(deltas, src, WEIGHTS[name])

    assert_boxes(run(decode, data[f"deltas_{name}"], data["src"]), data[f"round_trip_{name}"])
    assert_boxes(run(decode, data["raw"], data["src"]), data[f"applied_{name}"])


@pytest.mark.parametrize("name", WEIGHTS)
def test_decode_per_class(data, run, name):
    def decode(deltas, boxes):
        return decode_boxes(deltas, boxes, WEIGHTS[name])

    count = len(data["src"])
    raw = data["raw_per_class"].reshape(count, -1, 4)
    boxes = run(decode, raw, data["src"][:, None])
    assert_boxes(boxes.reshape(count, -1), data[f"applied_per_class_{name}"])
