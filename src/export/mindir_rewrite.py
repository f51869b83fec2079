# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From version 3 of the MINDIR format, which MindSpore 2.7 to 2.10 write, to version 1.

MindSpore Lite 2.0.0, the only one in a public Python registry, reads version 1. In version 3 most
operators are functions whose arguments all are inputs; in version 1 some of these are attributes
of the operator. What this module does not know it refuses: a file that is read without complaint
and computed wrongly is worse than none. So it is with what that runtime computes wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from mindspore.train import mind_ir_pb2 as pb

from src.model_utils.errors import InputError

VERSION = 1
KNOWN_VERSIONS = (2, 3)
_A = pb.AttributeProto

#: Functions that have no arguments but their tensors (or that keep all of them as inputs).
PLAIN = frozenset(
    "Abs Add Cast Ceil Div ExpandDims Floor FloorDiv Greater GreaterEqual Less LessEqual "
    "LogicalAnd Maximum Minimum Mul Neg ReLU Reshape Select Sqrt Sub Tile Transpose".split()
)
#: Functions with attributes: how many inputs stay, and the names of the arguments after these.
WITH_ATTRIBUTES: dict[str, tuple[int, tuple[str, ...]]] = {
    "BatchMatMul": (2, ("transpose_a", "transpose_b")),
    "BiasAdd": (2, ("format",)),
    "Concat": (1, ("axis",)),
    "Gather": (3, ("batch_dims",)),
    "MatMul": (2, ("transpose_a", "transpose_b")),
    "ReduceAll": (2, ("keep_dims",)),
    "ReduceMean": (2, ("keep_dims",)),
    "ReduceSum": (2, ("keep_dims", "skip_mode")),
    "Softmax": (1, ("axis",)),
    "StridedSlice": (
        4,
        ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"),
    ),
    "SumExt": (2, ("keep_dims", "dtype")),
}
#: Arguments that are numbers in version 3 and words in version 1.
WORDS = {"format": ("NCHW", "NHWC")}
#: Operators that are the same in both versions.
UNCHANGED = frozenset(
    "Conv2D Depend Load MakeTuple MaxPool Return Stack TopK TupleGetItem UpdateState".split()
)
#: Under another name; what else differs is done in `_Rewriter`.
NEW_NAMES = {"SumExt": "ReduceSum", "make_list": "MakeTuple", "Muls": "Mul"}


def to_version_1(content: bytes, source: str) -> bytes:
    """Rewrite a MINDIR file.

    Args:
        content: the file's bytes.
        source: its name, for messages.

    Returns:
        The same network as a file of version 1.

    Raises:
        InputError: it is no MINDIR file of a known version, or holds what version 1 or its
            reader lacks; every operator that is wrong is named.
    """
    model = pb.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # noqa: BLE001 - protobuf's own, whose class depends on its build
        raise InputError(f"{source} is no MINDIR file: {error}") from error
    if model.mind_ir_version not in KNOWN_VERSIONS or not model.graph.node:
        raise InputError(
            f"{source} is no MINDIR file of version {' or '.join(map(str, KNOWN_VERSIONS))} "
            f"(it says {model.mind_ir_version}); export it with the pinned MindSpore"
        )
    _Rewriter(model, source).run()
    model.mind_ir_version = VERSION
    return bytes(model.SerializeToString())


class _Rewriter:
    """Changes a model in place."""

    def __init__(self, model: Any, source: str) -> None:  # noqa: ANN401 - no types in the wheel
        self.model, self.source = model, source
        self.primitives = {primitive.name: primitive for primitive in model.primitives}
        self.shared: dict[bytes, Any] = {}
        self.problems: list[str] = []
        graph = model.graph
        self.constants = {n.output[0]: n.attribute[0] for n in graph.node if is_constant(n)}
        tensors = dict(_tensors(graph))
        self.shapes = {name: tuple(tensor.dims) for name, tensor in tensors.items()}
        self.dtypes = {name: tensor.data_type for name, tensor in tensors.items()}
        self.new_constants: list[Any] = []

    def run(self) -> None:
        """Rewrite every node.

        Raises:
            InputError: see `to_version_1`.
        """
        if self.model.functions:
            self.problems.append("control flow (parts that run or not, or again and again)")
        for node in self.model.graph.node:
            if not is_constant(node):
                self._rewrite(node)
        self.problems += _wrong_outputs(self.model.graph)
        if self.problems:
            listed = "; ".join(sorted(set(self.problems)))
            raise InputError(
                f"{self.source} cannot be written as MINDIR version {VERSION}: {listed}"
            )
        del self.model.primitives[:]
        self.model.primitives.extend(self.shared.values())
        nodes = [*self.new_constants, *self.model.graph.node]
        del self.model.graph.node[:]
        self.model.graph.node.extend(nodes)

    def _rewrite(self, node: Any) -> None:  # noqa: ANN401
        primitive = self.primitives.get(node.op_type.removeprefix("REF::"))
        if primitive is None:
            self.problems.append(f"{node.op_type}, which stands for a function")
            return
        kind = primitive.op_type
        if kind not in PLAIN | UNCHANGED | set(WITH_ATTRIBUTES) | set(NEW_NAMES):
            self.problems.append(f"operator {kind}")
            return
        problem = CHECKS[kind](self, node) if kind in CHECKS else None
        if problem:
            self.problems.append(f"{kind} {problem}")
        if self.problems:
            return
        changed = pb.PrimitiveProto()
        changed.CopyFrom(primitive)
        changed.prim_type = pb.PrimitiveProto.PRIMITIVE
        changed.op_type = NEW_NAMES.get(kind, kind)
        if kind in WITH_ATTRIBUTES:
            self._move_arguments(kind, node, changed)
        if kind == "Muls":
            node.input[1] = self._scalar_as_tensor(node.input[1])
        node.op_type = f"REF::{self._shared_name(changed)}"

    def _move_arguments(self, kind: str, node: Any, primitive: Any) -> None:  # noqa: ANN401
        """Constant inputs become attributes of the primitive."""
        kept, names = WITH_ATTRIBUTES[kind]
        arguments = list(node.input)[kept:]
        del node.input[kept:]
        for name, argument in zip(names, arguments):
            value = self.constants.get(argument)
            if value is None:
                self.problems.append(f"{kind} whose {name} is computed")
            elif value.type != _A.NONE:
                primitive.attribute.append(_attribute(name, value))

    def _scalar_as_tensor(self, name: str) -> str:
        """A constant tensor of the value of a constant number; the tensor's name."""
        new = f"{name}_tensor"
        if new not in self.constants:
            value = self.constants[name]
            node = pb.NodeProto(op_type="Constant", name=new, output=[new])
            attribute = node.attribute.add(name="value", type=_A.TENSORS)
            number = value.f if value.type == _A.FLOAT else value.i
            tensor = attribute.tensors.add(data_type=pb.TensorProto.FLOAT, name="value0")
            tensor.raw_data = np.float32(number).tobytes()
            self.new_constants.append(node)
            self.constants[new] = attribute
        return new

    def _shared_name(self, primitive: Any) -> str:  # noqa: ANN401
        """The name of a primitive: one for all nodes that need the same."""
        primitive.name = ""
        key = bytes(primitive.SerializeToString(deterministic=True))
        if key not in self.shared:
            primitive.name = f"{primitive.op_type}:{len(self.shared)}"
            self.shared[key] = primitive
        return str(self.shared[key].name)


