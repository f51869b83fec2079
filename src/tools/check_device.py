# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Say what this machine has for a device, and whether the numbers that it computes are right.

    python -m src.tools.check_device GPU

The device is CPU (without a word), GPU or Ascend. First what is found: driver, card, MindSpore,
CUDA or CANN, compiler. Then a matrix product and a convolution beside numpy, and a training step of
the demo's detector. Takes less than a minute on a CPU. The first thing that a bug report needs;
`bash scripts/check_device.sh` calls it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.kernels import library
from src.model_utils import cuda
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.model_utils.versions import RECOMMENDED, has_avx512
from src.util import pipe_table, run_main, set_up_logging

if TYPE_CHECKING:
    from src.data.batching import Batch

HEADERS = ("what", "found", "")
TARGETS = ("CPU", "GPU", "Ascend")
FLAGS: Flags = {
    "target": dict(nargs="?", choices=TARGETS, default="CPU", help="default: CPU"),
    "--device_id": dict(type=int, default=0, metavar="N", help="card of this machine"),
    "--conv_allow_tf32": dict(action="store_true", help="GPU: let convolutions round to TF32"),
}
CONFIG = "configs/demo/shapes_base.yaml"  # below the project's folder
# float32 sums of a thousand products; TF32 keeps ten bits of each factor.
TOLERANCE, TF32_TOLERANCE = 1e-4, 5e-3
_CANN_HOMES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
_CANN_FOLDERS = ("/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann/latest")
_ASCEND_DRIVER = "/usr/local/Ascend/driver/version.info"


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        name: what was looked at.
        found: in words.
        verdict: "ok", "missing", "failed", "not run"; "" where there is nothing to judge.
    """

    name: str
    found: str
    verdict: str = ""


def first_line(*command: str) -> str | None:
    """What a program says in its first line; None if it is not there or fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 - programs named in this file
            command, capture_output=True, text=True, timeout=30, check=True
        )
        return next(iter(done.stdout.splitlines()), "").strip()
    return None


def version_of(package: str) -> str | None:
    """Of an installed package."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def software() -> Iterator[Line]:
    """Machine, Python, MindSpore, compiler, kernels."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wide = ", AVX-512" if has_avx512() else ""
    yield Line("system", f"{platform.platform()}, {cores} cores{wide}")
    yield Line("Python", platform.python_version())
    version = version_of("mindspore")
    tried = "" if version == RECOMMENDED else f" (tried most: {RECOMMENDED})"
    yield Line("MindSpore", f"{version or 'none'}{tried}", "ok" if version else "missing")
    yield Line("numpy", np.__version__)
    yield Line("compiler", first_line(os.environ.get("CXX", "g++"), "--version") or "none")
    path = library.built()
    yield Line("kernels for CPU", path.name if path else f"not built ({library.COMMAND})")


def gpu() -> Iterator[Line]:
    """Driver, cards, CUDA and its libraries."""
    try:
        newest, cards = cuda.describe_driver()
    except InputError as error:
        yield Line("NVIDIA driver", str(error), "missing")
    else:
        yield Line("NVIDIA driver", f"runs CUDA up to {newest}", "ok")
        for number, card in enumerate(cards):
            major, minor = card.capability
            text = f"{card.name}, compute capability {major}.{minor}, {card.memory / 2**30:.0f} GiB"
            yield Line(f"card {number}", text, "ok")
        if not cards:
            yield Line("card", "the driver sees none (CUDA_VISIBLE_DEVICES?)", "missing")
    passed_over = []
    for candidate in cuda.candidates():
        if problem := candidate.problem():
            passed_over.append(Line("CUDA", problem))
            continue
        yield from passed_over
        yield Line("CUDA", f"{candidate.home}: CUDA {candidate.version} and cuDNN 8, whole", "ok")
        return
    reason = "; ".join(line.found for line in passed_over) or "none"
    yield Line("CUDA", f"{reason}; {cuda.SETUP} installs it", "missing")


