# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Seconds and memory of this project beside the same detector in PyTorch, case by case, in turn.

    python benchmarks/compare.py --twin-python twin_venv/bin/python [CASE ...]
    python benchmarks/compare.py --before OTHER_CHECKOUT [CASE ...]

The twin (`benchmarks/torch_twin.py`, environment `benchmarks/requirements-torch.txt`) first has to
pass its check against the golden vectors. Each case is two processes with two threads each that
take turns and get the same weights, pictures and ground truth; their losses or detections have to
agree before a ratio is written. With --before, the other side is an older checkout of this project.
docs/performance.md says what each case is.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.comparison import agreement, programs, table  # noqa: E402
from benchmarks.comparison.cases import CASES, Case  # noqa: E402
from benchmarks.comparison.turns import Times, Worker, alive, take_turns  # noqa: E402
from src.util import run_main, write_json  # noqa: E402

logger = logging.getLogger("compare")

THREADS = 2
MATMULS = 90.0  # a fair twin's inference at full size takes no more of its own matmuls
ENVIRONMENT = {"OMP_NUM_THREADS": str(THREADS), "GLOG_v": "3"}


@dataclass(frozen=True)
class Sides:
    """How both sides are started.

    Attributes:
        python: of the other side.
        before: checkout of the other side; None for the twin.
    """

    python: str
    before: Path | None

    @property
    def names(self) -> tuple[str, str]:
        """Of ours and of the other side."""
        return ("ours", "before" if self.before else "twin")

    def workers(self, case: Case) -> dict[str, list[str]]:
        """Commands of the two workers."""
        module = ["-m", "benchmarks.comparison.worker"]
        ours = [sys.executable, *module, "ours", case.name]
        other = [self.python, *module, "theirs", case.name]
        if self.before:
            other = [*ours, "--checkout", str(self.before)]
        return dict(zip(self.names, (ours, other)))


def compare_workers(case: Case, sides: Sides, repeats: int, work: Path) -> table.Row:
    """Measure a case that runs inside two living processes."""
    with alive(sides.workers(case), ROOT, ENVIRONMENT) as workers:
        prints = {worker.ready["weights"] for worker in workers.values()}
        if len(prints) > 1:
            raise agreement.DisagreementError("the sides have other weights")
        first = {name: worker.ask(do="run", input=0)["seconds"] for name, worker in workers.items()}
        difference = agreement.BY_KIND[case.kind](*results(workers, work))
        numbers = range(1, len(case.sizes)) if len(case.sizes) > 1 else [0]
        later = take_turns(workers, numbers, repeats)
        row: table.Row = {"title": case.title, "difference": difference, "sides": {}}
        for name, worker in workers.items():
            times = Times(first[name], later[name])
            peak = worker.ask(do="memory")["peak_mb"]
            row["sides"][name] = {
                **figures(times, several=len(numbers) > 1),
                "peak_mb": peak,
                "growth_mb": peak - worker.ready["imported_mb"],
                "versions": worker.ready["versions"],
            }
        row["ratios"] = table.ratios(row["sides"])
        if case.fair and not sides.before:
            row["matmuls"] = fairness(workers["twin"], row["sides"]["twin"]["minimum_s"])
        if case.parts:
            found = [
                worker.ask(do="parts", repeats=repeats)["seconds"] for worker in workers.values()
            ]
            row["parts"] = {part: [own[part] for own in found] for part in found[0]}
    return row


def results(workers: dict[str, Worker], work: Path) -> list[dict[str, np.ndarray]]:
    """What the last run of each worker gave."""
    found = []
    for name, worker in workers.items():
        path = work / f"{name}.npz"
        worker.ask(do="result", path=str(path))
        with np.load(path) as archive:
            found.append(dict(archive))
    return found


def figures(times: Times, *, several: bool = False) -> table.Row:
    """The figures of one side's times."""
    found = {"minimum_s": times.minimum, "median_s": times.median, "first_s": times.first}
    return {**found, **({"unseen_s": times.unseen} if several else {}), "all_s": times.later}


