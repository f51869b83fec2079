# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""ModelArts: data and checkpoints come in, results go out, by its package `moxing`.

One copy a machine: the first process that takes the machine's lock copies in, the others wait and
use it. At the end the first process of those that still run waits a little for the rest and copies
the results out, also when the run failed or was stopped. Locks are the operating system's
(`fcntl`): a process that dies lets go of them, so there is no stale owner. Every wait ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from src.model_utils.errors import InputError
from src.model_utils.interruption import handling
from src.util import write_json

logger = logging.getLogger(__name__)

_FILES = (".ckpt", ".pth", ".pkl")
_POLL_SECONDS = 0.2
_REMIND_SECONDS = 60.0
_MARK = "copied_in.json"
_LOCK = "copying"
_RUNNING = "running_"


@dataclass(frozen=True)
class Source:
    """Something to copy in.

    Attributes:
        key: configuration key that names the URL, for messages.
        url: where it is: a folder, or one file with the suffix of a weights file.
        folder: local folder that gets its content.
        may_be_empty: whether there may be nothing.
    """

    key: str
    url: str
    folder: Path
    may_be_empty: bool = False


@dataclass(frozen=True)
class Transfer:
    """What is copied for one run on one machine.

    Attributes:
        sources: what comes in, in this order.
        results: local folder that goes out.
        results_url: where to.
        state: local folder of locks and marks, the same for all processes of a machine.
        rank: number of this process; it owns the way out if no lower one runs.
        copy_seconds: limit for each copy; a process that waits for another's waits no longer
            than all sources may take.
        leave_seconds: how long the owner waits for the other processes to end.
        first_machine: whether rank 0 is on this machine. The others send only what they wrote
            themselves: what they got as results of an earlier run may be older than rank 0's.
    """

    sources: tuple[Source, ...]
    results: Path
    results_url: str
    state: Path
    rank: int
    copy_seconds: float
    leave_seconds: float
    first_machine: bool = True


@contextlib.contextmanager
def modelarts_run(transfer: Transfer) -> Iterator[None]:
    """Copy in, run the block, copy out, whatever happens in the block.

    Raises:
        InputError: `moxing` is missing, a copy fails or takes too long, or another run has the
            machine's folder. After a block that failed itself this is only logged.
    """
    files = _moxing_files()
    with _presence(transfer):
        came_in = _copy_in(transfer, files)
        finished = False
        try:
            yield
            finished = True
        finally:
            try:
                # a second one must not cut off the results
                with handling(signal.SIG_IGN, (signal.SIGTERM, signal.SIGHUP)):
                    _copy_out(transfer, files, came_in)
            except InputError as error:
                if finished:
                    raise
                logger.error("%s", error)


def _moxing_files() -> Any:  # noqa: ANN401 - a module of a package without types
    try:
        import moxing
    except ImportError as error:
        raise InputError(
            "enable_modelarts: the package moxing is not installed; it comes with the images of "
            "ModelArts, so leave enable_modelarts false elsewhere"
        ) from error
    return moxing.file


def _copy_in(transfer: Transfer, files: Any) -> dict[str, int]:  # noqa: ANN401
    """Copy the sources, or use what another process of this launch has copied.

    Returns:
        The times of the results that came in.
    """
    launch = _launch()
    with _machine_lock(transfer):
        mark = _read_mark(transfer.state)
        if mark.get("launch") == launch and transfer.rank not in mark["ranks"]:
            write_json(transfer.state / _MARK, {**mark, "ranks": [*mark["ranks"], transfer.rank]})
            if mark["error"]:
                raise InputError(f"{mark['error']} (found out by process {mark['pid']})")
            logger.info("process %s of this machine has copied the data", mark["pid"])
            return dict(mark["came_in"])
        mark = {"launch": launch, "pid": os.getpid(), "ranks": [transfer.rank], "error": ""}
        write_json(transfer.state / _MARK, {})  # a copy that is broken off is nobody's
        try:
            for source in transfer.sources:
                _fetch(source, files, transfer.copy_seconds)
        except InputError as error:
            write_json(transfer.state / _MARK, {**mark, "error": str(error)})
            raise
        came_in = _times(transfer.results)
        write_json(transfer.state / _MARK, {**mark, "came_in": came_in})
        return came_in


def _fetch(source: Source, files: Any, seconds: float) -> None:  # noqa: ANN401
    source.folder.mkdir(parents=True, exist_ok=True)
    if source.url.lower().endswith(_FILES):
        target = source.folder / source.url.rpartition("/")[2]
        _copy(files.copy, source.url, str(target), seconds, source.key)
        arrived = target.is_file()
    else:
        _copy(files.copy_parallel, source.url, str(source.folder), seconds, source.key)
        arrived = any(source.folder.iterdir())
    if not arrived and not source.may_be_empty:
        raise InputError(f"{source.key}: nothing came from {source.url}; is it empty?")


