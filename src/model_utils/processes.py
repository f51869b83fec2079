# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Children of a program: shown and logged, told of signals, none left behind.

Everything below a supervising program stays below it: on Linux it adopts what loses its parent,
so that processes in sessions of their own (msrun gives each worker one) are found and ended too.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from src.model_utils.interruption import SAME_REQUEST_SECONDS, Interrupted, handling
from src.model_utils.paths import project_folder

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.2
_KILL_SECONDS = 10.0
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class Command:
    """One process to start.

    Attributes:
        words: program and arguments; no shell.
        environment: all variables.
        output: file that what it writes is appended to.
        inherit: descriptors that it keeps open.
    """

    words: Sequence[str]
    environment: Mapping[str, str]
    output: Path
    inherit: tuple[int, ...] = ()


class Supervisor:
    """Runs processes together: all end well, or all end.

    While they run SIGINT, SIGTERM and SIGHUP are handed on, and the processes end as they see
    fit; after a second signal, or too long a time, they are killed. If this process is killed
    outright, Linux sends them SIGTERM. What was ignored (nohup) stays ignored.

    Args:
        targets: numbers of the processes that a signal goes to, of those started (a negative
            number: to its whole group); asked when the signal comes.
        grace_seconds: how long they may take to end after a signal.
    """

    def __init__(
        self,
        targets: Callable[[Sequence[int]], Sequence[int]] = lambda started: started,
        *,
        grace_seconds: float = 120.0,
    ) -> None:
        self._targets = targets
        self._grace = grace_seconds
        self._children: list[subprocess.Popen[bytes]] = []
        self._received: int | None = None
        self._since = 0.0
        self._kill = False
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)()

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come while processes ran."""
        if self._received is not None:
            raise Interrupted(self._received)

    def run(
        self,
        commands: Sequence[Command],
        follow: Sequence[Path] = (),
        on_poll: Callable[[], None] = lambda: None,
    ) -> int:
        """Run commands to their end.

        Args:
            commands: started together. When one fails the others are ended.
            follow: files whose growth is shown.
            on_poll: called some times a second.

        Returns:
            0 if all ended well; 128 + number if a signal came or ended one; otherwise the code of
            the first that failed.

        Raises:
            OSError: a command cannot be started.
        """
        others = [pid for pid, parent, _ in _processes() if parent == os.getpid()]
        with contextlib.ExitStack() as stack:
            followers = [stack.enter_context(contextlib.closing(Follower(path))) for path in follow]
            stack.enter_context(handling(self._on_signal))
            self._children = []
            try:
                for command in commands:
                    if self._received is None:
                        self._children.append(_start(command))
                if self._received is not None:  # it came meanwhile
                    self._forward(self._received)
                code = self._watch(followers, on_poll)
            finally:
                self._kill_all(others)
                for follower in followers:
                    follower.pump()
        return code if self._received is None else 128 + self._received

    def _watch(self, followers: Sequence[Follower], on_poll: Callable[[], None]) -> int:
        """Wait for all; the first failure ends the rest after a moment."""
        code, failed = 0, 0.0
        while running := [child for child in self._children if child.poll() is None]:
            if code == 0:
                code = self._first_failure()
                failed = time.monotonic()
            if self._kill or self._overdue(failed if code else None):
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                running[0].wait(_POLL_SECONDS)
            for follower in followers:
                follower.pump()
            on_poll()
        code = code or self._first_failure()
        return 128 - code if code < 0 else code

    def _first_failure(self) -> int:
        return next((child.returncode for child in self._children if child.returncode), 0)

    def _overdue(self, failed: float | None) -> bool:
        now = time.monotonic()
        if self._received is not None:
            return now - self._since > self._grace
        return failed is not None and now - failed > _KILL_SECONDS

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if self._received is None:
            self._received, self._since = number, now
            self._forward(number)
        elif now - self._since > SAME_REQUEST_SECONDS:
            self._kill = True

    def _forward(self, number: int) -> None:
        for pid in self._targets([child.pid for child in self._children]):
            _send(pid, number)

    def _kill_all(self, others: Collection[int]) -> None:
        """End what is left, also what lost its parent; not what was there before (`others`)."""
        for child in self._children:
            if child.poll() is None:
                _send(child.pid, signal.SIGKILL)
                child.wait()
        until = time.monotonic() + _KILL_SECONDS
        while (left := descendants(without=others)) and time.monotonic() < until:
            for pid in left:
                _send(pid, signal.SIGKILL)
            time.sleep(0.05)
        for pid, parent, _ in _processes():
            if parent == os.getpid() and pid not in others:  # adopted, and ended
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


class Follower:
    """Copies what is appended to a file, once it exists, to this process's standard output."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source: BinaryIO | None = None
        self._out: BinaryIO | None = sys.stdout.buffer

    def pump(self) -> None:
        """Copy what is new."""
        if self._source is None:
            with contextlib.suppress(FileNotFoundError):
                self._source = self._path.open("rb")
        if self._source is None or self._out is None:
            return
        while chunk := self._source.read(1 << 16):
            try:
                self._out.write(chunk)
                self._out.flush()
            except (BrokenPipeError, ValueError):
                self._out = None  # nobody reads; the file has it all
                return

    def close(self) -> None:
        """Let go of the file."""
        if self._source is not None:
            self._source.close()


def descendants(root: int | None = None, without: Collection[int] = ()) -> dict[int, str]:
    """Processes below one (by default this one), by number, with their MindSpore role or "".

    Args:
        root: number of the process.
        without: left out, with all that is below them.
    """
    children: dict[int, list[int]] = {}
    for pid, parent, ended in _processes():
        if not ended and pid not in without:
            children.setdefault(parent, []).append(pid)
    roles: dict[int, str] = {}
    waiting = list(children.get(os.getpid() if root is None else root, ()))
    while waiting:
        pid = waiting.pop()
        roles[pid] = _role(pid)
        waiting += children.get(pid, ())
    return roles


def _processes() -> Iterator[tuple[int, int, bool]]:
    """Of every process its number, its parent's, and whether it has ended (a zombie)."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # "pid (name) state parent …"; the name may hold anything
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            yield int(entry.parent.name), int(parent), state == "Z"


def _role(pid: int) -> str:
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"MS_ROLE="):
                return entry.partition(b"=")[2].decode("ascii", "replace")
    return ""


def at_death_of_parent(number: int) -> None:
    """Have Linux send this process a signal when its parent dies."""
    _prctl(_PR_SET_PDEATHSIG, number)()


def _prctl(option: int, value: int) -> Callable[[], object]:
    """What sets an attribute of the process that calls it; nothing where there is no Linux."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    return functools.partial(ctypes.CDLL(None, use_errno=True).prctl, option, int(value), 0, 0, 0)


def _start(command: Command) -> subprocess.Popen[bytes]:
    die, parent = _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM), os.getpid()

    def prepare() -> None:
        die()
        if os.getppid() != parent:  # it died before the line above
            os._exit(128 + signal.SIGTERM)

    command.output.parent.mkdir(parents=True, exist_ok=True)
    with command.output.open("ab") as handle:
        return subprocess.Popen(  # noqa: S603
            list(command.words),
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            env=dict(command.environment),
            pass_fds=command.inherit,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - no threads here
        )


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def project_environment() -> dict[str, str]:
    """This process's variables, for children that find the project's modules from any folder."""
    paths = [str(project_folder()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a text file that hold anything."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, handle.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = handle.read().decode("utf-8", "replace")
    except OSError:
        return []
    # a progress bar goes back to the start of its line; its last state counts
    lines = [line.rstrip("\n").rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line.strip()][-count:]
