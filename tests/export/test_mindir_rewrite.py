# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""MINDIR of version 1: the same numbers, and refusals of what its reader gets wrong."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from mindspore.train import mind_ir_pb2 as pb

from src.export.mindir_rewrite import to_version_1
from src.model_utils.errors import InputError

VALUES = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


class Net(nn.Cell):
    """Anything that takes one matrix."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = Parameter(Tensor(VALUES.T.copy()), name="weight")

    def construct(self, values):
        return self.function(values, self.weight)


def exported(function, tmp_path):
    path = tmp_path / "net.mindir"
    ms.export(Net(function), Tensor(VALUES), file_name=str(path), file_format="MINDIR")
    return path.read_bytes()


def allowed(values, weight):
    """Every kind of change: attributes, words, numbers, names."""
    product = ops.MatMul(transpose_b=True)(values, values) * 0.5
    parts = ops.concat((ops.softmax(product, 1), ops.MatMul()(values, weight)), 1)
    chosen = ops.where(parts > 0.1, parts, ops.zeros_like(parts))
    best, place = ops.TopK(True)(chosen[1:, 2:8].sum(1), 2)
    rows = ops.gather(ops.bias_add(parts, best[:1].tile((8,))), place, 0)
    whole = ops.logical_and((rows > -9).all(-1), rows.mean(1) > -1)
    return ops.stack((whole.astype(ms.float32), -ops.floor(best))), rows.transpose(1, 0)


def test_the_same_numbers(tmp_path):
    content = exported(allowed, tmp_path)
    made = to_version_1(content, "net.mindir")
    model = pb.ModelProto()
    model.ParseFromString(made)
    assert model.mind_ir_version == 1
    kinds = {primitive.op_type for primitive in model.primitives}
    assert {"ReduceSum", "ReduceMean", "ReduceAll", "BiasAdd", "Softmax"} <= kinds
    assert not kinds & {"SumExt", "Muls", "make_list"}
    assert {primitive.prim_type for primitive in model.primitives} == {pb.PrimitiveProto.PRIMITIVE}
    places = {}
    for name, bytes_ in (("three", content), ("one", made)):
        path = tmp_path / f"{name}.mindir"
        path.write_bytes(bytes_)
        cell = nn.GraphCell(ms.load(str(path)))
        places[name] = [one.asnumpy() for one in cell(Tensor(VALUES))]
    for mine, other in zip(places["one"], places["three"]):
        assert np.isfinite(other).all()
        np.testing.assert_array_equal(mine, other)


def sorted_(values, weight):
    return ops.sort(values)[0]


def everything(values, weight):
    return values.sum() + weight[0]


def means(values, weight):
    return ops.mean(values) + weight[0]


def broadcast(values, weight):
    return ops.where(values[:, :1] > 0, values, weight[:1, :1].tile((4, 6)))


def powers(values, weight):
    return ops.pow(Tensor(2.0, ms.float32), values)


def halves(values, weight):
    return values.astype(ms.float16).astype(ms.float32) * 2.0


def long_output(values, weight):
    return (values > 0).astype(ms.int64)


def sliced_truth(values, weight):
    return (values > 0)[1:].astype(ms.float32)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (sorted_, "operator Sort"),
        (everything, "SumExt over all axes"),
        (means, "ReduceMean over all axes"),
        (broadcast, "Select that broadcasts"),
        (powers, "operator Pow"),
        (halves, "Cast to a dtype"),
        (long_output, "Cast to a dtype"),
        (sliced_truth, "StridedSlice of bool"),
    ],
)
def test_refused(function, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        to_version_1(exported(function, tmp_path), "net.mindir")
    assert str(caught.value).startswith("net.mindir cannot be written as MINDIR version 1: ")


def test_all_problems_are_named(tmp_path):
    def both(values, weight):
        return ops.sort(values)[0] + ops.erf(values)

    with pytest.raises(InputError, match="operator Erf; operator Sort"):
        to_version_1(exported(both, tmp_path), "net.mindir")


@pytest.mark.parametrize("content", [b"", b"no such file", b"\x08\x01"])
def test_no_mindir(content):
    with pytest.raises(InputError, match=r"weights\.ckpt is no MINDIR file"):
        to_version_1(content, "weights.ckpt")


def test_a_file_of_version_1_is_not_rewritten_again(tmp_path):
    made = to_version_1(exported(allowed, tmp_path), "net.mindir")
    with pytest.raises(InputError, match="it says 1"):
        to_version_1(made, "net.mindir")
