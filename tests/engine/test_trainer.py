# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The training loop: what changes, what is logged and saved, resuming, refusals."""

import dataclasses
import errno
import logging
import os
import re
import signal
import time

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from src.data.batching import Batch
from src.defrcn.de_frcn import LOSS_NAMES
from src.defrcn.kernels import KernelSquareSum, use_kernels
from src.defrcn.rcnn import known_logits
from src.engine.loss_scale import LossScale
from src.engine.noise import Noise
from src.engine.trainer import Trainer, step_in_epoch
from src.kernels import library
from src.lr_schedule import Schedule
from src.model_utils.config import Solver
from src.model_utils.errors import InputError
from src.model_utils.interruption import Interrupted, StopRequests
from src.network_define import (
    build_optimizer,
    build_train_step,
    parameters_of,
    set_parameters,
)
from src.weights.checkpoint import load_training_checkpoint
from tests.helpers import small

SIZES = ((64, 80), (64, 96), (80, 64))
NUM_IMAGES = 6
BASE_LR = 1e-4  # random weights and pictures that are not normalised


def batch(number):
    """Batch `number` of an endless row of single pictures of several sizes."""
    size = SIZES[number % len(SIZES)]
    images, sizes, padded = small.pictures([size], seed=number)
    count = 1 + number % 2
    return Batch(
        images=images,
        image_sizes=sizes,
        padded_size=padded,
        gt_boxes=small.boxes_in(size, count, number)[None],
        gt_classes=np.arange(count, dtype=np.int32)[None],
        gt_valid=np.ones((1, count), bool),
        image_ids=[number],
        file_names=[f"picture{number}.jpg"],
        original_sizes=np.array([size], np.int32),
        positions=(number,),
    )


def batches(first=0):
    number = first
    while True:
        yield batch(number)
        number += 1


class Run:
    """One network and its compiled step, shared by the tests; each starts from the same weights."""

    def __init__(self):
        self.net = small.detector()
        settings, path = {"batch_size": 1, "exact": True}, library.built()
        if path is not None:  # as for users; less to compile
            use_kernels(self.net, str(path))
            settings["square_sum"] = KernelSquareSum(str(path))
        self.start = parameters_of(self.net)
        self.optimizer = build_optimizer(self.net, Solver(), str(path or ""))
        self.compiled = build_train_step(self.net, self.optimizer, **settings)

    def trainer(self, folder, steps, **changes):
        set_parameters(list(self.net.get_parameters()), self.start)
        set_parameters(
            self.optimizer.velocities,
            {p.name: np.zeros(p.shape, np.float32) for p in self.optimizer.velocities},
        )
        gradients_of, update = changes.pop("compiled", self.compiled)
        settings = {
            "seed": 3,
            "num_images": NUM_IMAGES,
            "folder": folder,
            "info": {"class_names": ["a", "b", "c"], "config": {}},
            "log_period": 2,
            "save_period": 3,
            "keep_last": 10,
            **changes,
        }
        return Trainer(
            self.net,
            self.optimizer,
            gradients_of,
            update,
            Schedule(BASE_LR, steps, (4,), 0.1, 2, 0.1),
            Noise(anchors_per_cell=9, proposals=20, dropout=(1, 1)),
            **settings,
        )


@pytest.fixture(scope="module")
def run():
    return Run()


class ClassLayer(nn.Cell):
    """Nothing but logits, the same of every sample; samples are the batch's objects."""

    def __init__(self):
        super().__init__()
        self.logits = Parameter(Tensor(np.array([0.5, -1.0, 2.0], np.float32)), name="logits")

    def losses(
        self, images, sizes, padded, boxes, classes, valid, rpn_noise, roi_noise, dropout, labelled
    ):
        count = classes.shape[0] * classes.shape[1]
        rows = known_logits(ops.tile(self.logits, (count, 1)), classes, labelled)
        loss = ops.cross_entropy(rows, classes.reshape(-1))
        return 0 * loss, 0 * loss, loss, 0 * loss


