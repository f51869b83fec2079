# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Running one child after the other: its output in a file, signals handed on, no orphans."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from src.model_utils.interruption import ENDING, Interrupted

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 8192


class Children:
    """Runs children one at a time while signals to this process are handed on to them.

    Within the `with` block SIGINT, SIGTERM and SIGHUP go to the child's process group; this
    process waits for the child's own ending and raises `Interrupted` then; without a child, at
    once. A second signal kills the child. If this process is killed outright, Linux sends the
    child SIGTERM.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._received: int | None = None
        self._starting = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Children:
        for number in ENDING:
            # What was ignored (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._child is not None and self._child.poll() is None:
            self._send(signal.SIGKILL)
            self._child.wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self._received is not None:
            raise Interrupted(self._received)

    def run(
        self,
        command: Sequence[str],
        output: Path,
        *,
        environment: Mapping[str, str],
        inherit: Sequence[int] = (),
        tick: Callable[[], None] | None = None,
        tick_seconds: float = 60.0,
    ) -> int:
        """Run a command to its end; its standard output and error are appended to a file.

        Args:
            command: words; no shell.
            output: the file.
            environment: of the child.
            inherit: descriptors that the child keeps open.
            tick: called every `tick_seconds` meanwhile.
            tick_seconds: see there.

        Returns:
            The exit code; negative: minus the signal that ended it.

        Raises:
            Interrupted: a signal came; the child has ended.
            OSError: the command cannot be started.
        """
        self.check()
        with output.open("ab") as handle:
            self._starting = True
            self._child = subprocess.Popen(  # noqa: S603
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                pass_fds=tuple(inherit),
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - no threads here
            )
            self._starting = False
            if self._received is not None:  # it came while the child was being started
                self._send(self._received)
            code = self._wait(self._child, tick, tick_seconds)
        if self._received is not None:
            self._send(signal.SIGKILL)  # helpers of the child that did not end with it
            self._child = None
            self.check()
        self._child = None
        return code

    def _wait(
        self, child: subprocess.Popen[bytes], tick: Callable[[], None] | None, seconds: float
    ) -> int:
        due = time.monotonic() + seconds
        while True:
            try:
                return child.wait(timeout=min(max(due - time.monotonic(), 0.01), 1.0))
            except subprocess.TimeoutExpired:
                if tick is not None and time.monotonic() >= due:
                    tick()
                    due = time.monotonic() + seconds

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._child is None and not self._starting:
            raise Interrupted(number)
        self._send(number if self._received is None else signal.SIGKILL)
        if self._received is None:
            self._received = number

    def _send(self, number: int) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)


def die_with_parent() -> Callable[[], None] | None:
    """What a new child calls so that Linux ends it when this process dies; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(128 + signal.SIGTERM)

    return prepare


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