def ascend() -> Iterator[Line]:
    """Driver, cards, CANN."""
    driver = _version_in(Path(_ASCEND_DRIVER))
    advice = "install it as the Ascend documentation says"
    yield Line("Ascend driver", driver or f"no {_ASCEND_DRIVER}; {advice}", _there(driver))
    cards = first_line("npu-smi", "info", "-l")
    yield Line("npu-smi", cards or "does not answer", _there(cards))
    homes = [os.environ[name] for name in _CANN_HOMES if os.environ.get(name)]
    places = [Path(home) for home in (*homes, *_CANN_FOLDERS)]
    home = next((place for place in places if place.is_dir()), None)
    files = [] if home is None else sorted(home.glob("**/version.info"))[:1]
    version = _version_in(files[0]) if files else None
    yield Line(
        "CANN",
        f"{version or 'of an unknown version'} in {home}"
        if home
        else f"neither {' nor '.join(_CANN_HOMES)} is set; source CANN's set_env.sh",
        _there(home),
    )


def _there(thing: object) -> str:
    return "ok" if thing else "missing"


def _version_in(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        found = re.search(r"^Version=(\S+)", path.read_text(errors="replace"), re.MULTILINE)
        return found[1] if found else None
    return None


def check_product(tolerance: float) -> str:
    """A matrix product beside numpy's in float64.

    Raises:
        ArithmeticError: they differ by more than `tolerance` of the largest number.
    """
    from mindspore import Tensor, ops

    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal((512, 512)).astype(np.float32) for _ in range(2))
    found = ops.matmul(Tensor(one), Tensor(other)).asnumpy()
    return _compare(found, one.astype(np.float64) @ other, tolerance)


