# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""One side of a comparison, in a process of its own: it works when it is asked to.

    python -m benchmarks.comparison.worker {ours,theirs} CASE [--checkout FOLDER]

Questions come as JSON lines on standard input, answers go out as JSON lines on standard output;
whatever else libraries print there goes to standard error instead.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from benchmarks.comparison.cases import CASES


class Job(Protocol):
    """The work of a case, as `ours` and `theirs` have it."""

    weights: int
    """Fingerprint of the weights; 0 without any."""

    def run(self, number: int) -> None:
        """Do the work once, on input `number`, and wait for it."""

    def result(self) -> dict[str, np.ndarray]:
        """What came out of the last run."""

    def parts(self) -> dict[str, Callable[[], object]]:
        """The network's parts by name, each to be run by itself; {} where there are none."""


def megabytes(field: str) -> float:
    """Memory of this process: "VmRSS" now, "VmHWM" at its peak."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # no Linux: the peak is all there is
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return int(status.split(f"{field}:")[1].split()[0]) * 1024 / 1e6


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def answer(job: Job, side: Any, question: dict) -> dict:  # noqa: ANN401
    """Do what is asked; `side` is the module that the job is of."""
    what = question["do"]
    if what == "run":
        return {"seconds": seconds(lambda: job.run(question["input"]))}
    if what == "result":
        np.savez(question["path"], **job.result())
        return {}
    if what == "memory":
        return {"peak_mb": megabytes("VmHWM")}
    if what == "matmul":
        return {"seconds": seconds(side.matmul)}
    if what == "parts":
        timed = {}
        for name, work in job.parts().items():
            work()
            timed[name] = min(seconds(work) for _ in range(question["repeats"]))
        return {"seconds": timed}
    raise ValueError(what)


def tell(answers: TextIO, reply: dict) -> None:
    """Send an answer off at once."""
    answers.write(json.dumps(reply) + "\n")
    answers.flush()


def main() -> int:
    """Build the case, then answer until there are no more questions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("ours", "theirs"))
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--checkout", default="", help="where `src` is imported from")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if arguments.checkout:
        sys.path.insert(0, arguments.checkout)
    side = importlib.import_module(f"benchmarks.comparison.{arguments.side}")
    imported = megabytes("VmRSS")
    job = side.make(CASES[arguments.case])
    ready = {"imported_mb": imported, "weights": job.weights, "versions": side.versions()}
    tell(answers, ready)
    for line in sys.stdin:
        tell(answers, answer(job, side, json.loads(line)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
