# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""One run of a sweep on disk: what it is, how far it is, its result, what is kept of it.

A run's folder holds, beside what `train.py` writes there:

    sweep_run.json      written before training: the folder is this sweep's, and for these settings
    sweep_result.json   written last, at once: the run is finished, with its figures

Nothing is removed from a folder without the first, and then only files that training makes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.model_utils.errors import InputError
from src.model_utils.paths import CHECKPOINTS
from src.sweep.plan import Place, completed
from src.sweep.table import RunFigures
from src.util import first_free, leaves, listing, read_json, write_json
from src.weights.checkpoint import find_latest, read_manifest

STARTED = "sweep_run.json"
RESULT = "sweep_result.json"
LOCK = ".sweep.lock"
OUTPUT = "output.txt"
FORMAT = "defrcn-sweep"
VERSION = 1
KEEP = ("none", "last", "all")

NEW, ANEW, RESUME, FINISHED = "new", "anew", "resume", "finished"
"""States of a run: untouched; interrupted without, and with a checkpoint; done."""

_ATTEMPT = ("ckpt_*", "eval_*", "support_set.json", "watch", "loss_*.log", "log_*.txt", OUTPUT)
_CHECKPOINT_FILE = re.compile(r"defrcn-(\d+)\.(ckpt|state\.npz|json)")
_MINDRECORD_FILE = re.compile(r"meta\.json|data-\d{4}\.mindrecord(\.db)?")
_SHOWN_CHANGES = 3


class InUseError(InputError):
    """Another sweep, or what it left running, works in a folder."""


@dataclass(frozen=True)
class Run(Place):
    """A training with its evaluation.

    Attributes:
        flags: `--config_path=…` and the others for `train.py`.
        identity: every setting that decides the run's figures, and checksums of its weights.
        iterations: optimizer steps planned.
        images_per_iteration: pictures a step, all cards together, as planned.
    """

    flags: tuple[str, ...]
    identity: Mapping[str, Any]
    iterations: int
    images_per_iteration: int

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.shot}-shot, set {self.shot_seed}, seed {self.seed}"


