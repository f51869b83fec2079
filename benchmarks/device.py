# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Time and memory of the full network on one device: python benchmarks/device.py --help.

R-101 at 800x1088: training steps with one and two images, inference, in every precision that is
asked for. Each is measured in a process of its own, since a device's memory peaks once. `--losses`
compares two runs' loss_0.log instead. benchmarks/device.sh calls both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.comparison.cases import CASES  # noqa: E402
from src.util import pipe_table, write_json  # noqa: E402

PRECISIONS = {
    "float32": (),
    "TF32": ("--conv_allow_tf32=true",),
    "half": ("--amp_level=auto",),
}
WORK = {"training, 1 image": 1, "training, 2 images": 2, "inference": 0}
_LOSS = re.compile(r"total_loss: (\S+)")


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes:
        work: a key of `WORK`.
        precision: a key of `PRECISIONS`.
        first: seconds of the first call, which compiles.
        minimum: seconds of the fastest later one.
        median: seconds.
        device_memory: bytes, at most, as MindSpore counts them; 0 where it does not.
        host_memory: bytes, at most, of the process.
    """

    work: str
    precision: str
    first: float
    minimum: float
    median: float
    device_memory: int
    host_memory: int


def measure(work: str, precision: str, target: str, repeats: int) -> Measured:
    """Do one piece of work again and again."""
    run = _prepared(work, [f"--device_target={target}", *PRECISIONS[precision]])
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return Measured(
        work,
        precision,
        seconds[0],
        min(seconds[1:]),
        float(np.median(seconds[1:])),
        _device_memory(target),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _device_memory(target: str) -> int:
    import mindspore as ms

    return 0 if target == "CPU" else int(ms.runtime.max_memory_allocated())


def _prepared(work: str, flags: Sequence[str]) -> Callable[[], object]:
    """The network on the device, and what one call of it is."""
    import mindspore as ms
    from mindspore import Tensor

    from benchmarks.comparison import inputs
    from src.assembly.device import start_device
    from src.assembly.training import kernels_of, loss_scale_of, make_detector
    from src.defrcn.kernels import KernelSquareSum
    from src.model_utils.config import load_config
    from src.network_define import (
        build_eval_step,
        build_optimizer,
        build_train_step,
        set_parameters,
    )

    config = load_config(ROOT / CASES["training"].config, flags)
    start_device(config)
    net = make_detector(config, tuple(f"class{k}" for k in range(CASES["training"].classes)))
    parameters = list(net.get_parameters())
    arrays = inputs.weights_for({one.name: one.shape for one in parameters})
    set_parameters(parameters, arrays)
    case = dataclasses.replace(CASES["training"], images=max(1, WORK[work]))
    made = inputs.training(case, config)
    picture = (made.images, made.sizes, np.array(case.sizes[0], np.int32))
    if work == "inference":
        step = build_eval_step(net, exact=True, jit_level=config.jit_level)
        tensors = tuple(map(Tensor, picture))
        return lambda: [output.asnumpy() for output in step(*tensors)]
    kernels, scale = kernels_of(config), loss_scale_of(config)
    gradients_of, update = build_train_step(
        net,
        build_optimizer(net, config.solver, str(kernels or "")),
        batch_size=case.images,
        exact=True,
        square_sum=KernelSquareSum(str(kernels)) if kernels else None,
        scaled=scale is not None,
        jit_level=config.jit_level,
    )
    truth = (made.boxes, made.classes, np.ones(made.classes.shape, bool))
    noise = (made.rpn_noise, made.roi_noise, made.dropout_noise)
    tensors = tuple(map(Tensor, (*picture, *truth, *noise)))
    factor = (Tensor(scale.value, ms.float32),) if scale else ()

    def step() -> None:
        losses, squares, gradients = gradients_of(*tensors, *factor)
        losses.asnumpy(), squares.asnumpy()
        update(gradients, Tensor(0.0, ms.float32)).asnumpy()

    return step


def in_child(work: str, precision: str, options: argparse.Namespace) -> Measured | str:
    """Measure in a process of its own; a sentence if it fails."""
    command = [sys.executable, str(Path(__file__)), f"--device_target={options.device_target}"]
    command += [f"--repeats={options.repeats}", "--one", work, precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return Measured(**json.loads(lines[-1]))
    return (done.stderr.strip().splitlines() or ["ended without a word"])[-1]


def table(options: argparse.Namespace) -> str:
    """Measure all; write `results.json` beside the table."""
    rows, found = [], []
    for work in WORK:
        for precision in options.precisions.split(","):
            one = in_child(work, precision, options)
            if isinstance(one, str):
                rows.append([work, precision, "failed", one, "", ""])
                continue
            found.append(asdict(one))
            memory = one.device_memory or one.host_memory
            times = [f"{value:.3f}" for value in (one.first, one.minimum, one.median)]
            rows.append([work, precision, *times, f"{memory / 1e9:.2f}"])
    if options.json:
        write_json(options.json, found)
    headers = ["R-101, 800x1088", "precision", "first, s", "minimum, s", "median, s", "peak, GB"]
    return pipe_table(rows, headers)


def compare_losses(one: Path, other: Path) -> str:
    """How far two runs of the same seed are apart: first step, first ten, and their ends."""
    curves = [np.array(_LOSS.findall(path.read_text()), float) for path in (one, other)]
    count = min(map(len, curves))
    first, second = (curve[:count] for curve in curves)
    apart = np.abs(first - second) / np.abs(second)
    tail = max(1, count // 10)
    rows = [
        ["logged steps of both", count],
        ["relative difference of the first loss", f"{apart[0]:.1e}"],
        ["largest of the first ten", f"{apart[:10].max():.1e}"],
        ["mean of the last tenth", f"{first[-tail:].mean():.4f} and {second[-tail:].mean():.4f}"],
    ]
    return pipe_table(rows, ["loss curves", f"{one} and {other}"])


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device_target", default="CPU", choices=("CPU", "GPU", "Ascend"))
    parser.add_argument("--repeats", type=int, default=10, help="calls after the first one")
    parser.add_argument("--precisions", default="float32", help="of float32,TF32,half")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--losses", nargs=2, type=Path, metavar="LOG", help="compare two runs")
    parser.add_argument("--one", nargs=2, metavar=("WORK", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        found = measure(*options.one, options.device_target, options.repeats)
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        return 0
    text = compare_losses(*options.losses) if options.losses else table(options)
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
