# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Two living processes that take turns: what disturbs the machine disturbs both."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

END_SECONDS = 30.0


class WorkerError(RuntimeError):
    """A worker ended, or answered what is no answer."""


class Worker:
    """A process that answers questions, see `worker`; it is stopped whenever it is not asked.

    Args:
        name: for messages.
        command: how it is started.
        folder: where it runs.
        environment: more variables.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self.ready = self._answer()
        except BaseException:
            self.end()
            raise

    def ask(self, **question: Any) -> dict:  # noqa: ANN401
        """Let it go on, ask, wait for the answer, and stop it again.

        Raises:
            WorkerError: it ended instead.
        """
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            self._log.seek(0)
            told = self._log.read()[-2000:]
            raise WorkerError(f"{self.name} ended without an answer:\n{told}") from error
        self._process.send_signal(signal.SIGSTOP)
        return found

    def end(self) -> None:
        """No more questions: it ends by itself, or is killed."""
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


@contextlib.contextmanager
def alive(
    commands: Mapping[str, Sequence[str]], folder: Path, environment: Mapping[str, str]
) -> Iterator[dict[str, Worker]]:
    """Workers by name, one started after the other, all of them ended at the end."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, command in commands.items():
            workers[name] = Worker(name, command, folder, environment)
            stack.callback(workers[name].end)
        yield workers


@dataclass
class Times:
    """Seconds of one side.

    Attributes:
        first: of the very first run, which compiles where something is compiled.
        later: of the runs after it, a list for each input.
    """

    first: float
    later: list[list[float]] = field(default_factory=list)

    @property
    def minimum(self) -> float:
        """Least seconds; of several inputs the sum of each one's least."""
        return sum(map(min, self.later))

    @property
    def median(self) -> float:
        """Median seconds, likewise."""
        return sum(map(statistics.median, self.later))

    @property
    def unseen(self) -> float:
        """Seconds of the first run over all inputs."""
        return sum(own[0] for own in self.later)


def take_turns(workers: Mapping[str, Worker], inputs: Sequence[int], repeats: int) -> dict:
    """Run the workers in turn on each input, `repeats` times; who begins changes every time.

    Args:
        workers: by name, their first run behind them.
        inputs: numbers of the inputs.
        repeats: rounds.

    Returns:
        Seconds by name, a list for each input.
    """
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in inputs] for name in workers}
    for turn in range(repeats):
        order = list(workers) if turn % 2 == 0 else list(reversed(workers))
        for place, number in enumerate(inputs):
            for name in order:
                took = workers[name].ask(do="run", input=number)["seconds"]
                seconds[name][place].append(took)
    return seconds
