# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Going through the runs of a sweep: ask, lock, train, record, write tables, tell the rest."""

from __future__ import annotations

import datetime
import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.model_utils.errors import InputError
from src.model_utils.processes import Command, Supervisor, last_lines, project_environment
from src.sweep.plot import plot
from src.sweep.runs import (
    FINISHED,
    OUTPUT,
    RESUME,
    InUseError,
    Run,
    begin,
    figures,
    finish,
    locked,
    read_result,
    state_of,
    tidy,
)
from src.sweep.table import RunFigures, Sweep, main_table, markdown, runs_csv, table_csv
from src.util import set_up_logging, write_text

logger = logging.getLogger(__name__)

LINE = 150  # characters of a run's own log that are shown


@dataclass(frozen=True)
class Orders:
    """What was asked of a sweep.

    Attributes:
        root: folder of the tables.
        command: words before a run's flags.
        keep: checkpoints of finished runs that are kept: "none", "last" or "all".
        redo_changed: make runs of other settings anew instead of refusing.
        keep_going: go on after a run that failed.
        confirm: ask before each run.
        test_set: of the table; None for the first that is evaluated.
        tick_seconds: between lines while a run works.
    """

    root: Path
    command: Sequence[str]
    keep: str = "last"
    redo_changed: bool = False
    keep_going: bool = False
    confirm: bool = False
    test_set: str | None = None
    tick_seconds: float = 60.0


def _clock(seconds: float) -> str:
    """Days, if any, hours, minutes and seconds."""
    return str(datetime.timedelta(seconds=round(seconds)))


def _shown(lines: list[str]) -> str:
    """The last line of a log for a line of this one: without its own time, not too long."""
    text = lines[-1].partition(" INFO ")[2] or lines[-1] if lines else "no output yet"
    return text if len(text) <= LINE else f"{text[: LINE - 1]}…"


def _protocol(entry: Mapping[str, Any]) -> str:
    """What an evaluation says its figures are."""
    pcb = entry.get("pcb")
    calibration = "" if pcb is None else "; with PCB" if pcb else "; without PCB"
    return f"{entry.get('protocol', '')}{calibration}"


def ask(run: Run) -> str:
    """Ask whether to start a run: "y", "n" (leave it out now) or "q" (end)."""
    while True:
        sys.stdout.write(f"{run.name}: {run.iterations} iterations. Start? [Y/n/q] ")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return "q"
        answer = line.strip().lower() or "y"
        if answer in ("y", "yes", "n", "no", "q", "quit"):
            return answer[0]