def check_convolution(tolerance: float) -> str:
    """A 3x3 convolution beside numpy's in float64.

    Raises:
        ArithmeticError: they differ by more than `tolerance` of the largest number.
    """
    from mindspore import Tensor, ops

    rng = np.random.default_rng(1)
    maps = rng.standard_normal((2, 64, 20, 24)).astype(np.float32)
    weight = rng.standard_normal((96, 64, 3, 3)).astype(np.float32)
    convolve = ops.Conv2D(96, (3, 3), pad_mode="pad", pad=1)
    found = convolve(Tensor(maps), Tensor(weight)).asnumpy()
    around = np.pad(maps.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = maps.shape[2:]
    wanted = sum(
        np.einsum(
            "nchw,dc->ndhw",
            around[:, :, i : i + height, j : j + width],
            weight[:, :, i, j].astype(np.float64),
            optimize=True,
        )
        for i in range(3)
        for j in range(3)
    )
    return _compare(found, wanted, tolerance)


def _compare(found: np.ndarray, wanted: np.ndarray | float, tolerance: float) -> str:
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    text = f"largest difference {error:.1e} of the largest number, {tolerance:.0e} allowed"
    if not error <= tolerance:  # NaN is not
        raise ArithmeticError(text)
    return text


def check_training(target: str) -> str:
    """Two training steps of the demo's detector on one drawn picture.

    Raises:
        ArithmeticError: a loss is not finite, or is not what another step finds.
    """
    from mindspore import Tensor

    from src.assembly.training import formulation_of, make_detector
    from src.engine.noise import Noise
    from src.engine.trainer import batch_tensors
    from src.model_utils.config import load_config
    from src.network_define import build_optimizer, build_train_step
    from src.weights.initialise import initialise

    config = load_config(project_folder() / CONFIG, [f"--device_target={target}"])
    net = make_detector(config, ("square", "disc", "cross"))
    initialise(net, 0)
    optimizer = build_optimizer(net, config.solver)
    gradients_of, update = build_train_step(net, optimizer, batch_size=1, exact=True)
    anchors = config.model.anchors
    noise = Noise(
        anchors_per_cell=len(anchors.sizes) * len(anchors.aspect_ratios),
        proposals=config.model.rpn.post_nms_topk_train,
        dropout=(1, 1),
    )
    batch = _example()
    inputs = (*batch_tensors(batch), *map(Tensor, noise.draw(0, batch)))
    rows, seconds = [], 0.0
    for _ in range(2):
        started = time.monotonic()
        losses, squares, gradients = gradients_of(*inputs)
        rows.append(np.append(losses.asnumpy(), squares.asnumpy()))
        # a rate of 0: the second step has to find what the first one found
        update(gradients, Tensor(np.float32(0))).asnumpy()
        seconds = time.monotonic() - started
    text = (
        f"{formulation_of(config)} formulation: losses "
        f"{', '.join(f'{value:.3f}' for value in rows[0][:4])}, norm of the gradient "
        f"{rows[0][4] ** 0.5:.3f}; second step {seconds:.2f} s"
    )
    if not np.isfinite(rows).all() or not np.allclose(rows[0], rows[1], rtol=1e-3, atol=1e-4):
        raise ArithmeticError(f"{text}; losses of the second step {rows[1][:4]}")
    if not rows[0][:4].all():
        raise ArithmeticError(f"{text}: a loss is 0")
    return text


def _example() -> Batch:
    """One drawn picture of 96x128 with two objects."""
    from src.data.batching import Batch

    height, width = 96, 128
    images = np.zeros((1, 3, height, width), np.float32)
    boxes = np.array([[[16, 20, 56, 70], [70, 30, 118, 84]]], np.float32)
    for (left, top, right, bottom), value in zip(boxes[0].astype(int), (1.5, -1.0)):
        images[0, :, top:bottom, left:right] = value
    return Batch(
        images=images,
        image_sizes=np.array([[height, width]], np.float32),
        padded_size=np.array([height, width], np.int32),
        gt_boxes=boxes,
        gt_classes=np.array([[0, 1]], np.int32),
        gt_valid=np.ones((1, 2), bool),
        image_ids=[0],
        file_names=["drawn"],
        original_sizes=np.array([[height, width]], np.int32),
        positions=(0,),
    )


def judged(name: str, check: Callable[[], str]) -> Line:
    """Run a check; what it raises is its result."""
    try:
        return Line(name, check(), "ok")
    except (ArithmeticError, InputError, RuntimeError, TypeError, ValueError) as error:
        text = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Line(name, text, "failed")


def numbers(target: str, device_id: int, *, tf32: bool) -> Iterator[Line]:
    """What the device computes."""
    from src.model_utils.device_adapter import Runtime

    def start() -> str:
        runtime = Runtime.start(target, device_id=device_id, conv_allow_tf32=tf32)
        return f"{runtime.target} {runtime.device_id}"

    tolerance = TF32_TOLERANCE if tf32 else TOLERANCE
    checks: dict[str, Callable[[], str]] = {
        "matrix product": lambda: check_product(tolerance),
        "convolution": lambda: check_convolution(tolerance),
        "training step": lambda: check_training(target),
    }
    line = judged("MindSpore's device", start)
    yield line
    for name, check in checks.items():
        yield judged(name, check) if line.verdict == "ok" else Line(name, "no device", "not run")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 if something is missing or failed."""
    parser = command_parser(FLAGS, program="python -m src.tools.check_device", description=__doc__)
    options = parser.parse_args(argv)
    set_up_logging()
    lines = list(software())
    lines += {"GPU": gpu, "Ascend": ascend}.get(options.target, list)()
    said = {line.found for line in lines}
    for line in numbers(options.target, options.device_id, tf32=options.conv_allow_tf32):
        lines.append(replace(line, found="see above") if line.found in said else line)
    sys.stdout.write(pipe_table([(x.name, x.found, x.verdict) for x in lines], HEADERS) + "\n")
    wrong = [line.name for line in lines if line.verdict in ("missing", "failed")]
    sys.stdout.write(
        f"{options.target}: not usable here: {', '.join(wrong)}\n"
        if wrong
        else f"{options.target}: all passed\n"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    run_main(main)
