# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Tests that need a process of their own: the full network keeps its memory until that ends.

What is marked `own_process` runs in a child, one for each formulation of the network and kind of
training; all tests of a child share what is compiled there. Reports come back to this process as
if they had run here. With pytest-xdist (`-n 2 --dist loadgroup`) one worker has all of these, as
two such children at once would need more memory than most machines have; a module stays together.

A test that needs a trained detector, and not a training of its own, takes the fixture
`trained_demo`: pictures, K-shot sets, a run with a checkpoint of every step, an evaluation, made
once for all tests by train.py and eval.py (`tests/helpers/trained.py`). It is read only;
`trained_demo.copy(tmp_path)` gives a configuration with a copy of the run that may be changed, and
`steps=5` one that stopped there.

Tests run on the CPU; DEFRCN_TEST_DEVICE=GPU or Ascend has what they compute in their own processes
run there. Programs that they start have a device of their own, by --device_target.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.browser import Browser
    from tests.helpers.trained import TrainedDemo

DEVICE = "DEFRCN_TEST_DEVICE"
CHILD = "DEFRCN_TEST_REPORT"  # in a child: the file that its reports go to
TIME_LIMIT = 3600
# What workers begin with, so that none is left with a long group when the others are done.
LONGEST = ("own processes", "tests/programs/", "tests/golden/", "tests/")
_finished: dict[str, dict[str, list[dict]]] = {}


def group_of(item: pytest.Item) -> str | None:
    """The child that an item belongs to; None for this process."""
    if item.get_closest_marker("own_process") is None or os.environ.get(CHILD):
        return None
    values = str(getattr(item, "callspec", None) and item.callspec.params)
    kind = next((name for name in ("gfsod", "fsod") if name in values), "base")
    return f"{kind} {'plain' if 'plain' in values else 'fast'}"


def plain_id(item: pytest.Item) -> str:
    """The name that a child knows an item by: xdist appends the item's group."""
    mark = item.get_closest_marker("xdist_group")
    return item.nodeid.removesuffix(f"@{mark.args[0]}") if mark else item.nodeid


def run_group(items: list[pytest.Item]) -> dict[str, list[dict]]:
    """Run items in a child; return its reports by test."""
    with tempfile.TemporaryDirectory() as folder:
        reports = Path(folder) / "reports.jsonl"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", ""]
        done = subprocess.run(
            [*command, *map(plain_id, items)],
            cwd=items[0].config.rootpath,
            env={**os.environ, CHILD: str(reports)},
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
        )
        lines = reports.read_text().splitlines() if reports.exists() else []
    found: dict[str, list[dict]] = {}
    for line in lines:
        entry = json.loads(line)
        found.setdefault(entry["nodeid"], []).append(entry)
    for item in items:
        name = plain_id(item)
        if "teardown" not in {entry["when"] for entry in found.get(name, [])}:
            text = f"the child ended with {done.returncode} before this test did\n"
            found.setdefault(name, []).append(
                {"when": "call", "outcome": "failed", "duration": 0.0}
                | {"longrepr": text + done.stdout[-3000:] + done.stderr[-3000:]}
            )
    return found


def pytest_configure() -> None:
    """Choose the device; have workers and programs allocate by MindSpore's jemalloc.

    With that they compile a quarter faster. In a process that shares the machine with other tests,
    MindSpore's calling thread, which spins while its kernels run, gets what these leave; threads
    and programs started here are as usual.
    """
    device = os.environ.get(DEVICE, "CPU")
    if device == "CPU":
        # MindSpore takes a GPU without being asked where CUDA is set up.
        os.environ.pop("CUDA_HOME", None)
    else:
        from src.model_utils.device_adapter import Runtime

        Runtime.start(device)
    if {CHILD, "PYTEST_XDIST_WORKER"} & set(os.environ) and hasattr(os, "SCHED_IDLE"):
        policy = os.SCHED_IDLE | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(0))
    mindspore = find_spec("mindspore")
    if mindspore is None or mindspore.origin is None or "LD_PRELOAD" in os.environ:
        return
    allocator = Path(mindspore.origin).with_name("lib") / "libjemalloc.so.2"
    if sys.platform == "linux" and allocator.exists() and " " not in str(allocator):
        os.environ["LD_PRELOAD"] = str(allocator)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what one worker has to run: a module, or all tests of children; the longest first."""
    turns = {}
    for item in items:
        module = item.nodeid.partition("::")[0]
        together = module if group_of(item) is None else "own processes"
        item.add_marker(pytest.mark.xdist_group(together))
        turns[item] = next(i for i, start in enumerate(LONGEST) if together.startswith(start))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=turns.__getitem__)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run an item's whole group at its first one; report each where it stands."""
    group = group_of(item)
    if group is None:
        return None
    if group not in _finished:
        members = [other for other in item.session.items if group_of(other) == group]
        _finished[group] = run_group(members)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for entry in _finished[group][plain_id(item)]:
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={name: 1 for name in item.keywords},
            outcome=entry["outcome"],
            longrepr=tuple(entry["longrepr"])
            if isinstance(entry["longrepr"], list)
            else entry["longrepr"],
            when=entry["when"],
            duration=entry["duration"],
        )
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # The test before this one left what they have in common, and that the next may not have.
    item.session._setupstate.teardown_exact(nextitem)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In a child: write down what happened."""
    place = os.environ.get(CHILD)
    if place is None:
        return
    skipped = report.outcome == "skipped" and isinstance(report.longrepr, tuple)
    longrepr = list(map(str, report.longrepr)) if skipped else report.longreprtext
    entry = {
        "nodeid": report.nodeid,
        "when": report.when,
        "outcome": report.outcome,
        "duration": report.duration,
        "longrepr": longrepr or None,
    }
    with open(place, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(entry) + "\n")


@pytest.fixture(scope="session")
def trained_demo(tmp_path_factory: pytest.TempPathFactory) -> TrainedDemo:
    """A trained detector that all tests share; see the top of this file."""
    from tests.helpers import trained  # not for those who need none

    own = tmp_path_factory.getbasetemp()
    return trained.made_once(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium that all tests of a process share; see tests/helpers/browser.py."""
    from tests.helpers.browser import Browser, executable

    started = Browser(executable(), tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def kernels() -> str:
    """Path of the kernels in C++, built if they are not there."""
    from src.kernels import library
    from src.tools.build_kernels import try_kernels

    if os.environ.get(DEVICE, "CPU") != "CPU":
        pytest.skip("kernels are for the CPU")
    if library.built() is None and shutil.which("g++") is None:
        pytest.skip("no compiler")
    return str(library.built() or library.build(try_kernels))
