# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Base checkpoint, surgery, fine-tuning and evaluation, as a user runs them, on small pictures.

The novel classes are tuned by a sweep of one run, which starts train.py; all classes by train.py
itself, after surgery by hand, with the decoupled classifier's loss.
"""

import contextlib
import json
import re

import numpy as np
import pytest
from mindspore import Tensor

from src import model_surgery
from src.assembly import training as assembly
from src.assembly.data import read_training_data
from src.assembly.schedule import make_schedule
from src.engine.parallel import ALONE
from src.engine.trainer import batch_tensors
from src.model_utils.config import load_config
from src.sweep import __main__ as sweep
from src.weights.checkpoint import load_training_checkpoint, load_weights
from tests.helpers.trained import run

STEPS = 3
DECOUPLED = "--model.roi_heads.cls_loss=dcfs"
NOVEL, ALL = 3, 12
PREDICTOR = "roi_heads.box_predictor."
FINE_TUNING = (
    "--model.roi_heads.freeze_feat=true",
    "--model.roi_heads.cls_dropout=true",
    "--model.roi_heads.backward_scale=0.01",
    "--model.backbone.freeze_at=3",
)


@pytest.fixture(scope="module")
def place(trained_demo, tmp_path_factory):
    """The configuration of a few steps of one picture each."""
    steps = {"max_iter": STEPS, "steps": [], "warmup_iters": 0}
    return trained_demo.copy(
        tmp_path_factory.mktemp("few_shot"),
        steps=None,
        solver={**steps, "images_per_card": 1, "images_per_batch": 1},
        test={"visualize_images": 0},
        checkpoint={"period": 2, "keep_last": 1},
    )


@pytest.fixture(scope="module")
def sweep_words(trained_demo, place):
    """A sweep of one run on the novel classes."""
    return [
        f"--output={place.parent / 'sweep'}",
        *("--dataset=own", "--setting=fsod", "--shots=1", "--seeds=1"),
        f"--config_path={place}",
        f"--base_checkpoint={trained_demo.run}",
        "--data.train=[shapes_train_novel_{shot}shot_seedx]",
        "--data.test=[shapes_test_novel]",
        *FINE_TUNING,
    ]


@pytest.fixture(scope="module")
def swept(place, sweep_words):
    """The folder of the sweep's run, and the file that it started from."""
    assert sweep.main(sweep_words) == 0
    root = place.parent / "sweep"
    return root / "tfa-like" / "1shot_seed1", root / "surgery" / "model_reset_remove.ckpt"


@pytest.fixture(scope="module")
def by_hand(trained_demo, place):
    """The same of all classes, and the output."""
    root = place.parent
    flags = [f"--dataset={place}", "--method=randinit", f"--src-path={trained_demo.run}"]
    assert model_surgery.main([*flags, f"--save-dir={root}", "--seed=4"]) == 0
    start = root / "model_reset_surgery.ckpt"
    flags = (*flags_of(root, "all", start), *FINE_TUNING, DECOUPLED)
    output, _ = run("train.py", place, *flags)
    return root / "tuned", start, output


def flags_of(root, split, start):
    return (
        f"--data.train=shapes_train_{split}_1shot_seedx",
        f"--data.test=shapes_test_{split}",
        "--shot_seed=1",
        f"--model_pretrained_path={start}",
        f"--save_checkpoint_path={root / 'tuned'}",
        f"--train_mindrecord_dir={root / 'mindrecord' / split / 'train'}",
        f"--test_mindrecord_dir={root / 'mindrecord' / split / 'test'}",
    )


@pytest.fixture(params=["fsod", "gfsod"])
def tuned(request):
    """Kind, folder, start and output of a fine-tuning."""
    if request.param == "gfsod":
        return request.param, *request.getfixturevalue("by_hand")
    folder, start = request.getfixturevalue("swept")
    return request.param, folder, start, (folder / "output.txt").read_text()


def test_it_starts_trains_and_evaluates(tuned):
    kind, folder, start, output = tuned
    split, num_classes = ("novel", NOVEL) if kind == "fsod" else ("all", ALL)
    assert f"loaded {start}" in output
    assert ("class and box layer: they start anew" in output) == (kind == "fsod")
    assert re.search(rf" step {STEPS}/{STEPS}  total \d", output)
    metrics = json.loads((folder / f"eval_{STEPS}" / "metrics.json").read_text())
    (name,) = metrics
    assert name == f"shapes_test_{split}"
    checkpoint = load_training_checkpoint(folder / "ckpt_0")
    assert len(checkpoint.class_names) == num_classes
    assert checkpoint.info["config"]["data"]["train"] == [f"shapes_train_{split}_1shot_seed1"]


