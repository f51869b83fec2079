# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Programs that need a kernel for each of their operators: python -m tests.helpers.gpu_steps NAME.

Run on a device that computes nothing (`fake_cuda`), so only that they come to their end counts.
"""

from __future__ import annotations

import sys

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from src.defrcn.pcb_encoder import ResNetEncoder
from src.defrcn.portable import order_by_topk
from src.model_utils.config_schema import Solver
from src.model_utils.device_adapter import Runtime
from src.network_define import build_eval_step, build_optimizer, build_train_step
from src.weights.weight_shapes import EncoderLayout
from tests.helpers import small


def training(*, fast: bool, exact: bool, optimizer: str = "sgd", norm: str = "FrozenBN") -> None:
    """Two steps; with exact shapes the second one is of another size."""
    frozen = 2 if norm == "FrozenBN" else 0
    section = small.section(backbone__norm=norm, backbone__freeze_at=frozen)
    net = small.detector(section, masked=not exact, fast=fast)
    order_by_topk(net)
    gradients_of, update = build_train_step(
        net,
        build_optimizer(net, Solver(optimizer=optimizer)),
        batch_size=2,
        exact=exact,
    )
    for _ in range(2):
        losses, squares, gradients = gradients_of(*small.training_inputs())
        losses.asnumpy(), squares.asnumpy()
        update(gradients, Tensor(0.001, ms.float32)).asnumpy()


def inference(*, fast: bool, exact: bool) -> None:
    """Detections of a picture."""
    net = small.detector(masked=not exact, fast=fast)
    order_by_topk(net)
    step = build_eval_step(net, exact=exact)
    shape = None if exact else (96, 112)
    for output in step(*map(Tensor, small.pictures([(64, 80)], shape=shape))):
        output.asnumpy()


def encoder() -> None:
    """The calibration block's features, of two sizes."""
    layout = EncoderLayout((1, 1, 1, 1), 8, (8, 8, 16, 16), (32, 32, 64, 64), 10)
    params = {name: np.ones(shape, np.float32) for name, shape in layout.shapes().items()}
    made = ResNetEncoder(params, identity="small", source="small", max_pixels=10**7)
    for size in ((64, 80), (70, 60)):
        made.feature_map(np.zeros((*size, 3), np.uint8))


def no_kernel() -> None:
    """What no GPU has a kernel for: a product of matrices of whole numbers."""
    ops.matmul(Tensor(np.ones((2, 2), np.int16)), Tensor(np.ones((2, 2), np.int16))).asnumpy()


STEPS = {
    "training plain": lambda: training(fast=False, exact=True),
    "training fast": lambda: training(fast=True, exact=True),
    "training plain fixed": lambda: training(fast=False, exact=False),
    "training fast fixed": lambda: training(fast=True, exact=False),
    "training plain BN AdamW": lambda: training(
        fast=False, exact=True, optimizer="adamw", norm="BN"
    ),
    "inference of the encoder": encoder,
    "inference plain": lambda: inference(fast=False, exact=True),
    "inference fast": lambda: inference(fast=True, exact=True),
    "inference plain fixed": lambda: inference(fast=False, exact=False),
    "no kernel": no_kernel,
}


def main(names: list[str]) -> None:
    """Run steps; say of each that it came to its end."""
    Runtime.start("GPU")
    for name in names:
        STEPS[name]()
        sys.stdout.write(f"came to its end: {name}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