def _copy_out(transfer: Transfer, files: Any, came_in: dict[str, int]) -> None:  # noqa: ANN401
    """Copy the results, unless a process with a lower number will; wait for the others first."""
    limit = time.monotonic() + transfer.leave_seconds
    while others := _running(transfer):
        if min(others) < transfer.rank:
            logger.info("process of rank %d copies the results", min(others))
            return
        if time.monotonic() > limit:
            logger.warning(
                "rank %s still runs after %g s (modelarts.leave_seconds); results are copied now",
                ", ".join(map(str, sorted(others))),
                transfer.leave_seconds,
            )
            break
        time.sleep(_POLL_SECONDS)
    if not transfer.results.is_dir():
        logger.info("no results in %s", transfer.results)
        return
    with _machine_lock(transfer):
        if not transfer.first_machine:
            for path, time_ns in _times(transfer.results).items():
                if came_in.get(path) == time_ns:
                    Path(path).unlink(missing_ok=True)
        source, target = str(transfer.results), transfer.results_url
        _copy(files.copy_parallel, source, target, transfer.copy_seconds, "train_url")


def _times(folder: Path) -> dict[str, int]:
    """When each file of a folder was written, in nanoseconds."""
    times = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # temporary files come and go
            if path.is_file():
                times[str(path)] = path.stat().st_mtime_ns
    return times


def _copy(function: Any, source: str, target: str, seconds: float, key: str) -> None:  # noqa: ANN401
    """Copy within a time limit.

    The work is done by a daemon thread: one that hangs does not keep the process from ending.
    """
    failures: list[Exception] = []

    def work() -> None:
        try:
            function(source, target)
        except Exception as error:  # noqa: BLE001 - moxing's errors have no common type
            failures.append(error)

    logger.info("%s: copying %s to %s", key, source, target)
    started = time.monotonic()
    thread = threading.Thread(target=work, daemon=True, name=f"copy for {key}")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise InputError(
            f"{key}: copying {source} to {target} takes more than {seconds:g} s; raise "
            "modelarts.copy_seconds, or look at the network"
        )
    if failures:
        reason = f"{type(failures[0]).__name__}: {failures[0]}"
        raise InputError(f"{key}: {source} could not be copied to {target} ({reason})")
    logger.info("%s: copied in %.0f s", key, time.monotonic() - started)


def _launch() -> str:
    """What the processes of one launch on one machine have in common, and no others.

    ModelArts' number of the job, and the process that started them: its id, and when it began,
    because ids are used again.
    """
    parent = os.getppid()
    began = ""
    with contextlib.suppress(OSError):
        # The name, in parentheses, may hold anything; what follows is split by spaces.
        stat = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8", errors="replace")
        began = stat.rpartition(")")[2].split()[19]
    return f"{os.environ.get('JOB_ID', '')}:{parent}:{began}"


@contextlib.contextmanager
def _presence(transfer: Transfer) -> Iterator[None]:
    """Hold the lock that tells the machine's other processes that this rank runs."""
    path = transfer.state / f"{_RUNNING}{transfer.rank}"
    with _open(path) as handle:
        if not _take(handle):
            handle.seek(0)
            raise InputError(
                f"modelarts.cache_dir: rank {transfer.rank} of another run has {transfer.state} "
                f"(process {handle.read().strip() or 'unknown'}); give each run its own folder"
            )
        _write_pid(handle)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _running(transfer: Transfer) -> set[int]:
    """Ranks of this machine that run, this process's own left out."""
    ranks = set()
    for path in transfer.state.glob(f"{_RUNNING}*"):
        rank = int(path.name.removeprefix(_RUNNING))
        if rank == transfer.rank:
            continue  # one's own lock is no obstacle to oneself, and closing would give it up
        with contextlib.suppress(FileNotFoundError), path.open("r+", encoding="utf-8") as handle:
            if not _take(handle):
                ranks.add(rank)
    return ranks


@contextlib.contextmanager
def _machine_lock(transfer: Transfer) -> Iterator[None]:
    """Be the only process of this machine that copies.

    Raises:
        InputError: another one has the lock for longer than the limit.
    """
    seconds = transfer.copy_seconds * max(1, len(transfer.sources))
    limit = time.monotonic() + seconds
    reminder = time.monotonic()
    with _open(transfer.state / _LOCK) as handle:
        while not _take(handle):
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            if time.monotonic() > limit:
                raise InputError(
                    f"modelarts.copy_seconds: process {owner} of this machine has been copying "
                    f"for more than {seconds:g} s; raise it, or look at the network"
                )
            if time.monotonic() >= reminder:
                logger.info("waiting for process %s of this machine, which copies", owner)
                reminder += _REMIND_SECONDS
            time.sleep(_POLL_SECONDS)
        _write_pid(handle)
        yield


def _open(path: Path) -> TextIO:
    """Open a file for reading and writing; make it and its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"modelarts.cache_dir: {path.parent} cannot be written ({error.strerror}); name a "
            "folder of this machine's disk"
        ) from error


def _take(handle: TextIO) -> bool:
    """Take a file's lock if nobody has it. It ends with the process, and is not inherited."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise InputError(
            f"modelarts.cache_dir: {handle.name} cannot be locked ({error.strerror}); name a "
            "folder of this machine's own disk"
        ) from error
    return True


def _write_pid(handle: TextIO) -> None:
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()


def _read_mark(state: Path) -> dict[str, Any]:
    """What is known of the last copy; nothing if it was broken off. Needs the machine's lock."""
    try:
        mark = json.loads((state / _MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}