class Runner:
    """Goes through the runs of a sweep.

    Args:
        orders: what was asked for.
        runs: all of them, in order.
        supervisor: runs processes.
        describe: says what the table is about, from the name of a test set, a first run's
            figures and what the evaluation says of them.
    """

    def __init__(
        self,
        orders: Orders,
        runs: list[Run],
        supervisor: Supervisor,
        describe: Callable[[str, RunFigures, str], Sweep],
    ) -> None:
        self.orders = orders
        self.runs = runs
        self.supervisor = supervisor
        self.describe = describe
        self.results: dict[Path, RunFigures] = {}
        self.failed: list[Run] = []
        self.busy: list[Run] = []
        self.sweep: Sweep | None = None
        self._seconds = self._steps = 0.0

    def go(self) -> int:
        """Do what is not done; return the exit code."""
        todo = []
        for run in self.runs:
            if state_of(run, self.orders.redo_changed) == FINISHED:
                self._take(run)
            else:
                todo.append(run)
        set_up_logging(log_file=self.orders.root / "sweep.log")  # nothing was refused
        logger.info("%d runs, %d of them finished", len(self.runs), len(self.runs) - len(todo))
        for number, run in enumerate(todo):
            answer = ask(run) if self.orders.confirm else "y"
            if answer == "q":
                break
            if answer == "y":
                self._one(run, todo[number + 1 :])
        self.report()
        for text, group in (("failed", self.failed), ("is run by another process", self.busy)):
            for run in group:
                logger.error("%s %s: %s", run.name, text, run.folder)
        return 1 if self.failed or self.busy else 0

    def rehearse(self) -> int:
        """Print what would be done; write nothing."""
        for run in self.runs:
            state = state_of(run, self.orders.redo_changed)
            command = shlex.join(self._command(run, state))
            line = "nothing to do" if state == FINISHED else f"\n  {command}"
            sys.stdout.write(f"{run.name} ({state}), {run.iterations} iterations: {line}\n")
        return 0

    def _command(self, run: Run, state: str) -> list[str]:
        resume = ["--resume=true"] if state == RESUME else []
        return [*self.orders.command, *run.flags, *resume]

    def _one(self, run: Run, later: list[Run]) -> None:
        """Train one run under its lock, record it, write the tables."""
        try:
            with locked(run.folder) as lock:
                if not self._train(run, lock):
                    self.failed.append(run)
                    if self.orders.keep_going:
                        return
                    output = run.folder / OUTPUT
                    shown = "\n  ".join(last_lines(output, 10))
                    raise InputError(f"{run.name} failed; the end of {output} says:\n  {shown}")
                self._take(run)
        except InUseError as error:
            logger.warning("%s is being run by another process: %s", run.name, error)
            self.busy.append(run)
            return
        self.report(quiet=True)
        logger.info("%s", self._progress(run, later))

    def _train(self, run: Run, lock: int) -> bool:
        state = state_of(run, self.orders.redo_changed)
        if state != RESUME:
            begin(run, self.orders.keep)
        output = run.folder / OUTPUT
        command = self._command(run, state)
        logger.info("%s (%s): %d iterations, output in %s", run.name, state, run.iterations, output)
        with output.open("a", encoding="utf-8") as handle:  # what is above is of an earlier attempt
            handle.write(f"{time.strftime('%H:%M:%S')} INFO {run.name} ({state})\n")
        started = time.monotonic()
        due = started + self.orders.tick_seconds

        def tell() -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + self.orders.tick_seconds
                logger.info("%s: %s", run.name, _shown(last_lines(output, 1)))

        # a lock that is handed on outlives this process
        order = Command(command, project_environment(), output, (lock,))
        code = self.supervisor.run([order], on_poll=tell)
        self.supervisor.check()
        seconds = time.monotonic() - started
        if code != 0:
            text = "%s ended with exit code %d after %s"
            logger.error(text, run.name, code, _clock(seconds))
            return False
        finish(run, self.orders.keep, seconds)
        self._seconds += seconds
        self._steps += run.iterations
        return True

    def _take(self, run: Run) -> None:
        """Read a finished run's figures; drop what an interruption left of its files."""
        content = read_result(run)
        tidy(run, content)
        name = self.orders.test_set or next(iter(content["metrics"]))
        found = figures(run, content, name)
        if self.sweep is None:
            self.sweep = self.describe(name, found, _protocol(content["metrics"][name]))
        if self.sweep.metric not in found.results:
            raise InputError(
                f"--metric {self.sweep.metric}: the evaluation on {name} gives "
                f"{', '.join(found.results)}"
            )
        self.results[run.folder] = found

    def _progress(self, run: Run, later: list[Run]) -> str:
        assert self.sweep is not None
        found = self.results[run.folder].results[self.sweep.metric]
        text = f"{run.name}: {self.sweep.metric} {found:.2f}; "
        text += f"{len(self.results)} of {len(self.runs)} runs finished"
        remaining = sum(other.iterations for other in later)
        if later and self._steps:
            text += f", about {_clock(remaining * self._seconds / self._steps)} to go"
        return text

    def report(self, quiet: bool = False) -> None:
        """Write tables and plot; print the table unless `quiet`."""
        if self.sweep is None:
            return
        runs = list(self.results.values())
        root = self.orders.root
        write_text(root / "runs.csv", runs_csv(runs))
        write_text(root / "table.csv", table_csv(runs, self.sweep))
        plot(root / "plot.png", runs, self.sweep)
        write_text(root / "table.md", markdown(runs, self.sweep, len(self.runs), "plot.png"))
        if not quiet:
            sys.stdout.write(f"\n{self.sweep.title}: {self.sweep.about}\n\n")
            sys.stdout.write(f"{main_table(runs, self.sweep)}\n\n")
            sys.stdout.write(f"classes, all figures, plot: {root / 'table.md'}\n")
            sys.stdout.flush()
