# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Compiled steps on CPU have no large broadcasts and transposes.

MindSpore's kernels for them keep 16 and 8 bytes for every number of their output as long as the
graph lives, and are slow.
"""

import math
import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.kernels import use_kernels
from src.network_define import build_eval_step, build_train_step
from src.sgd_optimizer import SGD
from tests.helpers import small
from tests.helpers.small import training_inputs

BROADCASTING = ("Add", "Sub", "Mul", "Div", "RealDiv", "Maximum", "Minimum", "Select")
NODE = re.compile(
    r" = (?:PrimFunc_|Primitive::)?(\w+)\([^\n]*\n\s*: \((?P<given>.*)\) -> \((?P<made>.*)\)$",
    re.MULTILINE,
)
SHAPE = re.compile(r"<Tensor\[\w+\], \(([\d, ]*)\)>")


def shapes_in(text):
    return [tuple(map(int, re.findall(r"\d+", one))) for one in SHAPE.findall(text)]


def heavy(text, limit):
    """Operators of a graph that spread or turn more than so many numbers, with their shapes."""
    found = []
    for node in NODE.finditer(text):
        given, made = shapes_in(node["given"]), shapes_in(node["made"])
        if not made or math.prod(made[0]) < limit:
            continue
        spreads = node[1] in BROADCASTING and any(shape != made[0] for shape in given)
        if spreads or node[1] in ("Transpose", "BroadcastTo"):
            found.append((node[1], *given))
    return found


def graphs(net, folder):
    """The text of the graphs of a training step and of inference, compiled for one shape."""
    inputs = training_inputs()
    ms.set_context(save_graphs=1, save_graphs_path=str(folder))
    try:
        optimizer = SGD(net.trainable_params(), [0.0] * len(net.trainable_params()), 0.9, False)
        gradients_of, _ = build_train_step(net, optimizer, batch_size=2, exact=False)
        gradients_of(*inputs)[0].asnumpy()
        build_eval_step(net, exact=False)(*inputs[:3])[0].asnumpy()
    finally:
        ms.set_context(save_graphs=0)
    return [path.read_text() for path in sorted(folder.rglob("*_validate_*.ir"))]


@pytest.mark.parametrize("norm", ["FrozenBN", pytest.param("BN", marks=pytest.mark.slow)])
def test_nothing_large_is_spread_or_turned(kernels, norm, tmp_path):
    net = small.detector(small.section(backbone__norm=norm, backbone__freeze_at=0))
    use_kernels(net, kernels)
    images, _, padded = map(Tensor, training_inputs()[:3])
    limit = np.prod(net.backbone(images, padded).shape)
    texts = graphs(net, tmp_path)
    assert len(texts) == 2
    for text in texts:
        assert len(NODE.findall(text)) > 20
        assert heavy(text, limit) == []


def test_they_would_be_found():
    text = (
        "  %1(CNode_2) = PrimFunc_Mul(%0, %3) attributes: {a: 1}\n"
        "      : (<Tensor[Float32], (4, 6, 128)>, <Tensor[Float32], (128)>)"
        " -> (<Tensor[Float32], (4, 6, 128)>)\n"
        "  %2(CNode_3) = PrimFunc_Add(%1, %1)\n"
        "      : (<Tensor[Float32], (4, 6, 128)>, <Tensor[Float32], (4, 6, 128)>)"
        " -> (<Tensor[Float32], (4, 6, 128)>)\n"
        "  %3(CNode_4) = PrimFunc_Transpose(%1, %5)\n"
        "      : (<Tensor[Float32], (4, 6, 128)>, <Tuple[Int64*3]>)"
        " -> (<Tensor[Float32], (6, 4, 128)>)\n"
    )
    assert heavy(text, 3072) == [("Mul", (4, 6, 128), (128,)), ("Transpose", (4, 6, 128))]
    assert heavy(text, 3073) == []