def fairness(twin: Worker, seconds: float) -> float:
    """The twin's inference in units of its own matmul of 8192 x 512 x 2048.

    Raises:
        DisagreementError: there are too many; such a twin is no yardstick.
    """
    least = min(twin.ask(do="matmul")["seconds"] for _ in range(20))
    count = seconds / least
    logger.info("the twin's inference takes %.0f of its own matmuls (%.4f s)", count, least)
    if count > MATMULS:
        raise agreement.DisagreementError(
            f"the twin takes {count:.0f} matmuls, more than {MATMULS:.0f}"
        )
    return count


def compare_programs(case: Case, sides: Sides, repeats: int, work: Path) -> table.Row:
    """Measure whole programs."""
    demo = programs.prepare(work, ROOT)
    places = [demo.folder / name for name in sides.names]
    commands = [(programs.our_command(case, demo, places[0]), ROOT)]
    if sides.before:
        commands.append((programs.our_command(case, demo, places[1]), sides.before))
    else:
        commands.append((programs.their_command(case, demo, sides.python, places[1]), ROOT))
    measured = programs.take_turns(
        dict(zip(sides.names, commands)), ENVIRONMENT, demo.folder, repeats
    )
    theirs = programs.our_figures if sides.before else programs.their_figures
    row: table.Row = {
        "title": case.title,
        "difference": agreement.programs(programs.our_figures(places[0]), theirs(places[1])),
        "sides": {
            name: {**figures(times), "peak_mb": peak} for name, (times, peak) in measured.items()
        },
    }
    row["ratios"] = table.ratios(row["sides"])
    return row


def compare(arguments: argparse.Namespace, work: Path) -> None:
    """Measure the cases one after the other; what is there is written after each."""
    sides = Sides(arguments.twin_python, arguments.before and arguments.before.resolve())
    result = {"machine": table.machine(), "threads": THREADS, "sides": sides.names, "cases": {}}
    for name in arguments.cases or CASES:
        case = CASES[name]
        load = os.getloadavg()[0]
        logger.info("%s", case.title)
        if case.kind == "program":
            row = compare_programs(case, sides, arguments.repeats, work)
        else:
            row = compare_workers(case, sides, arguments.repeats, work)
        result["cases"][name] = {**row, "load_before": load}
        logger.info(
            "ratio %.2f: %s", row["ratios"]["minimum_s"], json.dumps(row["ratios"], default=str)
        )
        if arguments.json:
            write_json(arguments.json, result)
        if arguments.markdown:
            arguments.markdown.write_text(table.markdown(result), encoding="utf-8")
    sys.stdout.write(table.markdown(result))


def main(argv: Sequence[str] | None = None) -> int:
    """Check the twin, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    other = parser.add_mutually_exclusive_group(required=True)
    other.add_argument("--twin-python", default="", help="Python of the twin's environment")
    other.add_argument("--before", type=Path, help="an older checkout instead of the twin")
    parser.add_argument("--repeats", type=int, default=3, help="rounds after the first run")
    parser.add_argument("--work", type=Path, help="folder of the demo's pictures; else temporary")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--unchecked", action="store_true", help="the twin was checked before")
    arguments = parser.parse_args(argv)
    unknown = sorted({*arguments.cases} - {*CASES})
    if unknown or arguments.repeats < 1:
        parser.error(f"no such case: {', '.join(unknown)}" if unknown else "--repeats: 1 or more")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if hasattr(os, "sched_setaffinity"):  # two cores, also where there are more
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    if arguments.twin_python and not arguments.unchecked:
        log = Path(tempfile.gettempdir()) / "torch_twin_check.log"
        logger.info("checking the twin against the golden vectors")
        programs.run(
            [arguments.twin_python, "benchmarks/torch_twin.py", "check"], ROOT, ENVIRONMENT, log
        )
    with tempfile.TemporaryDirectory(prefix="compare_") as folder:
        compare(arguments, arguments.work or Path(folder))
    return 0


if __name__ == "__main__":
    run_main(main)