def is_constant(node: Any) -> bool:  # noqa: ANN401
    """Whether a node holds a value instead of computing one."""
    return bool(node.op_type == "Constant")


def _attribute(name: str, value: Any) -> Any:  # noqa: ANN401
    """A constant's value as the attribute `name`."""
    made = _A()
    made.CopyFrom(value)
    made.name = name
    if name in WORDS:
        made.ClearField("i")
        made.type = _A.STRING
        made.s = WORDS[name][value.i].encode()
    return made


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Shape and dtype, as a tensor without numbers or not, of everything that is one tensor."""
    for value in graph.input:
        for tensor in value.tensor:
            yield value.name, tensor
    for parameter in graph.parameter:
        yield parameter.name, parameter
    for node in graph.node:
        wanted = "value" if is_constant(node) else "shape"
        for attribute in node.attribute:
            if attribute.name == wanted and attribute.type == _A.TENSORS:
                yield node.output[0], attribute.tensors[0]


def _wrong_outputs(graph: Any) -> list[str]:  # noqa: ANN401
    """Outputs of a dtype that would silently become another."""
    wide = (pb.TensorProto.INT64, pb.TensorProto.DOUBLE, pb.TensorProto.FLOAT16)
    inputs = [tensor for value in graph.input for tensor in value.tensor]
    outputs = [
        tensor
        for value in graph.output
        for one in (value.attr_info.values if value.HasField("attr_info") else ())
        for tensor in one.tensors
    ] + [tensor for value in graph.output for tensor in value.tensor]
    found = any(tensor.data_type in wide for tensor in (*inputs, *outputs))
    return ["an input or output that is neither float32 nor int32"] if found else []


def _reduces_everything(rewriter: _Rewriter, node: Any) -> str | None:  # noqa: ANN401
    """Predict never returns from a reduction that does not name its axes."""
    axes = rewriter.constants.get(node.input[1])
    named = axes is not None and (len(axes.values) or axes.type == _A.INT64)
    return None if named else "over all axes without naming them"


def _broadcasts_choice(rewriter: _Rewriter, node: Any) -> str | None:  # noqa: ANN401
    """A Select that broadcasts gives NaN."""
    shapes = [rewriter.shapes.get(name) for name in node.input[:3]]
    equal = None not in shapes and len(set(shapes)) == 1
    return None if equal else f"that broadcasts ({shapes})"


def _slices_truth(rewriter: _Rewriter, node: Any) -> str | None:  # noqa: ANN401
    """There is no kernel for it."""
    return "of bool" if rewriter.dtypes.get(node.input[0]) == pb.TensorProto.BOOL else None


def _half_precision(rewriter: _Rewriter, node: Any) -> str | None:  # noqa: ANN401
    """A cast to float16 is left out."""
    value = rewriter.constants.get(node.input[1])
    known = value is not None and value.i in DTYPES
    return None if known else "to a dtype other than float32, int32 and bool"


#: MindSpore's numbers of dtypes that both sides mean alike: bool, int32, float32.
DTYPES = (30, 34, 43)
#: What the reader computes wrongly, by operator: says so of a node, None of one that is right.
CHECKS: dict[str, Callable[[_Rewriter, Any], str | None]] = {
    "Cast": _half_precision,
    "Select": _broadcasts_choice,
    "StridedSlice": _slices_truth,
    **dict.fromkeys(("ReduceAll", "ReduceMean", "SumExt"), _reduces_everything),
}
