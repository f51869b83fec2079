# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The operators of the compiled graphs beside those that MindSpore's Ascend plugin knows.

    python benchmarks/ascend_operators.py

Compiles a small detector on the CPU as an Ascend card would get it (plain formulation, one fixed
shape, which has to leave no size unknown): a training step, inference, the exported network. Prints every operator of these graphs with
what the installed package has for it: kernels of CANN's aclnn and adapters to CANN's other operators,
by the symbols and names in the plugin's libraries (a name of a few letters may be part of the code,
and not be found), and whether MindSpore's documentation of the operator names Ascend. No card and no
CANN is needed; that a name is there does not show that its numbers are right.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.util import pipe_table  # noqa: E402

FLAGS = (
    "--overlay=configs/ascend.yaml",
    "--device_target=CPU",
    "--model.formulation=plain",
    "--model.backbone.norm=FrozenBN",
    "--input.input_shapes=[[96,128]]",
    "--solver.optimizer=sgd",
)
GRAPHS = ("training", "inference", "export")
# Nodes that are the graph's own, and no work for a device.
OF_THE_GRAPH = {
    *("Depend", "Load", "MakeTuple", "Partial", "Return", "Switch", "Tensor", "TupleGetItem"),
    "UpdateState",
}
# Those that begin with a small letter are calls of other graphs.
_NODE = re.compile(r" = (?:PrimFunc_)?([A-Z]\w*)\(")
_KERNEL = re.compile(r"mindspore::kernel::(?:\w+::)*(\w+?)Ascend\b")
_UNKNOWN_SIZE = re.compile(r"Tensor\[\w+\], \([^)]*-[12][^)]*\)")
_REFERENCE = re.compile(r"mindspore\.ops\.(\w+)")
_PLATFORMS = re.compile(r"Supported Platforms:\s+(.*)")


def compile_graph(which: str) -> None:
    """Compile and run one graph; MindSpore writes it down where the environment says."""
    import mindspore as ms
    from mindspore import Tensor

    from src.assembly.device import start_device
    from src.assembly.training import make_detector
    from src.export.network import DetectorForExport, example_inputs
    from src.model_utils.config import load_config
    from src.network_define import build_eval_step, build_optimizer, build_train_step
    from src.weights.initialise import initialise

    os.chdir(ROOT)
    config = load_config("configs/demo/shapes_base.yaml", FLAGS)
    start_device(config)
    net = make_detector(config, ("square", "disc", "cross"))
    initialise(net, 0)
    height, width = 96, 128
    images = np.zeros((1, 3, height, width), np.float32)
    sizes, padded = np.array([[height, width]], np.float32), np.array([height, width], np.int32)
    if which == "inference":
        build_eval_step(net, exact=False)(*map(Tensor, (images, sizes, padded)))[0].asnumpy()
        return
    if which == "export":
        network = DetectorForExport(
            net,
            height=height,
            width=width,
            pixel_mean=config.input.pixel_mean,
            pixel_std=config.input.pixel_std,
            restore_boxes=True,
            oblong=False,
        )
        compiled = ms.jit(network, fullgraph=True)
        compiled(*example_inputs(height, width))[0].asnumpy()
        return
    optimizer = build_optimizer(net, config.solver)
    gradients_of, update = build_train_step(net, optimizer, batch_size=1, exact=False)
    boxes = np.array([[[16, 20, 56, 70]]], np.float32)
    anchors = 6 * 8 * len(config.model.anchors.sizes) * len(config.model.anchors.aspect_ratios)
    noise = (np.zeros((1, anchors), np.float32), np.zeros((1, 201), np.float32))
    truth = (boxes, np.zeros((1, 1), np.int32), np.ones((1, 1), bool))
    inputs = (images, sizes, padded, *truth, *noise, np.zeros((1, 1), np.float32))
    _, _, gradients = gradients_of(*map(Tensor, inputs))
    update(gradients, Tensor(0.0, ms.float32)).asnumpy()


def operators(which: str) -> set[str]:
    """The operators of a graph, compiled in a process of its own.

    Raises:
        RuntimeError: it does not compile, or a tensor in it has a size that is not known then.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = {"MS_DEV_SAVE_GRAPHS": "1", "MS_DEV_SAVE_GRAPHS_PATH": folder}
        command = [sys.executable, str(Path(__file__)), "--graph", which]
        done = subprocess.run(
            command, env={**os.environ, **saved}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        paths = list(Path(folder).rglob("*_validate_*.ir"))
        assert paths, "MindSpore has written no graph"
        text = "".join(path.read_text() for path in paths)
    if unknown := _UNKNOWN_SIZE.search(text):
        raise RuntimeError(f"{which}: fixed shapes leave a size unknown: {unknown[0]}")
    return set(_NODE.findall(text)) - OF_THE_GRAPH


def plugin() -> tuple[set[str], set[bytes]]:
    """Operators with a kernel of aclnn, and all names that the plugin's adapters may have."""
    spec = find_spec("mindspore")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).with_name("lib") / "plugin"
    kernels = folder / "libmindspore_ops_ascend.so"
    command = ["nm", "-DC", str(kernels)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = re.findall(rb"\0aclnn([A-Z]\w+)\0", kernels.read_bytes())
    adapters = folder / "ascend" / "libmindspore_ascend_res_manager.so"
    aclnn = {*_KERNEL.findall(text), *(name.decode() for name in names)}
    return aclnn, set(re.findall(rb"[A-Za-z]\w+", adapters.read_bytes()))


def is_documented(name: str) -> bool:
    """Whether the documentation of an operator, or of the function that it refers to, has Ascend."""
    from mindspore import ops
    from mindspore.ops import auto_generate, operations

    owners = (operations, auto_generate, ops)
    found = [getattr(owner, name).__doc__ or "" for owner in owners if hasattr(owner, name)]
    for text in list(found):
        for reference in _REFERENCE.findall(text):
            found.append(getattr(getattr(ops, reference, None), "__doc__", None) or "")
    return any("Ascend" in line for text in found for line in _PLATFORMS.findall(text))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and what nothing is found for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", choices=GRAPHS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.graph:
        compile_graph(options.graph)
        return 0
    found = {which: operators(which) for which in GRAPHS}
    kernels, adapters = plugin()
    rows, unknown = [], []
    for name in sorted(set().union(*found.values())):
        has = [name in kernels, name.encode() in adapters, is_documented(name)]
        rows.append([name, *("x" if name in found[which] else "" for which in GRAPHS)])
        rows[-1] += ["x" if one else "" for one in has]
        if not any(has):
            unknown.append(name)
    sys.stdout.write(
        pipe_table(rows, ["operator", *GRAPHS, "aclnn", "adapter", "documented"]) + "\n"
    )
    sys.stdout.write(f"in none: {', '.join(unknown) or 'none'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
