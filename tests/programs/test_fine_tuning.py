# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Fine-tuning on few shots: what trains, dropout, and what a run may start from."""

import logging

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src import model_surgery
from src.assembly import training as assembly
from src.defrcn.rcnn import BoxPredictor
from src.engine.noise import Noise
from src.model_utils.config import Solver
from src.model_utils.errors import InputError
from src.network_define import build_optimizer, parameters_of, set_parameters
from src.weights.ckpt_format import write_ckpt
from src.weights.note import write_note
from tests.helpers import small

NAMES = ("cube", "disc", "ring")
RES5, PREDICTOR = "roi_heads.res5.", "roi_heads.box_predictor."
SIZE = (64, 96)
WIDTH = 8 * 32  # channels of res5


def fine_tuned(**changes):
    """A section with the settings of fine-tuning."""
    settings = {"roi_heads__freeze_feat": True, "roi_heads__backward_scale": 0.01, **changes}
    return small.section(roi_heads__batch_size_per_image=16, **settings)


def inputs(dropout_noise):
    images, sizes, padded = small.pictures([SIZE])
    rng = np.random.default_rng(5)
    arrays = (
        images,
        sizes,
        padded,
        small.boxes_in(SIZE, 2)[None],
        np.array([[0, 2]], np.int32),
        np.ones((1, 2), bool),
        rng.random((1, 4 * 6 * 9), np.float32),
        rng.random((1, 22), np.float32),
        dropout_noise,
    )
    return tuple(map(Tensor, arrays))


NO_NOISE = np.zeros((1, 1), np.float32)


def gradients(net):
    """Gradients of the sum of the losses by name."""
    parameters = net.trainable_params()
    total = ms.grad(lambda *given: sum(net.losses(*given)), None, ms.ParameterTuple(parameters))
    return {p.name: g.asnumpy() for p, g in zip(parameters, total(*inputs(NO_NOISE)))}


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "plain"])
def nets(request):
    """The same detector with res5 trained, and with res5 frozen."""
    free = small.detector(fine_tuned(roi_heads__freeze_feat=False), fast=request.param)
    frozen = small.detector(fine_tuned(), fast=request.param)
    set_parameters(list(frozen.get_parameters()), parameters_of(free))
    return free, frozen


def test_res5_is_frozen_and_nothing_else(nets):
    free, frozen = ({p.name for p in net.trainable_params()} for net in nets)
    assert free - frozen == {name for name in free if name.startswith(RES5)}
    assert frozen < free and any(name.startswith("backbone.res4.") for name in frozen)


def test_frozen_weights_have_no_optimizer_state(nets):
    optimizer = build_optimizer(nets[1], Solver())
    expected = {f"velocity.{p.name}" for p in nets[1].get_parameters() if p.requires_grad}
    assert {p.name for p in optimizer.state} == expected
    assert not any(RES5 in name for name in expected)


def test_gradients_pass_through_a_frozen_res5(nets):
    """What still trains gets the gradient that it gets when res5 trains too."""
    free, frozen = map(gradients, nets)
    assert set(frozen) < set(free)
    for name, gradient in frozen.items():
        scale = np.abs(free[name]).max()
        np.testing.assert_allclose(gradient, free[name], atol=1e-5 * scale, rtol=0, err_msg=name)
    assert np.abs(frozen["affine_rcnn.weight"]).max() > 0
    assert np.abs(frozen["backbone.res4.0.conv1.weight"]).max() > 0


def test_dropout_keeps_the_expectation():
    predictor = BoxPredictor(8, 3, 0.8)
    rng = np.random.default_rng(0)
    for parameter in predictor.get_parameters():
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    draws = 20000
    rows = np.tile(rng.normal(size=(1, 8)).astype(np.float32), (draws, 1))
    noise = rng.random((draws, 8), np.float32)
    cls, box = (o.asnumpy() for o in predictor.train_forward(Tensor(rows), Tensor(noise)))
    plain_cls, plain_box = (o.asnumpy() for o in predictor(Tensor(rows[:1])))
    # Var of x * keep / 0.2 is 4 x^2: the standard error of the mean follows.
    weight = predictor.cls_score.weight.asnumpy()
    error = np.sqrt(4 * ((weight * rows[0]) ** 2).sum(1) / draws)
    assert (np.abs(cls.mean(0) - plain_cls[0]) < 4 * error).all()
    np.testing.assert_allclose(cls.std(0), error * np.sqrt(draws), rtol=0.05)
    np.testing.assert_allclose(box, np.tile(plain_box, (draws, 1)), rtol=1e-5, atol=1e-6)


