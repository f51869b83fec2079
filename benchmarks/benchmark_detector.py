# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Seconds and memory of the full detector on this machine's CPU, whole and by part.

    python benchmarks/benchmark_detector.py [--height 800 --width 1088] [--steps 3] [--json FILE]

Random weights and a random picture with eight boxes: what is computed does not depend on either,
except for how many boxes NMS looks at. Every measurement runs in a process of its own, so that
its peak memory is its own. Timings are noisy; compare rows of one run only.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

logger = logging.getLogger("benchmark")
CONFIG = ROOT / "configs" / "coco" / "defrcn_det_r101_base.yaml"
WHOLE = ("inference", "inference plain", "training", "training plain", "fine-tuning")
PARTS = ("stem to res3", "res4", "RPN", "proposals", "pooling", "res5", "update")


def build(name: str, size: tuple[int, int]) -> tuple:
    """The detector, its optimizer and the inputs of one training step."""
    from mindspore import Tensor

    from src.assembly.training import make_detector
    from src.model_utils.config import load_config
    from src.network_define import build_optimizer
    from src.weights.initialise import initialise

    flags = []
    if name.endswith("plain"):
        flags.append("--model.formulation=plain")
    if name == "fine-tuning":
        flags += ["--model.roi_heads.freeze_feat=true", "--model.roi_heads.backward_scale=0.01"]
    config = load_config(CONFIG, flags)
    net = make_detector(config, tuple(map(str, range(60))))
    initialise(net, 0)
    for parameter in net.get_parameters():
        # As trained networks do it: a block adds little, or activations grow without bound.
        if parameter.name.endswith("conv3.norm.weight"):
            parameter.set_data(Tensor(np.full(parameter.shape, 0.2, np.float32)))
    optimizer = build_optimizer(net, config.solver)
    rng = np.random.default_rng(0)
    height, width = size
    corners = rng.random((1, 8, 4), np.float32) * np.float32(min(size) / 2)
    corners[..., 2:] += corners[..., :2] + 32
    cells = -(-height // 16) * -(-width // 16)
    arrays = (
        rng.standard_normal((1, 3, height, width), np.float32) * 50,
        np.array([size], np.float32),
        np.array(size, np.int32),
        corners,
        rng.integers(0, 60, (1, 8)).astype(np.int32),
        np.ones((1, 8), bool),
        rng.random((1, cells * 15), np.float32),
        rng.random((1, 2008), np.float32),
        np.zeros((1, 1), np.float32),
    )
    return net, optimizer, tuple(Tensor(array) for array in arrays)


def runs(name: str, net, optimizer, inputs: tuple) -> Callable[[], None]:
    """A function that does one measured piece of work and waits for it."""
    import mindspore as ms
    from mindspore import Tensor

    from src.network_define import build_eval_step, build_train_step

    lr = Tensor(1e-6, ms.float32)
    if name.startswith("inference"):
        step = build_eval_step(net, exact=True)
        return lambda: step(*inputs[:3])[1].asnumpy()
    if name in WHOLE or name == "update":
        gradients_of, update = build_train_step(net, optimizer, batch_size=1, exact=True)
        if name == "update":
            gradients = gradients_of(*inputs)[2]
            return lambda: update(gradients, lr).asnumpy()

        def train() -> None:
            losses, _, gradients = gradients_of(*inputs)
            if not np.isfinite(losses.asnumpy()).all():
                raise RuntimeError("the losses are not finite")
            update(gradients, lr).asnumpy()

        return train
    return part(name, net, inputs)


def part(name: str, net, inputs: tuple) -> Callable[[], None]:
    """One part of a training step, with its gradient where the training step has one."""
    import mindspore as ms
    from mindspore import Tensor

    net.set_train(True)
    images, sizes, padded = inputs[:3]
    stages = net.backbone.stages(images, padded)
    res3, features = stages[2], stages[3]
    rpn_features, valid_size, anchor_valid = net.rpn_inputs(features, padded)
    anchors = net.proposal_generator.anchors(features.shape[1], features.shape[2])
    trained = net.trainable_params()
    boxes = np.random.default_rng(1).random((1, 512, 4), np.float32) * 400
    boxes[..., 2:] += boxes[..., :2] + 16
    rois = Tensor(boxes)

    def early(x):
        return net.backbone.stages(x, padded)[2]

    def res4(x):
        for block in net.backbone.res4:
            x = block(x)
        return x.mean()

    def rpn(x):
        logits, deltas = net.proposal_generator.rpn_head(x)
        losses = net.proposal_generator.target_losses(
            x, logits, deltas, anchors, anchor_valid, inputs[3], inputs[5], inputs[6]
        )
        return losses[0] + losses[1]

    def pool(x):
        return net.roi_heads.pooler(x, rois, valid_size).mean()

    def res5(x):
        out = x
        for block in net.roi_heads.res5:
            out = block(out)
        return out.mean()

    if name == "stem to res3":
        forward = ms.jit(early, fullgraph=True)
        return lambda: forward(images).asnumpy()
    if name == "proposals":
        logits, deltas = (one.copy() for one in net.proposal_generator.rpn_head(rpn_features))

        def propose(a, b):
            return net.proposal_generator.train_proposals(a, b, anchors, anchor_valid, sizes)[0]

        forward = ms.jit(propose, fullgraph=True)
        return lambda: forward(logits, deltas).asnumpy()
    function, x, wanted = {
        "res4": (res4, res3, [p for p in trained if ".res4." in p.name]),
        "RPN": (rpn, rpn_features, [p for p in trained if "rpn_head" in p.name]),
        "pooling": (pool, features, None),
        "res5": (
            res5,
            net.roi_heads.pooler(features, rois, valid_size),
            [p for p in trained if ".res5." in p.name],
        ),
    }[name]
    position = 0 if name in ("pooling", "res5") else None
    gradient = ms.value_and_grad(function, position, wanted)

    @ms.jit(fullgraph=True)
    def compiled(x):
        return gradient(x)

    x = x.copy()
    return lambda: compiled(x)[0].asnumpy()


def measure(name: str, size: tuple[int, int], steps: int) -> dict[str, float]:
    """Seconds of the first run (it compiles) and the median of later ones; peak GB."""
    from src.util import idle_thread

    run = runs(name, *build(name, size))
    seconds = []
    for i in range(steps + 1):
        with idle_thread(i > 0):
            started = time.monotonic()
            run()
            seconds.append(time.monotonic() - started)
    return {
        "first": seconds[0],
        "later": float(np.median(seconds[1:])),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything, each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1088)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[*WHOLE, *PARTS], help="what to measure")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    size = (arguments.height, arguments.width)
    if arguments.child:
        figures = measure(arguments.child, size, arguments.steps)
        sys.stdout.write("\n" + json.dumps(figures) + "\n")
        return 0
    table = {}
    sys.stdout.write(f"{size[0]}x{size[1]}, {os.cpu_count()} cores\n")
    sys.stdout.write("| what | first s | later s | peak GB |\n|---|---|---|---|\n")
    for name in arguments.only:
        command = [sys.executable, __file__, "--child", name, "--steps", str(arguments.steps)]
        command += ["--height", str(size[0]), "--width", str(size[1])]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "GLOG_v": "3"}
        )
        if done.returncode:
            sys.stderr.write(done.stderr[-2000:])
            return 1
        row = table[name] = json.loads(done.stdout.strip().splitlines()[-1])
        sys.stdout.write(
            f"| {name} | {row['first']:.1f} | {row['later']:.2f} | {row['peak_gb']:.1f} |\n"
        )
        sys.stdout.flush()
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