@pytest.mark.parametrize("factor", [None, 1024.0])
def test_labelled_classes_and_the_factor_of_the_loss(tmp_path, factor):
    """Both come behind the noise; the factor changes neither losses nor gradients."""
    net = ClassLayer()
    optimizer = build_optimizer(net, Solver(momentum=0.0, weight_decay=0.0))
    steps = build_train_step(net, optimizer, batch_size=2, exact=True, scaled=factor is not None)
    single = batch(0)
    two = {name: np.repeat(getattr(single, name), 2, 0) for name in ("images", "image_sizes")}
    classes = np.array([[0, 2, 2], [2, 1, 2]], np.int32)  # 2 is background
    labelled = np.array([[True, False], [False, True]])
    given = dataclasses.replace(
        single,
        **two,
        gt_boxes=np.zeros((2, 3, 4), np.float32),
        gt_classes=classes,
        gt_valid=np.ones((2, 3), bool),
        labelled=labelled,
        positions=(0, 1),
    )
    trainer = Trainer(
        net,
        optimizer,
        *steps,
        Schedule(BASE_LR, 1, (), 0.1, 0, 0.1),
        Noise(anchors_per_cell=9, proposals=20, dropout=(1, 1)),
        **{"seed": 3, "num_images": 2, "folder": tmp_path, "info": {"class_names": ["a", "b"]}},
        **{"log_period": 1, "save_period": 1, "keep_last": 1},
        loss_scale=None if factor is None else LossScale(factor),
    )

    # the formula of docs/methods.md
    logits = net.logits.asnumpy().astype(np.float64)
    loss, gradient = 0.0, np.zeros(3)
    for image, row in enumerate(classes):
        for k in row:
            kept = np.array([*labelled[image], True]) | (k < 2)
            shares = np.exp(kept * logits) / np.exp(kept * logits).sum()
            loss -= np.log(shares[k]) / classes.size
            gradient += kept * (shares - (np.arange(3) == k)) / classes.size
    losses = trainer._one_step(given, 0.25)
    np.testing.assert_allclose(losses, [0, 0, loss, 0], rtol=1e-6)
    np.testing.assert_allclose(net.logits.asnumpy(), logits - 0.25 * gradient, rtol=1e-6)


def test_one_step_changes_every_trainable_parameter_and_no_other(run, tmp_path):
    run.trainer(tmp_path, 1).run(batches())
    after = parameters_of(run.net)
    trainable = {p.name for p in run.net.trainable_params()}
    assert {"affine_rpn.weight", "affine_rcnn.bias"} <= trainable
    for name, before in run.start.items():
        assert (not np.array_equal(after[name], before)) == (name in trainable), name


def test_a_compiled_step_sees_parameters_that_are_set_later(run, tmp_path):
    """Also the update must reach them: `Parameter.set_data` would cut it off."""
    results = []
    for attempt in range(3):
        run.trainer(tmp_path / str(attempt), 2).run(batches())
        results.append(parameters_of(run.net))
    for name in run.start:
        assert all(np.array_equal(results[0][name], one[name]) for one in results), name
    moved = [name for name in run.start if not np.array_equal(results[2][name], run.start[name])]
    assert set(moved) == {p.name for p in run.net.trainable_params()}


def test_resumed_run_is_equal_bit_for_bit(run, tmp_path):
    run.trainer(tmp_path / "whole", 6).run(batches())
    whole = parameters_of(run.net)
    assert not np.array_equal(whole["affine_rpn.weight"], run.start["affine_rpn.weight"])
    # The schedule is the same; the first half just ends early, as when it is killed.
    stopped = run.trainer(tmp_path / "halves", 6)
    with pytest.raises(KeyboardInterrupt):
        stopped.run(interrupted_after(3))
    checkpoint = load_training_checkpoint(tmp_path / "halves" / "ckpt_0")
    assert checkpoint.step == 3
    assert checkpoint.class_names == ("a", "b", "c")
    second = run.trainer(tmp_path / "halves", 6)
    set_parameters(list(run.net.get_parameters()), checkpoint.params)
    second.restore(checkpoint)
    assert second.step == 3
    second.run(batches(first=3))
    resumed = parameters_of(run.net)
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    a, b = (load_training_checkpoint(tmp_path / one / "ckpt_0") for one in ("whole", "halves"))
    assert a.step == b.step == 6
    velocities = [name for name in a.state if name.startswith("velocity.")]
    assert velocities and all(np.array_equal(a.state[n], b.state[n]) for n in velocities)