def test_dropout_in_training_only():
    """It moves the class loss and nothing else; inference does not know of it."""
    without = small.detector(fine_tuned())
    dropping = small.detector(fine_tuned(roi_heads__cls_dropout=True))
    batch = tuple(map(Tensor, small.pictures([SIZE])))
    noise = Noise(anchors_per_cell=9, proposals=20, dropout=(16, WIDTH))
    plain = losses(without, NO_NOISE)
    dropped, again, differently = (losses(dropping, draw(noise, step)) for step in (0, 0, 1))
    np.testing.assert_array_equal(dropped, again)
    assert dropped[2] != plain[2] and dropped[2] != differently[2]
    for position in (0, 1, 3):
        assert dropped[position] == pytest.approx(plain[position], rel=1e-5)
    for left, right in zip(dropping(*batch), without(*batch)):
        np.testing.assert_array_equal(left.asnumpy(), right.asnumpy())


def draw(noise, step):
    """The dropout noise that a step of training with seed 3 draws."""

    class Batch:
        positions = (step,)
        images = np.zeros((1, 3, *SIZE), np.float32)
        gt_boxes = np.zeros((1, 2, 4), np.float32)

    return noise.draw(3, Batch)[2]


def losses(net, dropout_noise):
    return np.array([float(one.asnumpy()) for one in net.losses(*inputs(dropout_noise))])


# What a run starts from.


@pytest.fixture(scope="module")
def target():
    """A detector for three classes, and the values that each test finds in it."""
    net = small.detector(seed=1)
    return net, parameters_of(net)


@pytest.fixture
def start(target):
    net, values = target
    set_parameters(list(net.get_parameters()), values)
    return net


@pytest.fixture
def base(tmp_path):
    """A whole detector with other numbers, as a dictionary."""
    return {name: array + 1 for name, array in parameters_of(small.detector(seed=2)).items()}


def test_start_from_removed_class_layers(start, target, base, tmp_path, caplog):
    path = write_ckpt(tmp_path / "model_reset_remove.ckpt", model_surgery.removed(base))
    write_note(path, (), {})
    with caplog.at_level(logging.INFO):
        assembly.load_detector(start, path, NAMES)
    assert "has no class and box layer: they start anew" in caplog.text
    assert "4 not in the file, as allowed" in caplog.text
    for name, array in parameters_of(start).items():
        expected = target[1] if name.startswith(PREDICTOR) else base
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("names", [NAMES, None])
def test_start_from_a_whole_detector(start, base, tmp_path, names):
    path = write_ckpt(tmp_path / "model_reset_surgery.ckpt", base)
    if names:
        write_note(path, names, {})
    assembly.load_detector(start, path, NAMES)
    for name, array in parameters_of(start).items():
        np.testing.assert_array_equal(array, base[name], err_msg=name)


def wider(base, num_classes):
    classes = model_surgery.Classes("toys", tuple(range(small.NUM_CLASSES)), num_classes)
    return model_surgery.enlarged(base, classes, 0)


def without(base, *endings):
    return {name: array for name, array in base.items() if not name.endswith(endings)}


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        (lambda b: wider(b, 5), None, "for 5 classes, the training set has 3;.*model_surgery"),
        (lambda b: wider(b, 5), NAMES, "for 5 classes, the training set has 3"),
        (lambda b: b, ("cube", "ring", "disc"), "number 1 on .'ring' instead of 'disc'"),
        (lambda b: without(b, "bbox_pred.weight"), None, "missing: 1 .*bbox_pred.weight"),
        (lambda b: without(b, "cls_score.bias", "cls_score.weight"), None, "missing: 2 "),
        (lambda b: without(model_surgery.removed(b), "affine_rpn.bias"), None, "missing: 1 "),
        (lambda b: {**model_surgery.removed(b), "fc.weight": np.ones(3)}, None, "unexpected: 1"),
    ],
)
def test_start_is_refused(start, target, base, tmp_path, change, names, message):
    path = write_ckpt(tmp_path / "start.ckpt", change(base))
    if names:
        write_note(path, names, {})
    with pytest.raises(InputError, match=message):
        assembly.load_detector(start, path, NAMES)
    for name, array in parameters_of(start).items():
        np.testing.assert_array_equal(array, target[1][name], err_msg=name)