def test_what_fine_tuning_moves(tuned):
    kind, folder, source, _ = tuned
    checkpoint = load_training_checkpoint(folder / "ckpt_0")
    start = load_weights(source)
    assert set(checkpoint.params) - set(start) == {
        name for name in checkpoint.params if kind == "fsod" and name.startswith(PREDICTOR)
    }
    frozen = re.compile(r"backbone\.(stem|res[23])\.|roi_heads\.res5\.")
    for name in start:
        same = np.array_equal(checkpoint.params[name], start[name])
        assert same == bool(frozen.match(name)), name
    state = {name for name in checkpoint.state if name.startswith("velocity.")}
    trained = {
        f"velocity.{name}"  # a norm's statistics are gathered, not trained
        for name in checkpoint.params
        if not frozen.match(name) and ".running_" not in name
    }
    assert state == trained


def test_the_sweeps_result_and_table(place, sweep_words, swept, capsys):
    folder, start = swept
    result = json.loads((folder / "sweep_result.json").read_text())
    metrics = json.loads((folder / f"eval_{STEPS}" / "metrics.json").read_text())
    assert result["metrics"] == metrics and list(metrics) == ["shapes_test_novel"]
    assert (result["iterations"], result["images"]) == (STEPS, STEPS)
    assert len(result["support_set_sha256"]) == 64
    assert start.is_file()
    assert sorted(path.name for path in (folder / "ckpt_0").iterdir()) == [
        f"defrcn-{STEPS}.{ending}" for ending in ("ckpt", "json", "state.npz")
    ]
    table = (place.parent / "sweep" / "tfa-like" / "table.md").read_text()
    for name in ("crescent", "cross", "checkerboard"):
        assert name in table
    # again: nothing is left to do, and the table is shown
    changed = (folder / "sweep_result.json").stat().st_mtime_ns
    assert sweep.main(sweep_words) == 0
    assert (folder / "sweep_result.json").stat().st_mtime_ns == changed
    assert f" {metrics['shapes_test_novel']['results']['nAP']:.2f} |" in capsys.readouterr().out


def first_class_loss(place, *flags):
    """The class loss of the first step, computed one operator after the other."""
    config = load_config(place, flags)
    data = read_training_data(config)
    with contextlib.closing(assembly.open_training_data(config, data, start_batch=0)) as loader:
        net = assembly.make_detector(config, loader.class_names)
        assembly.load_start(config, net, None, loader.class_names)
        schedule = make_schedule(config, 1)
        trainer = assembly.make_trainer(config, net, schedule, loader, group=ALONE, evaluate=None)
        batch = next(loader)
    labelled = () if batch.labelled is None else (batch.labelled,)
    given = (*trainer.noise.draw(config.seed, batch), *labelled)
    losses = net.losses(*batch_tensors(batch), *map(Tensor, given))
    return float(losses[2].asnumpy()), batch


def test_the_loss_knows_what_pictures_are_labelled_for(place, by_hand):
    _, start, output = by_hand
    flags = (*flags_of(place.parent, "all", start), *FINE_TUNING)
    decoupled, batch = first_class_loss(place, *flags, DECOUPLED)
    plain, unlabelled = first_class_loss(place, *flags)
    assert unlabelled.labelled is None
    np.testing.assert_array_equal(np.flatnonzero(batch.labelled), np.unique(batch.gt_classes))
    logged = float(re.search(r" step 1/3 .* loss_cls (\S+)", output)[1])
    assert logged == pytest.approx(decoupled, abs=2e-4)
    assert abs(plain - decoupled) > 1e-3


def test_the_loss_is_refused_in_base_training(place):
    flags = (f"--save_checkpoint_path={place.parent / 'never'}", DECOUPLED)
    _, error = run("train.py", place, *flags, expect=1)
    assert re.search(r"error: model\.roi_heads\.cls_loss is dcfs, but .*shapes_train_base", error)
    assert error.count("\n") == 1 and not list((place.parent / "never").glob("ckpt_0/*"))


def test_a_base_checkpoint_as_it_is_is_refused(trained_demo, place):
    start = trained_demo.run / "ckpt_0" / f"defrcn-{trained_demo.steps}.ckpt"
    flags = (*flags_of(place.parent / "refused", "novel", start), *FINE_TUNING)
    _, error = run("train.py", place, *flags, expect=1)
    assert re.search(r"error: .*is for 9 classes, the training set has 3; .*model_surgery", error)