def digest(identity: Mapping[str, Any]) -> str:
    """Hash of plain settings; the order of keys does not matter."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder of a sweep inside the block; yields the lock's descriptor.

    A child that inherits the descriptor holds the lock as well: a training that outlives its
    sweep keeps others away from its folder.

    Raises:
        InUseError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise InUseError(
                f"{folder} is in use by another sweep (process {handle.read() or 'unknown'}) or by "
                "a training that it left; wait for its end, or name another --output"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield handle.fileno()


def state_of(run: Run, redo_changed: bool = False) -> str:
    """How far a run is: `NEW`, `ANEW`, `RESUME` or `FINISHED`.

    Args:
        run: the run.
        redo_changed: a run of other settings is to be made anew, not refused.

    Raises:
        InputError: the folder holds something else, or a run of other settings.
    """
    if not run.folder.exists():
        return NEW
    if not run.folder.is_dir():
        raise InputError(f"{run.folder} is a file; name another --output")
    result = _read(run.folder / RESULT)
    started = _read(run.folder / STARTED)
    if started is None:
        foreign = sorted(path.name for path in run.folder.iterdir() if path.name != LOCK)
        if foreign:
            raise InputError(
                f"{run.folder} holds {foreign[0]}, which is not of a sweep; name another --output"
            )
        return NEW
    for content in (result, started):
        if content is not None and (changes := _changes(content, run)):
            if redo_changed:
                return ANEW
            raise InputError(
                f"{run.folder} holds a run of other settings ({changes}); name "
                "another --output, or give --redo_changed to make it anew"
            )
    if result is not None:
        return FINISHED
    return RESUME if find_latest(run.folder / CHECKPOINTS) is not None else ANEW


def begin(run: Run, keep: str) -> None:
    """Mark the folder as this run's, before training; the lock is held.

    What an earlier attempt left is moved to `interrupted-N`, so that logs and checkpoints of two
    attempts are never mixed; a run that is resumed is not started again.
    """
    old = run.folder / RESULT
    leftovers = sorted(path for pattern in _ATTEMPT for path in run.folder.glob(pattern))
    if old.exists():
        leftovers.append(old)
    if leftovers:
        place = first_free(run.folder / f"interrupted-{number}" for number in itertools.count(1))
        place.mkdir()
        for path in leftovers:
            os.rename(path, place / path.name)
    write_json(run.folder / STARTED, {**_head(run), "keep_checkpoints": keep})


def finish(run: Run, keep: str, seconds: float) -> None:
    """Record a run whose training and evaluation ended well.

    Args:
        run: the run.
        keep: checkpoints to keep: "none", "last" or "all".
        seconds: wall time of the attempt that ended it.

    Raises:
        InputError: training left no checkpoint, or no figures of its last step.
    """
    latest = find_latest(run.folder / CHECKPOINTS)
    if latest is None:
        raise InputError(f"{run.folder / CHECKPOINTS} holds no checkpoint although training ended")
    manifest = read_manifest(latest)
    step = int(manifest["step"])
    path = run.folder / f"eval_{step}" / "metrics.json"
    metrics = read_if_there(path)
    if not metrics:
        raise InputError(f"{path} is missing or empty although training ended; look at {OUTPUT}")
    content = {
        **_head(run),
        "keep_checkpoints": keep,
        "iterations": step,
        "images": step * _images_a_step(manifest, run),
        "seconds": round(seconds, 1),
        "metrics": metrics,
    }
    support = read_if_there(run.folder / "support_set.json")
    if isinstance(support, dict) and "sha256" in support:
        content["support_set_sha256"] = support["sha256"]
    write_json(run.folder / RESULT, content)


def read_result(run: Run) -> dict[str, Any]:
    """The result file of a finished run."""
    content = _read(run.folder / RESULT)
    if content is None:
        raise InputError(f"{run.folder / RESULT} is missing")
    return content


def tidy(run: Run, content: Mapping[str, Any]) -> None:
    """Drop the checkpoints that are not kept and the run's MindRecord; may be repeated.

    What is kept is what the result file, `content`, says, whatever a later call asks for.
    """
    keep = content["keep_checkpoints"]
    if keep != "all":
        kept_step = content["iterations"] if keep == "last" else None
        _remove(run.folder / CHECKPOINTS, lambda name: _is_checkpoint(name, kept_step))
        for folder in run.folder.glob(f"interrupted-*/{CHECKPOINTS}"):
            _remove(folder, lambda name: _is_checkpoint(name, None))
    _remove(run.folder / "mindrecord", lambda name: bool(_MINDRECORD_FILE.fullmatch(name)))


def figures(run: Run, content: Mapping[str, Any], test_set: str) -> RunFigures:
    """A run's figures on one test set, from its result file.

    Raises:
        InputError: the run was not evaluated on it.
    """
    entry = content["metrics"].get(test_set)
    if entry is None:
        raise InputError(
            f"{run.folder / RESULT} has no figures for {test_set!r}, but for "
            f"{', '.join(content['metrics'])}; name one with --test_set"
        )
    return RunFigures(
        shot=run.shot,
        shot_seed=run.shot_seed,
        seed=run.seed,
        iterations=content["iterations"],
        images=content["images"],
        seconds=content["seconds"],
        results=entry["results"],
        per_class=entry.get("per_class_AP", {}),
        per_class_50=entry.get("per_class_AP50", {}),
    )


def _head(run: Run) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "hash": digest(run.identity),
        "shot": run.shot,
        "shot_seed": run.shot_seed,
        "seed": run.seed,
        "settings": dict(run.identity),
    }


def _images_a_step(manifest: Mapping[str, Any], run: Run) -> int:
    """Pictures a step as the training had them: a launcher may have added cards."""
    try:
        config = manifest["info"]["config"]
        cards = config["device_num"] if config["run_distribute"] else 1
        return int(config["solver"]["images_per_card"]) * int(cards)
    except (KeyError, TypeError, ValueError):
        return run.images_per_iteration


def read_if_there(path: Path) -> Any:  # noqa: ANN401
    """JSON of a file; None if it is missing."""
    return read_json(path, "remove it to go on") if path.exists() else None


def _read(path: Path) -> dict[str, Any] | None:
    content = read_if_there(path)
    if content is None:
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a sweep's file; name another --output")
    if content.get("format_version") != VERSION or not isinstance(content.get("hash"), str):
        raise InputError(f"{path} is damaged or of another version; remove it to repeat the run")
    return content


def _changes(content: Mapping[str, Any], run: Run) -> str:
    """Which settings differ, in words; those of an older version are completed first."""
    if content["hash"] == digest(run.identity):
        return ""
    old, new = dict(leaves(completed(content.get("settings", {})))), dict(leaves(run.identity))
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    shown = [f"{key} {_short(old.get(key))} -> {_short(new.get(key))}" for key in keys]
    return listing(shown, _SHOWN_CHANGES, "; ")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:20]}…"  # noqa: PLR2004


def _is_checkpoint(name: str, kept_step: int | None) -> bool:
    found = _CHECKPOINT_FILE.fullmatch(name)
    return found is not None and int(found[1]) != kept_step


def _remove(folder: Path, wanted: Callable[[str], bool]) -> None:
    """Remove the files of a folder whose names are wanted, and the folder if it is empty then.

    Manifests go first: without one the files of a checkpoint do not count.
    """
    if not folder.is_dir():
        return
    names = sorted(os.listdir(folder), key=lambda name: not name.endswith(".json"))
    for name in names:
        if wanted(name):
            (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
