# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Signals that ask the process to end: at once, or when what is under way is finished."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Union

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
Handler = Union[Callable[[int, Union[FrameType, None]], object], int, signal.Handlers]
# Ctrl-C reaches a process more than once if a launcher hands it on too: within this time it is
# the same request.
SAME_REQUEST_SECONDS = 2.0


class Interrupted(BaseException):  # noqa: N818 - not an error, an event
    """A signal asked this process to end; `code` is the conventional exit code, 128 + number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


# Set while the SIGTERM that comes stands for a SIGINT: see `hold_interrupts`.
_is_interrupt = threading.Event()


def hold_interrupts() -> None:
    """Keep MindSpore from turning a Ctrl-C into a SIGTERM; call before it is imported.

    At every run of a graph MindSpore (2.7 to 2.10) installs a handler of its own for SIGINT, which
    sends SIGTERM to the process, so that the exit code and a second Ctrl-C are lost. Here SIGINT
    is blocked in all threads (those that are started later inherit it) but one that waits for it
    and wakes the main thread; or does not, where SIGINT was ignored (nohup, jobs in the background
    of a script), which MindSpore's handler would undo.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def wait() -> None:
        while True:
            signal.sigwait({signal.SIGINT})
            if not ignored:
                _is_interrupt.set()
                signal.pthread_kill(main, signal.SIGTERM)

    threading.Thread(target=wait, name="interrupts", daemon=True).start()


@contextlib.contextmanager
def handling(handler: Handler, numbers: Iterable[int] = ENDING) -> Iterator[None]:
    """Give signals another handler inside the block.

    Those that were ignored (nohup) stay ignored. Outside the main thread nothing is changed.
    """
    before: dict[int, Handler | None] = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        while before:
            number, old = before.popitem()
            # None: it was set by C code, which Python cannot set again
            signal.signal(number, signal.SIG_DFL if old is None else old)


class StopRequests:
    """Turns SIGINT, SIGTERM and SIGHUP into `Interrupted` inside the `with` block.

    It is raised at once, so that temporary files are removed on the way out, or, within
    `deferred()`, kept for `check()`; a second request is then obeyed at once. See `handling`.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._deferred = False
        self._process = os.getpid()
        self._handling = handling(self._on_signal)

    def __enter__(self) -> StopRequests:
        self._handling.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._handling.__exit__(None, None, None)

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the block a signal is only noted."""
        yield from self._with(True)

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Within the block, which stands in a `deferred` one, a signal is obeyed at once."""
        self.check()
        yield from self._with(False)

    def _with(self, deferred: bool) -> Iterator[None]:
        before, self._deferred = self._deferred, deferred
        try:
            yield
        finally:
            self._deferred = before

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._process:  # forked by a library: it ends as if this were not here
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGTERM and _is_interrupt.is_set():
            _is_interrupt.clear()
            number = int(signal.SIGINT)
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = number, now
            if self._deferred:
                # not by logging: the signal may have come while a record is being written
                name = signal.Signals(number).name
                sys.stderr.write(f"{name}: ending after this step; once more ends at once\n")
                return
        elif self._deferred and now - self._since < SAME_REQUEST_SECONDS:
            return
        raise Interrupted(number)
