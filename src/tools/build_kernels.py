# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Build the kernels in C++ that CPUs are faster with, into the Python environment.

    python -m src.tools.build_kernels [--if_possible]

Training and inference with `formulation: fast` (the default on CPU) take them from then on. Needs
g++ (CXX names another compiler). What is there already is not built again.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.defrcn.bbox_assign_sample import RPNTargets
from src.defrcn.kernel_blocks import KernelBottleneck
from src.defrcn.kernels import KernelRPNTargets, KernelSGDStep
from src.defrcn.resnet import Bottleneck
from src.kernels import library
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.errors import InputError
from src.sgd_optimizer import SGD
from src.util import run_main, set_up_logging

logger = logging.getLogger(__name__)

FLAGS: Flags = {
    "--if_possible": dict(
        action="store_true", help="say why it is not possible, and end as if it were"
    ),
}


def try_kernels(path: Path) -> None:
    """Run kernels in graphs of unknown shapes and compare them with their twins.

    Raises:
        InputError: MindSpore cannot run them, or the numbers differ.
    """
    try:
        same = _targets_are_equal(path) and _blocks_are_close(path) and _steps_in_place(path)
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[:1]
        raise InputError(
            f"MindSpore {ms.__version__} cannot run the kernels ({' '.join(first)}); everything "
            "runs without them"
        ) from error
    if not same:
        raise InputError(
            f"the kernels give other numbers than MindSpore {ms.__version__} does; they are not "
            "used, everything runs without them"
        )


def _targets_are_equal(path: Path) -> bool:
    twin = RPNTargets(iou_thresholds=(0.3, 0.7), num_samples=8, positive_fraction=0.5)
    inputs = _example()
    found = _compiled(KernelRPNTargets(twin, str(path)))(*inputs)
    return all(np.array_equal(a.asnumpy(), b.asnumpy()) for a, b in zip(found, twin(*inputs)))


def _blocks_are_close(path: Path) -> bool:
    """Of a block with a stride: its output, and the gradients of its input and weights."""
    random = np.random.default_rng(0)
    twin = Bottleneck(8, 8, 16, 2, "FrozenBN")
    weights = twin.trainable_params()
    for weight in weights:
        weight.set_data(Tensor(random.normal(0, 0.2, weight.shape).astype(np.float32)))
    maps = Tensor(random.random((2, 8, 9, 13), np.float32))
    factor = Tensor(random.random((2, 16, 5, 7), np.float32))

    def weighted(maps: Tensor) -> Tensor:
        return twin(maps) * factor

    wanted = ms.value_and_grad(weighted, 0, weights)(maps)
    block = KernelBottleneck(twin, str(path), stride=2)
    factor = factor.transpose(0, 2, 3, 1)

    def weighted_rows(maps: Tensor) -> Tensor:
        return block(maps) * factor

    back = ms.value_and_grad(weighted_rows, 0, weights)

    @ms.jit(fullgraph=True)
    def run(maps: Tensor) -> tuple:
        return back(maps)

    run = ms.enable_dynamic(maps=Tensor(shape=[2, None, None, 8], dtype=ms.float32))(run)
    value, (of_maps, of_weights) = run(maps.transpose(0, 2, 3, 1))
    found = [one.transpose(0, 3, 1, 2) for one in (value, of_maps)] + list(of_weights)
    wanted = [wanted[0], wanted[1][0], *wanted[1][1]]
    return all(
        np.allclose(a.asnumpy(), b.asnumpy(), rtol=1e-3, atol=1e-3) for a, b in zip(found, wanted)
    )


def _steps_in_place(path: Path) -> bool:
    """Whether what a compiled operator writes into a parameter is there afterwards."""
    weight = Parameter(Tensor(np.full(4, 2, np.float32)), name="weight")
    sgd = SGD([weight], [0.0], 0.5, in_one=KernelSGDStep([0.0], 0.5, False, str(path)))

    @ms.jit(fullgraph=True)
    def step(gradient: Tensor, lr: Tensor) -> Tensor:
        return sgd((gradient,), lr)

    for _ in range(2):
        step(Tensor(np.ones(4, np.float32)), Tensor(0.5, ms.float32)).asnumpy()
    # Velocities 1 and 0.5 + 1; weights 2 - 0.5, and from that 0.75.
    (velocity,) = sgd.state
    return bool((weight.asnumpy() == 0.75).all() and (velocity.asnumpy() == 1.5).all())


def _example() -> tuple[Tensor, ...]:
    random = np.random.default_rng(0)
    corner = random.random((50, 2)) * 50
    anchors = np.concatenate((corner, corner + 20 + random.random((50, 2)) * 30), 1)
    boxes = np.array([[[10, 10, 40, 40], [20, 20, 60, 60]]] * 2)
    anchors[:2] = boxes[0, 0], boxes[0, 0] + 1  # both positive, one of them the best
    return (
        Tensor(anchors.astype(np.float32)),
        Tensor(np.ones(50, bool)),
        Tensor(boxes.astype(np.float32)),
        Tensor(np.array([[True, True], [True, False]])),
        Tensor(random.random((2, 50), np.float32)),
    )


def _compiled(kernel: nn.Cell) -> Callable:
    @ms.jit(fullgraph=True)
    def run(
        anchors: Tensor, anchor_valid: Tensor, boxes: Tensor, box_valid: Tensor, noise: Tensor
    ) -> tuple:
        return kernel(anchors, anchor_valid, boxes, box_valid, noise)

    return ms.enable_dynamic(
        anchors=Tensor(shape=[None, 4], dtype=ms.float32),
        anchor_valid=Tensor(shape=[None], dtype=ms.bool_),
        noise=Tensor(shape=[2, None], dtype=ms.float32),
    )(run)


def main(argv: Sequence[str] | None = None) -> int:
    """Build, try, say where the library is."""
    parser = command_parser(FLAGS, program="python -m src.tools.build_kernels", description=__doc__)
    options = parser.parse_args(argv)
    set_up_logging()
    try:
        path = library.built() or library.build(try_kernels)
    except InputError as error:
        if not options.if_possible:
            raise
        logger.warning("kernels were not built: %s", error)
        return 0
    sys.stdout.write(f"kernels: {path}\n")
    return 0


if __name__ == "__main__":
    run_main(main)
