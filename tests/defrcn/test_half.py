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

FROZEN = ("FrozenBN", False, False)
OTHERS = [("FrozenBN", True, True), ("BN", False, False)]
CASES = pytest.mark.parametrize(("norm", "half_norm", "masked"), [FROZEN, *OTHERS])


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


class Step:
    """The compiled training step of a network: losses, squared norm, gradients as one vector."""

    def __init__(self, net, *, exact, scaled):
        self.gradients_of, _ = build_train_step(
            net, build_optimizer(net, Solver()), batch_size=2, exact=exact, scaled=scaled
        )

    def __call__(self, *loss_scale):
        factor = [Tensor(value, ms.float32) for value in loss_scale]
        losses, squares, gradients = self.gradients_of(*small.training_inputs(), *factor)
        assert all(gradient.dtype == ms.float32 for gradient in gradients)
        vector = np.concatenate([gradient.asnumpy().reshape(-1) for gradient in gradients])
        return losses.asnumpy(), float(squares.asnumpy()), vector


def steps(norm, half_norm, masked):
    """In float32 and in half precision."""
    nets = halved(norm, half_norm, masked)
    return [Step(net, exact=not masked, scaled=bool(i)) for i, net in enumerate(nets)]


def check_step(one, other, least_cosine):
    losses, squares, vector = one()
    half_losses, half_squares, half_vector = other(64.0)
    np.testing.assert_allclose(half_losses, losses, rtol=0.02)
    assert half_squares == pytest.approx(float(half_vector @ half_vector), rel=1e-3)
    assert vector @ half_vector / np.sqrt(squares * half_squares) > least_cosine
    assert half_squares == pytest.approx(squares, rel=0.1)


@pytest.mark.slow
def test_a_step_is_close_and_a_factor_that_is_too_large_overflows():
    """Its losses are as they were: the training loop takes it for what it is."""
    one, other = steps(*FROZEN)
    check_step(one, other, 0.99)
    losses, squares, _ = other(2.0**16)
    assert np.isfinite(losses).all() and not np.isfinite(squares)


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS)
def test_a_step_is_close(case):
    """Where norms train, features of other digits choose other proposals here and there."""
    check_step(*steps(*case), 0.99 if case[0] == "FrozenBN" else 0.9)


def test_only_the_two_trunks():
    net = halved(*FROZEN)[1]
    places = {
        name.partition(".")[0] for name, cell in net.cells_and_names() if type(cell) is HalfConvNorm
    }
    assert places == {"backbone", "roi_heads"}
