# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Processes that a launcher starts: shown and logged, told of signals, none left behind.

Everything below a launcher stays below it: on Linux it adopts what loses its parent, so that
processes in sessions of their own (msrun gives each worker one) are found and ended as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from src.model_utils.interruption import ENDING, SAME_REQUEST_SECONDS
from src.model_utils.processes import die_with_parent

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.2
_KILL_SECONDS = 10.0


@dataclass(frozen=True)
class Command:
    """One process to start.

    Attributes:
        words: program and arguments; no shell.
        environment: all variables.
        output: file that gets what it writes.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]
    output: Path


@dataclass
class Follower:
    """Copies what is appended to a file, once it exists, to this process's standard output."""

    path: Path
    offset: int = 0
    _out: BinaryIO | None = field(default_factory=lambda: sys.stdout.buffer)

    def pump(self) -> None:
        """Copy what is new."""
        if self._out is None:
            return
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as handle:
            handle.seek(self.offset)
            while chunk := handle.read(1 << 16):
                self.offset += len(chunk)
                try:
                    self._out.write(chunk)
                    self._out.flush()
                except (BrokenPipeError, ValueError):
                    self._out = None  # nobody reads; the file has it all
                    return


def descendants(root: int | None = None) -> dict[int, str]:
    """Processes below one (by default this one), by number, with their MindSpore role or ""."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # "pid (name) state parent …"; the name may hold anything
            rest = entry.read_text().rpartition(")")[2].split()
            if rest[0] != "Z":
                children.setdefault(int(rest[1]), []).append(int(entry.parent.name))
    found: dict[int, str] = {}
    waiting = list(children.get(os.getpid() if root is None else root, ()))
    while waiting:
        pid = waiting.pop()
        found[pid] = _role(pid)
        waiting += children.get(pid, ())
    return found


def _role(pid: int) -> str:
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"MS_ROLE="):
                return entry.partition(b"=")[2].decode("ascii", "replace")
    return ""


def end_with_parent() -> None:
    """Let Linux send this process SIGTERM when the one that called it dies."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _reap() -> None:
    """Take note of adopted processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


class Supervisor:
    """Runs processes together: all end well, or all end.

    Args:
        targets: numbers of the processes that a signal is handed on to, asked when it comes.
        grace_seconds: how long they may take to end after a signal, before they are killed.
        on_poll: called some times a second with the seconds since the start.
    """

    def __init__(
        self,
        targets: Callable[[Sequence[int]], Sequence[int]] = lambda started: started,
        *,
        grace_seconds: float = 120.0,
        on_poll: Callable[[], None] = lambda: None,
    ) -> None:
        self._targets = targets
        self._grace = grace_seconds
        self._on_poll = on_poll
        self._children: list[subprocess.Popen[bytes]] = []
        self._received: int | None = None
        self._since = 0.0
        self._kill = False
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def run(self, commands: Sequence[Command], follow: Sequence[Path]) -> int:
        """Run commands to their end.

        Args:
            commands: started together. When one fails the others are ended.
            follow: files whose growth is shown.

        Returns:
            0 if all ended well; 128 + number if a signal came or ended one; otherwise the code of
            the first that failed.
        """
        followers = [Follower(path) for path in follow]
        with self._signals():
            try:
                for command in commands:
                    if self._received is None:
                        self._children.append(self._start(command))
                if self._received is not None:
                    self._forward(self._received)
                code = self._watch(followers)
            finally:
                self._kill_all()
                for follower in followers:
                    follower.pump()
        return code if self._received is None else 128 + self._received

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {}
        for number in ENDING:
            # What was ignored (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        command.output.parent.mkdir(parents=True, exist_ok=True)
        with command.output.open("ab") as handle:
            return subprocess.Popen(  # noqa: S603
                list(command.words),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env=dict(command.environment),
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - no threads here
            )

    def _watch(self, followers: Sequence[Follower]) -> int:
        """Wait for all; the first failure ends the rest after a moment."""
        failed: tuple[float, int] | None = None
        while True:
            codes = [child.poll() for child in self._children]
            for follower in followers:
                follower.pump()
            self._on_poll()
            bad = [code for code in codes if code]
            if bad and failed is None:
                failed = (time.monotonic(), bad[0])
            if all(code is not None for code in codes):
                break
            if self._kill or self._overdue(failed):
                break
            time.sleep(_POLL_SECONDS)
        code = failed[1] if failed else 0
        return 128 - code if code < 0 else code

    def _overdue(self, failed: tuple[float, int] | None) -> bool:
        now = time.monotonic()
        if self._received is not None and now - self._since > self._grace:
            return True
        return failed is not None and self._received is None and now - failed[0] > _KILL_SECONDS

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

    def _kill_all(self) -> None:
        """End what is left, also what lost its parent meanwhile."""
        for child in self._children:
            if child.poll() is None:
                _send(child.pid, signal.SIGKILL)
                child.wait()
        until = time.monotonic() + _KILL_SECONDS
        while time.monotonic() < until:
            _reap()
            left = descendants()
            if not left:
                return
            for pid in left:
                _send(pid, signal.SIGKILL)
            time.sleep(0.05)
