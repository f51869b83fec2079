# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 17: the decoupled classifier's loss (DCFS), through the second stage's own losses."""

import functools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.defrcn.kernels import KernelROILosses
from src.defrcn.rcnn import Res5ROIHeads, ROILosses
from tests.golden import golden, network

pytestmark = pytest.mark.golden
LOSS, GRADIENT = 3e-6, 1e-7
TOPICS = ("17_dcfs", "17_dcfs_uneven")
FORMS = ("kernel", "plain")


def cases():
    try:
        return [(topic, name) for topic in TOPICS for name in golden.record(topic)["cases"]]
    except OSError:
        return [("17_dcfs", "vectors of topic 17 are missing")]


class _Given(nn.Cell):
    """Stands for what makes samples and predictions: pooling, res5, class layer, targets."""

    def __init__(self, **given):
        super().__init__()
        self.given = given

    def construct(self, *_):
        return self.given["construct"]

    def train_forward(self, *_):
        return self.given["logits"], self.given["deltas"]

    def average(self, *_):
        return None


@functools.cache
def losses_cell(form):
    losses = ROILosses((10.0, 10.0, 5.0, 5.0), 0.0, 1.0)
    kernels = network.built_kernels()
    if form == "plain":
        return losses
    if kernels is None:
        pytest.skip("no kernels are built")
    return KernelROILosses(losses, str(kernels))


def class_loss(form, logits, classes, used, labelled):
    """`Res5ROIHeads.losses` of logits (N, S, K + 1), classes and used slots (N, S): the first."""
    images, samples, columns = logits.shape
    deltas = Tensor(np.zeros((images * samples, 4 * columns - 4), np.float32))
    boxes = Tensor(np.tile(np.array([0, 0, 10, 10], np.float32), (images, samples, 1)))
    targets = (boxes, Tensor(classes), Tensor(used), boxes)

    def loss(given):
        heads = Res5ROIHeads(
            _Given(construct=None),
            nn.CellList([]),
            _Given(construct=None),
            _Given(logits=given.reshape(-1, columns), deltas=deltas),
            _Given(construct=targets),
            losses_cell(form),
            _Given(),
        )
        return heads.losses(None, *[None] * 7, dropout_noise=None, labelled=labelled)[0]

    return loss


def in_slots(rows, split, filler):
    """Rows of all images one after the other -> (N, S, ...), the rest of each image filled."""
    slots = np.full((len(split), max(split) + 3, *rows.shape[1:]), filler, rows.dtype)
    for image, own in zip(slots, np.split(rows, np.cumsum(split)[:-1])):
        image[: len(own)] = own
    return slots


def of_case(topic, name):
    """Logits, classes, used slots (N, S, ...) and labelled classes (N, K) of a case."""
    data, record = golden.arrays(topic), golden.record(topic)["cases"][name]
    split = data[f"{name}.split"]
    logits = in_slots(data[f"{name}.logits"], split, 7.0)
    classes = in_slots(data[f"{name}.classes"].astype(np.int32), split, 0)
    used = np.arange(logits.shape[1]) < split[:, None]
    labelled = np.zeros((len(split), record["num_classes"]), bool)
    for row, indices in zip(labelled, record["labelled"]):
        row[indices] = True
    return logits, classes, used, labelled


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("topic", "name"), cases())
def test_loss_and_gradient(topic, name, form):
    data = golden.arrays(topic)
    logits, classes, used, labelled = of_case(topic, name)
    function = class_loss(form, logits, classes, used, Tensor(labelled))
    loss, gradient = ms.value_and_grad(function)(Tensor(logits))
    assert float(loss) == pytest.approx(float(data[f"{name}.loss"]), rel=LOSS)
    gradient = gradient.asnumpy()
    assert not gradient[~used].any()
    np.testing.assert_allclose(gradient[used], data[f"{name}.grad"], rtol=0, atol=GRADIENT)
    unknown = ~np.pad(labelled, ((0, 0), (0, 1)), constant_values=True)[:, None]
    background = used & (classes == labelled.shape[1])
    assert not gradient[background[..., None] & unknown].any()


@pytest.mark.parametrize(("topic", "name"), cases())
def test_cross_entropy_without_labels(topic, name):
    """The same samples without `labelled`, and with every class labelled."""
    wanted = float(golden.arrays(topic)[f"{name}.cross_entropy"])
    logits, classes, used, labelled = of_case(topic, name)
    for known in (None, Tensor(np.ones_like(labelled))):
        loss = class_loss("plain", logits, classes, used, known)(Tensor(logits))
        assert float(loss) == pytest.approx(wanted, rel=LOSS)
