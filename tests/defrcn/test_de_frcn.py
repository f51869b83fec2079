# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A batch inside a larger fixed shape gives the same numbers as at its exact size."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from src.model_utils.errors import InputError
from tests.helpers import small

SIZES = ((70, 97), (81, 60))
CELLS = (6, 7)  # of stride 16, from 81 x 97
LARGE = (128, 144)  # not the exact size rounded up
ANCHORS = 9


def nets(training, fast):
    """The same detector twice: at exact size, and masked."""
    # Every anchor and box takes part, so that the different draw of noise decides nothing.
    model = small.section(
        rpn__batch_size_per_image=2000,
        roi_heads__batch_size_per_image=24,
        roi_heads__positive_fraction=1.0,
        backbone__freeze_at=1,
    )
    pair = [small.detector(model, masked=masked, fast=fast) for masked in (False, True)]
    for net in pair:
        net.set_train(training)
    return pair


def inputs(shape, fill=0.0):
    """Images of a batch in a tensor of `shape`; what lies beyond the batch holds `fill`."""
    images, sizes, padded = small.pictures(SIZES)
    images /= 60  # near 1: else random weights make a thousand times more of rounding
    out = np.full((*images.shape[:2], *(shape or padded)), fill, np.float32)
    out[:, :, : padded[0], : padded[1]] = images
    return tuple(map(Tensor, (out, sizes, padded)))


def truth():
    boxes = np.stack([small.boxes_in(size, 3, i) for i, size in enumerate(SIZES)])
    classes = np.array([[0, 1, 2], [2, 0, 0]], np.int32)
    valid = np.array([[True, True, True], [True, True, False]])
    return tuple(map(Tensor, (boxes, classes, valid)))


def noise(shape):
    height, width = shape or np.max(SIZES, 0)
    cells = -(-height // 16) * -(-width // 16)
    rng = np.random.default_rng(0)
    return (
        Tensor(rng.random((2, cells * ANCHORS), np.float32)),
        Tensor(rng.random((2, 20 + 3), np.float32)),
        Tensor(np.zeros((1, 1), np.float32)),
    )


def step_of(net):
    """Losses and gradients by name."""
    parameters = net.trainable_params()

    def total(*inputs):
        losses = net.losses(*inputs)
        return sum(losses), ops.stack(losses)

    differentiated = ms.value_and_grad(total, None, parameters, has_aux=True)

    def named(*inputs):
        (_, losses), gradients = differentiated(*inputs)
        return losses.asnumpy(), {p.name: g.asnumpy() for p, g in zip(parameters, gradients)}

    return named


@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_losses_and_gradients(fast):
    exact, masked = nets(True, fast)
    losses, gradients = step_of(exact)(*inputs(None), *truth(), *noise(None))
    actual, actual_gradients = step_of(masked)(*inputs(LARGE), *truth(), *noise(LARGE))
    assert (losses > 0).all()
    np.testing.assert_allclose(actual, losses, rtol=1e-4)
    assert gradients.keys() == actual_gradients.keys()
    for name, wanted in gradients.items():
        scale = np.sqrt((wanted.astype(np.float64) ** 2).sum())
        assert scale > 0, name
        difference = np.sqrt(((actual_gradients[name] - wanted).astype(np.float64) ** 2).sum())
        assert difference <= 1e-3 * scale, name


def test_features_and_detections():
    exact, masked = nets(False, True)
    features = exact.backbone(*inputs(None)[::2]).asnumpy()
    larger = masked.backbone(*inputs(LARGE)[::2]).asnumpy()
    height, width = features.shape[1:3]
    assert (height, width) == CELLS
    np.testing.assert_allclose(larger[:, :height, :width], features, atol=1e-4, rtol=1e-4)
    wanted = [one.asnumpy() for one in exact(*inputs(None))]
    actual = [one.asnumpy() for one in masked(*inputs(LARGE))]
    np.testing.assert_array_equal(actual[2], wanted[2])
    assert wanted[2].sum() > 10
    for mine, other, atol in zip(actual[:2], wanted[:2], (1e-2, 1e-4)):
        np.testing.assert_allclose(mine[wanted[2]], other[wanted[2]], atol=atol, rtol=0)


def test_the_mask_is_needed():
    """Without it features next to the border differ: the comparison above can fail."""
    exact, _ = nets(False, True)
    features = exact.backbone(*inputs(None)[::2]).asnumpy()
    larger = exact.backbone(*inputs(LARGE)[::2]).asnumpy()
    difference = np.abs(larger[:, : CELLS[0], : CELLS[1]] - features).max()
    assert difference > 1e-2 * np.abs(features).max()


def test_anchors_over_padding():
    _, masked = nets(False, True)
    images, _, padded = inputs(LARGE)
    features = masked.backbone(images, padded)
    _, valid_size, anchor_valid = masked.rpn_inputs(features, padded)
    assert valid_size.asnumpy().tolist() == list(CELLS)
    expected = np.zeros((LARGE[0] // 16, LARGE[1] // 16, ANCHORS), bool)
    expected[: CELLS[0], : CELLS[1]] = True
    np.testing.assert_array_equal(anchor_valid.asnumpy(), expected.reshape(-1))


def test_norms_that_measure_the_padding_are_refused():
    with pytest.raises(InputError, match="FrozenBN"):
        small.detector(small.section(backbone__norm="BN", backbone__freeze_at=0), masked=True)