def interrupted_after(count):
    for number in range(count):
        yield batch(number)
    raise KeyboardInterrupt


def test_another_seed_or_other_parameters_are_refused(run, tmp_path):
    run.trainer(tmp_path, 1).run(batches())
    checkpoint = load_training_checkpoint(tmp_path / "ckpt_0")
    with pytest.raises(InputError, match="seed 3"):
        run.trainer(tmp_path, 2, seed=4).restore(checkpoint)
    del checkpoint.state["velocity.affine_rpn.weight"]
    with pytest.raises(InputError, match="other parameters"):
        run.trainer(tmp_path, 2).restore(checkpoint)


def test_a_state_with_other_draws_goes_on_with_a_warning(run, tmp_path, caplog):
    run.trainer(tmp_path, 1).run(batches())
    checkpoint = load_training_checkpoint(tmp_path / "ckpt_0")
    run.trainer(tmp_path, 2).restore(checkpoint)
    assert "other draws" not in caplog.text
    del checkpoint.state["noise_scheme"]  # as checkpoints of before had it
    older = run.trainer(tmp_path, 2)
    older.restore(checkpoint)
    assert "defrcn-1.json: was trained by another version" in caplog.text
    assert older.step == 1


@pytest.mark.parametrize("where", ["divergence", "gradient"])
def test_what_is_not_finite_stops_before_the_weights_change(run, tmp_path, where):
    compiled = run.compiled if where == "divergence" else spoilt(run, {2})
    trainer = run.trainer(tmp_path, 5, compiled=compiled, save_period=1)
    if where == "divergence":
        trainer.schedule = Schedule(1e30, 5, (), 0.1, 0, 0.1)
    message = r"step 2.*not finite.*picture1\.jpg.*not changed"
    with pytest.raises(InputError, match=message) as error:
        trainer.run(batches())
    assert all(name in str(error.value) for name in LOSS_NAMES)
    now, saved = parameters_of(run.net), load_training_checkpoint(tmp_path / "ckpt_0")
    assert saved.step == 1
    for name, value in saved.params.items():
        np.testing.assert_array_equal(now[name], value)


def spoilt(run, steps):
    """A compiled step whose gradient is infinite at some steps, counted from 1."""
    gradients_of, update = run.compiled
    calls = []

    def wrapped(*inputs):
        losses, square, gradients = gradients_of(*inputs)
        calls.append(1)
        return losses, (square * np.inf if len(calls) in steps else square), gradients

    return wrapped, update


def test_steps_that_are_not_finite_are_left_out_up_to_a_limit(run, tmp_path, caplog):
    trainer = run.trainer(tmp_path / "a", 4, compiled=spoilt(run, {2}), max_skipped=1)
    trainer.run(batches())
    assert (trainer.step, trainer.skipped) == (4, 1)
    assert re.search(r"step 2: .*picture1\.jpg; .*left out, 1 of at most 1", caplog.text)
    left_out = parameters_of(run.net)
    # The same by hand: the update of the second step does nothing.
    gradients_of, update = run.compiled
    calls = []

    def idle(gradients, lr):
        calls.append(1)
        if len(calls) != 2:
            update(gradients, lr)

    run.trainer(tmp_path / "b", 4, compiled=(gradients_of, idle)).run(batches())
    for name, value in parameters_of(run.net).items():
        np.testing.assert_array_equal(left_out[name], value, err_msg=name)


