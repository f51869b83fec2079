# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The folder of a training: whose it is, what is in it, and how an earlier run is moved aside.

A folder is used once a checkpoint or a support set is in it, whole or not. Logs of launchers, marks
of a sweep and what a run that made no step leaves are nothing that could be lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from src.calibration.support_set import FILE_NAME as SUPPORT_SET
from src.engine.claims import first_claims
from src.engine.parallel import Group
from src.engine.trainer import CHECKPOINTS, LOSSES
from src.model_utils.errors import InputError
from src.model_utils.folder_lock import LOCK, FolderLock
from src.weights.checkpoint import latest_manifest, read_manifest

# What others keep in a run's folder while it runs: launchers their logs, sweeps their marks.
_OF_OTHERS = re.compile(
    r"logs|\.sweep\.lock|\.results\.lock|sweep_\w+\.json|output\.txt|interrupted-\d+"
)
_CHECKPOINT_FILE = re.compile(r"[^.].*\.ckpt|defrcn-\d+\.(json|state\.npz)")
_MARKS = (CHECKPOINTS, SUPPORT_SET)


@contextlib.contextmanager
def run_folder(
    folder: Path, group: Group, *, resume: bool, overwrite: bool, kept: Collection[Path] = ()
) -> Iterator[list[str]]:
    """Have a run's folder for oneself within the block; nothing is written if it is refused.

    Args:
        folder: the run's; made if it is missing.
        group: the processes of the run. The first one has the folder, all learn of a refusal.
        resume: the run in it is to be continued.
        overwrite: a run in it is to be moved to the sibling `FOLDER.old-N`.
        kept: files and folders that this run needs, which stay where they are.

    Yields:
        What the log should say, in sentences; on the first process only.

    Raises:
        InputError: another process has the folder, or it holds a run and neither `resume` nor
            `overwrite` was asked for; on every process.
    """
    lock = FolderLock(folder, "train.py")
    try:
        claim = partial(_claim, lock, folder, resume, overwrite, kept)
        yield first_claims(group, folder, claim, "save_checkpoint_path")
    finally:
        lock.release()


def contents(folder: Path) -> str:
    """What is in a folder that a run has used, in words; "" if none has."""
    place = folder / CHECKPOINTS
    names = os.listdir(place) if place.is_dir() else []
    files = sorted(name for name in names if _CHECKPOINT_FILE.fullmatch(name))
    manifest = latest_manifest(place)
    if manifest is not None:
        step = read_manifest(manifest)["step"]
        return f"a run of {step} step{'s' if step != 1 else ''}, saved {_date(manifest)}"
    if files:
        return f"a checkpoint that is not whole ({files[-1]}), of {_date(place / files[-1])}"
    support = folder / SUPPORT_SET
    if support.exists():
        return f"the support set of a run ({SUPPORT_SET}), of {_date(support)}"
    return ""


def _date(path: Path) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))


def _claim(
    lock: FolderLock, folder: Path, resume: bool, overwrite: bool, kept: Collection[Path]
) -> list[str]:
    """Lock a folder that may be used, and clear it if it is to be; see `run_folder`."""
    lock.take(make=False)
    if not (resume or overwrite):
        _refuse_used(folder)
    had = lock.held
    lock.take()
    if not (had or resume or overwrite):
        _refuse_used(folder)  # another run may have come and gone since
    notes = [f"{lock.problem}: see to it that no other training uses it"] if lock.problem else []
    used = bool(contents(folder))
    moving = _moving(folder)
    if moving.exists() and not (used and overwrite):
        notes.append(_settle(moving, folder))  # that was broken off
    # Losses without a checkpoint cannot be continued; the new run's shall not follow them.
    losses = folder / LOSSES
    if (used and overwrite) or not (used or resume) and losses.exists() and losses.stat().st_size:
        notes.append(_move(folder, moving, kept))
    return notes


def _refuse_used(folder: Path) -> None:
    found = contents(folder)
    if found:
        raise InputError(
            f"{folder} holds {found}; go on with it by --resume=true, or name another folder "
            f"(--overwrite=true moves it to {_free(folder).name} first)"
        )


def _free(folder: Path) -> Path:
    """The first sibling `FOLDER.old-N` that there is not."""
    place = folder.resolve()
    number = 1
    while os.path.lexists(free := place.with_name(f"{place.name}.old-{number}")):
        number += 1
    return free


def _moving(folder: Path) -> Path:
    """Where things are collected until all are there."""
    place = folder.resolve()
    return place.with_name(f".{place.name}.old")


def _settle(moving: Path, folder: Path) -> str:
    """Give what was collected its name; return where it is, in words."""
    target = _free(folder)
    os.rename(moving, target)
    return f"what an earlier run left is in {target} now"


def _move(folder: Path, moving: Path, kept: Collection[Path]) -> str:
    """Move what a run left to a sibling, which appears whole; return where, in words.

    What makes the folder a used one goes last: if this is broken off it stays one, and the next
    `overwrite` goes on.
    """
    place = folder.resolve()
    stay = {LOCK}
    for path in kept:
        with contextlib.suppress(ValueError):
            stay.update(path.resolve().relative_to(place).parts[:1])
    entries = [
        entry
        for entry in place.iterdir()
        if entry.name not in stay - {*_MARKS} and not _OF_OTHERS.fullmatch(entry.name)
    ]
    moving.mkdir(exist_ok=True)
    for entry in sorted(entries, key=lambda entry: entry.name in _MARKS):
        try:
            os.rename(entry, moving / entry.name)
        except OSError as error:
            with contextlib.suppress(OSError):
                moving.rmdir()
            if error.errno != errno.EXDEV:
                raise
            raise InputError(
                f"{place} is a disk of its own, from which nothing can be moved to {moving.parent};"
                " name a folder below it"
            ) from error
    return _settle(moving, folder)
