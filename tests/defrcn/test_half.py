# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Half precision in backbone and res5: close to float32, float32 everywhere else."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.half import HalfConvNorm, make_half
from src.model_utils.config_schema import Solver
from src.network_define import build_optimizer, build_train_step, parameters_of
from tests.helpers import small

CASES = pytest.mark.parametrize(
    ("norm", "half_norm", "masked"),
    [("FrozenBN", False, False), ("FrozenBN", True, True), ("BN", False, False)],
)


def halved(norm, half_norm, masked):
    """A detector in float32 and the same in half precision."""
    section = small.section(backbone__norm=norm, backbone__freeze_at=2 if norm != "BN" else 0)
    nets = [small.detector(section, masked=masked, fast=False) for _ in range(2)]
    names = list(parameters_of(nets[1]))
    make_half(nets[1], ms.float16, half_norm=half_norm)
    assert list(parameters_of(nets[1])) == names
    return nets


@CASES
def test_features_are_close_and_float32(norm, half_norm, masked):
    one, other = halved(norm, half_norm, masked)
    images, _, padded = small.pictures(((64, 80),), shape=(96, 112) if masked else None)
    wanted, found = (
        net.set_train(False).backbone(Tensor(images), Tensor(padded)) for net in (one, other)
    )
    assert found.dtype == ms.float32
    wanted, found = wanted.asnumpy(), found.asnumpy()
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert 1e-5 < error < 0.01


@CASES
def test_a_step_is_close(norm, half_norm, masked):
    """Losses within 2 %, gradients in one direction; the factor of the loss leaves no trace."""
    found = []
    for number, net in enumerate(halved(norm, half_norm, masked)):
        inputs = list(small.training_inputs())
        scale = [Tensor(2.0**10, ms.float32)] if number else []
        gradients_of, _ = build_train_step(
            net,
            build_optimizer(net, Solver()),
            batch_size=2,
            exact=not masked,
            scaled=bool(number),
        )
        losses, squares, gradients = gradients_of(*inputs, *scale)
        assert all(gradient.dtype == ms.float32 for gradient in gradients)
        vector = np.concatenate([gradient.asnumpy().reshape(-1) for gradient in gradients])
        found.append((losses.asnumpy(), float(squares.asnumpy()), vector))
    (losses, squares, vector), (half_losses, half_squares, half_vector) = found
    np.testing.assert_allclose(half_losses, losses, rtol=0.02)
    assert half_squares == pytest.approx(float(half_vector @ half_vector), rel=1e-3)
    cosine = vector @ half_vector / np.sqrt(squares * half_squares)
    assert cosine > 0.99
    assert half_squares == pytest.approx(squares, rel=0.05)


def test_only_the_two_trunks():
    net = halved("FrozenBN", False, False)[1]
    places = {
        name.partition(".")[0] for name, cell in net.cells_and_names() if type(cell) is HalfConvNorm
    }
    assert places == {"backbone", "roi_heads"}