def test_the_limit_counts_over_a_resume(run, tmp_path):
    trainer = run.trainer(tmp_path, 6, compiled=spoilt(run, {2}), max_skipped=1, save_period=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(interrupted_after(3))
    checkpoint = load_training_checkpoint(tmp_path / "ckpt_0")
    second = run.trainer(tmp_path, 6, compiled=spoilt(run, {1}), max_skipped=1)
    set_parameters(list(run.net.get_parameters()), checkpoint.params)
    second.restore(checkpoint)
    with pytest.raises(InputError, match=r"step 4: .*picture3\.jpg.*after 1 steps left out"):
        second.run(batches(first=3))
    del checkpoint.state["skipped"]  # as checkpoints of before had it
    run.trainer(tmp_path, 6).restore(checkpoint)


def scaled(run, steps):
    """The same of a step in half precision: it takes a factor of the loss, which is noted."""
    wrapped, update = spoilt(run, steps)
    factors = []

    def with_factor(*inputs):
        factors.append(float(inputs[-1].asnumpy()))
        return wrapped(*inputs[:-1])

    return (with_factor, update), factors


def test_an_overflow_is_left_out_with_a_smaller_factor(run, tmp_path, caplog):
    """It is counted apart from losses that are not finite, and goes on after a resume."""
    caplog.set_level(logging.INFO)
    compiled, factors = scaled(run, {2, 3})
    scale = LossScale(64.0, window=2)
    trainer = run.trainer(tmp_path, 6, compiled=compiled, loss_scale=scale, save_period=1)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(interrupted_after(4))
    assert factors == [64, 64, 32, 16]
    assert (trainer.skipped, scale.overflows) == (0, 2)
    assert "step 3: a gradient overflowed; step left out, loss scale 16 (overflow 2)" in caplog.text
    checkpoint = load_training_checkpoint(tmp_path / "ckpt_0")
    compiled, factors = scaled(run, set())
    again = LossScale(64.0, window=2)
    second = run.trainer(tmp_path, 7, compiled=compiled, loss_scale=again)
    set_parameters(list(run.net.get_parameters()), checkpoint.params)
    second.restore(checkpoint)
    second.run(batches(first=4))
    assert factors == [16, 32, 32]
    assert (again.value, again.overflows) == (64, 2)
    run.trainer(tmp_path, 6).restore(checkpoint)  # in float32, if that is what is wanted


def test_a_gradient_that_no_factor_helps_stops(run, tmp_path):
    compiled, factors = scaled(run, {2, 3})
    trainer = run.trainer(tmp_path, 4, compiled=compiled, loss_scale=LossScale(2.0))
    with pytest.raises(InputError, match=r"step 3: .*not finite"):
        trainer.run(batches())
    assert factors == [2, 2, 1]


# not SIGINT, which MindSpore takes for itself in this process: see `hold_interrupts`
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_after_the_step_which_is_saved(run, tmp_path, number, code, capfd):
    def signalled():
        for position in range(3):
            if position == 1:
                signal.raise_signal(number)
            yield batch(position)

    before = signal.signal(number, signal.SIG_DFL)  # nohup has SIGHUP ignored
    with StopRequests() as stop, pytest.raises(Interrupted) as event:
        run.trainer(tmp_path, 6, stop=stop).run(signalled())
    signal.signal(number, before)
    assert event.value.code == code
    assert load_training_checkpoint(tmp_path / "ckpt_0").step == 2
    assert "ending after this step" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_ends_at_once(run, tmp_path):
    def impatient():
        yield batch(0)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # the same one, handed on by a launcher as well
        stop._since -= 60
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("went on")

    with StopRequests() as stop, pytest.raises(Interrupted):
        run.trainer(tmp_path, 6, stop=stop).run(impatient())
    assert load_training_checkpoint(tmp_path / "ckpt_0") is None


def test_an_evaluation_is_broken_off_and_its_step_was_saved(run, tmp_path):
    def evaluate(step):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("went on")

    with StopRequests() as stop, pytest.raises(Interrupted):
        run.trainer(tmp_path, 6, stop=stop, evaluate=evaluate, eval_period=2).run(batches())
    assert load_training_checkpoint(tmp_path / "ckpt_0").step == 2


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_it_stays(run, tmp_path, monkeypatch):
    real = os.fsync

    def full(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".npz"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    def filling():
        for position in range(6):
            if position == 4:
                monkeypatch.setattr(os, "fsync", full)
            yield batch(position)

    with pytest.raises(InputError, match=r"defrcn-6\.state\.npz cannot be written.*No space left"):
        run.trainer(tmp_path, 6).run(filling())
    monkeypatch.undo()
    assert load_training_checkpoint(tmp_path / "ckpt_0").step == 3
    assert not list((tmp_path / "ckpt_0").glob(".*"))


def test_lines(run, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run.trainer(tmp_path, 5).run(batches())
    number = r"\d+\.\d{4}"
    named = "  ".join(f"{name} {number}" for name in LOSS_NAMES)
    pattern = re.compile(
        rf"step (\d)/5  total {number}  {named}  lr (\d\.\d{{6}})  \d+\.\d\d images/s  "
        r"data \d+\.\d{3} s  eta \d\d:\d\d:\d\d  \d+\.\d GB"
    )
    found = [pattern.fullmatch(one) for one in caplog.messages if one.startswith("step ")]
    assert all(found)
    assert [(m[1], m[2]) for m in found] == [
        ("1", "0.000010"),
        ("2", "0.000055"),
        ("4", "0.000100"),
        ("5", "0.000010"),
    ]
    lines = (tmp_path / "loss_0.log").read_text().splitlines()
    pattern = re.compile(
        r"(\d+) s \| epoch: (\d+) step: (\d+) total_loss: \d+\.\d{5}  lr: \d\.\d{6}"
    )
    parsed = [pattern.fullmatch(line) for line in lines]
    assert [(m[2], m[3]) for m in parsed] == [("1", "1"), ("1", "2"), ("1", "4"), ("1", "5")]


def test_checkpoints_and_evaluation(run, tmp_path):
    evaluated = []
    trainer = run.trainer(
        tmp_path, 7, save_period=2, keep_last=2, evaluate=evaluated.append, eval_period=3
    )
    trainer.run(batches())
    assert evaluated == [3, 6]
    kept = sorted(path.name for path in (tmp_path / "ckpt_0").glob("*.json"))
    assert kept == ["defrcn-6.json", "defrcn-7.json"]


@pytest.mark.parametrize(
    ("step", "batch_size", "num_images", "expected"),
    [
        (1, 1, 6, (1, 1)),
        (6, 1, 6, (1, 6)),
        (7, 1, 6, (2, 1)),
        (12, 1, 6, (2, 6)),
        (3, 2, 6, (1, 3)),
        (4, 2, 6, (2, 1)),
        (1, 16, 4, (4, 1)),  # a batch of several epochs
    ],
)
def test_step_in_epoch(step, batch_size, num_images, expected):
    assert step_in_epoch(step, batch_size, num_images) == expected


def test_step_in_epoch_counts_from_one_and_misses_no_step():
    for batch_size, num_images in ((4, 10), (3, 7), (2, 9)):
        previous = (1, 0)
        for step in range(1, 50):
            epoch, inside = step_in_epoch(step, batch_size, num_images)
            assert (epoch, inside) in (
                (previous[0], previous[1] + 1),
                (previous[0] + 1, 1),
            ), (batch_size, num_images, step)
            previous = epoch, inside


def test_steps_are_compiled_once(run, tmp_path, capfd):
    """Pictures of other sizes and a new rate must not compile anything again."""
    trainer = run.trainer(tmp_path, 1)
    trainer.run(batches())
    capfd.readouterr()
    seconds = []
    for number in range(1, 4):
        trainer.schedule = Schedule(BASE_LR / number, number + 1, (), 0.1, 0, 0.1)
        started = time.monotonic()
        trainer.run(batches(number))
        seconds.append(time.monotonic() - started)
    assert "compiled again" not in capfd.readouterr().err
    assert max(seconds) < 5, seconds
