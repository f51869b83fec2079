# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""With which settings a run may be gone on with: those that its steps so far were made with.

Every checkpoint holds the configuration, a hash of the training data and one of the weights that
the run started from. A key that does not reach back may change: a later end, later decays, where
things are, what is logged, kept and evaluated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.assembly.data import TrainingData
from src.assembly.schedule import real_schedule
from src.calibration.support_set import FILE_NAME, read_support_set
from src.model_utils.config import Config, to_plain
from src.model_utils.errors import InputError
from src.util import leaves, sha256_file
from src.weights.checkpoint import TrainingCheckpoint

logger = logging.getLogger(__name__)

# Sections whose keys decide what a step does, ...
_BINDING = ("seed", "data", "input", "model", "solver")
# ... but for these: they count by content, or have no effect on a step.
_FREE = (
    "data.custom",
    "data.test",
    "data.num_workers",
    "data.max_image_pixels",
    "data.wait_minutes",
    "input.min_size_test",
    "input.max_size_test",
    "model.num_classes",
    "model.formulation",
    "model.rpn.pre_nms_topk_test",
    "model.rpn.post_nms_topk_test",
    "solver.max_skipped_steps",
)
# These count by the rates that they gave the steps so far.
_RATES = (
    "solver.images_per_batch",
    "solver.scale_to_batch",
    "solver.scale_to_iter",
    "solver.base_lr",
    "solver.max_iter",
    "solver.steps",
    "solver.gamma",
    "solver.warmup_iters",
    "solver.warmup_factor",
)
_STARTS = ("model_pretrained_path", "backbone_pretrained_path")

Changes = dict[str, tuple[Any, Any]]


def origin_of(
    config: Config, data: TrainingData, resumed: TrainingCheckpoint | None
) -> dict[str, Any]:
    """What the checkpoints of a run say of its data and of the weights that it started from."""
    if resumed is not None:
        return {key: resumed.info[key] for key in ("data", "start") if key in resumed.info}
    return {"data": {"sha256": data.sha256}, "start": _starts(config)}


def _starts(config: Config) -> dict[str, str]:
    """SHA-256 of the weights to start from, by key; without those that are not here."""
    paths = {key: getattr(config, key) for key in _STARTS}
    return {key: sha256_file(path) for key, path in paths.items() if Path(path).is_file()}


def check_resumable(config: Config, data: TrainingData, resumed: TrainingCheckpoint | None) -> None:
    """Refuse to go on with a run under settings that its steps so far did not have.

    Other changes are logged. A checkpoint of a version that stored less is compared by less.

    Args:
        config: the configuration now.
        data: the training sets now.
        resumed: the run's checkpoint; None without `resume`, or if there is none yet.

    Raises:
        InputError: naming what has changed.
    """
    if config.resume:
        _check_support(config, data)
    if resumed is None:
        return
    changed = changes(resumed.info.get("config") or to_plain(config), config)
    refused = {key: change for key, change in changed.items() if _binds(key)}
    cards = int(resumed.state["world_size"])
    schedule, before = real_schedule(config, cards), real_schedule(_before(changed, config), cards)
    if any(before.lr(step) != schedule.lr(step) for step in range(resumed.step)):
        refused |= {key: change for key, change in changed.items() if key in _RATES}
    refused |= _other_contents(config, data, resumed)
    if refused:
        raise InputError(
            f"{resumed.manifest}: its {resumed.step} steps were made with other settings: "
            f"{_shown(refused)}; resume with what they were, or start a run in another folder"
        )
    if schedule.max_steps < resumed.step:
        raise InputError(
            f"solver.max_iter: the run would end after step {schedule.max_steps}, but "
            f"{resumed.manifest} has made {resumed.step}; leave it as it was, or raise it"
        )
    told = {key: change for key, change in changed.items() if key not in ("resume", "overwrite")}
    if told:
        logger.info("changed since step %d: %s", resumed.step, _shown(told))


def _check_support(config: Config, data: TrainingData) -> None:
    """Compare the boxes of K-shot sets with those that the run was started with."""
    path = Path(config.save_checkpoint_path) / FILE_NAME
    if not path.is_file() or config.data.official_vocsplit_sampling:
        return
    before = read_support_set(path)
    if data.support is None or before.sha256 != data.support.sha256:
        now = data.support.dataset if data.support else ", ".join(config.data.train)
        raise InputError(
            f"{path} holds the boxes of {before.dataset}, which the run was started with, and "
            f"they are not those of {now} now; set --shot_seed and the data as "
            "they were, or start a run in another folder"
        )


def changes(before: Mapping[str, Any], config: Config) -> Changes:
    """Keys that have another value than before, with both.

    Args:
        before: the plain configuration of a checkpoint: keys that it lacks had their default,
            keys that there are no longer are left out.
        config: the configuration now.
    """
    old = {**dict(leaves(to_plain(Config()))), **dict(leaves(before))}
    new = dict(leaves(to_plain(config)))
    return {key: (old.get(key), value) for key, value in new.items() if old.get(key) != value}


def _binds(key: str) -> bool:
    """Whether a key must stay what it was."""
    free = any(key == name or key.startswith(f"{name}.") for name in (*_FREE, *_RATES))
    return key.partition(".")[0] in _BINDING and not free


def _before(changed: Changes, config: Config) -> Config:
    """The configuration with the schedule that it had."""
    old = {key.partition(".")[2]: changed[key][0] for key in _RATES if key in changed}
    return config.model_copy(update={"solver": config.solver.model_copy(update=old)})


def _other_contents(config: Config, data: TrainingData, resumed: TrainingCheckpoint) -> Changes:
    """Data and starting weights that are not what they were, wherever they lie now."""
    found: Changes = {}
    before = resumed.info.get("data", {}).get("sha256")
    if before and data.sha256 and before != data.sha256:
        found["data.train (its content)"] = (before[:12], data.sha256[:12])
    now = _starts(config) if "start" in resumed.info else {}
    for key, sha256 in now.items():
        then = resumed.info["start"].get(key, "none")
        if sha256 != then:
            found[f"{key} (its content)"] = (then[:12], sha256[:12])
    return found


def _shown(changed: Changes) -> str:
    return ", ".join(
        f"{key} {json.dumps(old)} -> {json.dumps(new)}" for key, (old, new) in changed.items()
    )
