# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Which keys may change when a run is gone on with, and what is said of them."""

import logging
from pathlib import Path

import numpy as np
import pytest

from src.assembly.data import TrainingData
from src.assembly.resume import changes, check_resumable, origin_of
from src.model_utils.config import load_config, to_plain
from src.model_utils.errors import InputError
from src.weights.checkpoint import TrainingCheckpoint

DATA = TrainingData(None, [], None, "a" * 64)
START = """
resume: true
save_checkpoint_path: {root}/run
solver: {{max_iter: 100, steps: [80], warmup_iters: 10, images_per_batch: 2, images_per_card: 2}}
"""


@pytest.fixture
def configured(tmp_path):
    """Read a configuration with flags."""
    path = tmp_path / "c.yaml"
    path.write_text(START.format(root=tmp_path))
    return lambda *flags: load_config(path, flags)


def saved(config, step=50, **info):
    """A checkpoint of a run with this configuration."""
    known = {"config": to_plain(config), **origin_of(config, DATA, None), **info}
    state = {"world_size": np.array(1)}
    return TrainingCheckpoint(Path("run/ckpt_0/defrcn-50.json"), step, (), known, {}, state)


@pytest.mark.parametrize(
    "flag",
    [
        "--seed=1",
        "--data.train=[coco14_trainval_all]",
        "--data.filter_empty=false",
        "--data.aspect_ratio_grouping=false",
        "--input.min_size_train=[600]",
        "--input.flip_probability=0.0",
        "--model.backbone.freeze_at=2",
        "--model.rpn.backward_scale=0.5",
        "--model.roi_heads.bbox_loss_weight=2",
        "--solver.images_per_card=1",
        "--solver.images_per_batch=4",
        "--solver.optimizer=adamw",
        "--solver.momentum=0.8",
        "--solver.weight_decay=0.001",
        "--solver.base_lr=0.01",
        "--solver.warmup_iters=20",
        "--solver.warmup_factor=0.5",
        "--solver.steps=[40]",
    ],
)
def test_what_the_steps_so_far_were_made_with_stays(configured, flag):
    key, _, value = flag[2:].partition("=")
    with pytest.raises(InputError, match=r"defrcn-50\.json: its 50 steps were made with") as told:
        check_resumable(configured(flag), DATA, saved(configured()))
    change = dict([part.split(" ", 1) for part in str(told.value).split(": ")[2].split(", ")][:1])
    assert list(change) == [key] and value.strip("[]'") in str(told.value)


@pytest.mark.parametrize(
    "flag",
    [
        "--solver.max_iter=200",
        "--solver.max_iter=90",
        "--solver.steps=[60,90]",
        "--solver.gamma=0.5",
        "--solver.max_skipped_steps=3",
        "--log.period=5",
        "--checkpoint.period=7",
        "--checkpoint.keep_last=9",
        "--test.eval_period=10",
        "--test.pcb.enable=true",
        "--data.test=[coco14_test_all]",
        "--input.min_size_test=600",
        "--watch.tensorboard=true",
        "--data.num_workers=7",
        "--datasets_root=moved",
        "--train_mindrecord_dir=moved",
        "--device_target=GPU",
    ],
)
def test_what_does_not_reach_back_may_change(configured, flag, caplog):
    caplog.set_level(logging.INFO)
    check_resumable(configured(flag), DATA, saved(configured()))
    assert f"changed since step 50: {flag[2:].partition('=')[0]} " in caplog.text


def test_nothing_is_said_where_nothing_has_changed(configured, caplog):
    caplog.set_level(logging.INFO)
    check_resumable(configured(), DATA, saved(configured("--resume=false")))
    check_resumable(configured(), DATA, None)
    assert caplog.text == ""


def test_an_end_before_the_present_step_is_refused(configured):
    flags = ("--solver.max_iter=49", "--solver.steps=[]")
    with pytest.raises(InputError, match=r"solver\.max_iter.* after step 49.*has made 50"):
        check_resumable(configured(*flags), DATA, saved(configured("--solver.steps=[]")))
    check_resumable(
        configured("--solver.max_iter=50", "--solver.steps=[]"),
        DATA,
        saved(configured("--solver.steps=[]")),
    )


def test_all_that_is_wrong_is_told_at_once(configured):
    with pytest.raises(InputError) as told:
        check_resumable(configured("--seed=3", "--solver.base_lr=1"), DATA, saved(configured()))
    assert "seed 0 -> 3, solver.base_lr 0.02 -> 1.0" in str(told.value)


def test_data_count_by_content(configured):
    other = TrainingData(None, [], None, "b" * 64)
    with pytest.raises(InputError, match=r"data\.train \(its content\) .a{12}. -> .b{12}.;"):
        check_resumable(configured(), other, saved(configured()))
    drawn = TrainingData(None, [], None, "")
    check_resumable(configured(), drawn, saved(configured()))


def test_starting_weights_count_by_content(configured, tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"a")
    (tmp_path / "moved.ckpt").write_bytes(b"a")
    (tmp_path / "b.ckpt").write_bytes(b"b")
    before = saved(configured(f"--model_pretrained_path={tmp_path / 'a.ckpt'}"))
    for name in ("moved.ckpt", "gone.ckpt"):
        check_resumable(configured(f"--model_pretrained_path={tmp_path / name}"), DATA, before)
    check_resumable(configured(), DATA, before)
    other = configured(f"--model_pretrained_path={tmp_path / 'b.ckpt'}")
    with pytest.raises(InputError, match=r"model_pretrained_path \(its content\)"):
        check_resumable(other, DATA, before)
    with pytest.raises(InputError, match=r"model_pretrained_path \(its content\) .none. ->"):
        check_resumable(other, DATA, saved(configured()))


def test_a_checkpoint_that_says_less_is_compared_by_less(configured):
    old = saved(configured())
    for key in ("config", "data", "start"):
        del old.info[key]
    check_resumable(configured("--solver.momentum=0.5"), DATA, old)
    assert origin_of(configured(), DATA, old) == {}


def test_missing_keys_had_their_default_and_removed_ones_are_ignored(configured):
    before = to_plain(configured())
    del before["solver"]["momentum"], before["input"]
    before["solver"]["no_longer_there"] = 1
    assert changes(before, configured()) == {}
    assert changes(before, configured("--solver.momentum=0.5")) == {"solver.momentum": (0.9, 0.5)}
