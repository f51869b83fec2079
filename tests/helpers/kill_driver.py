# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Kills (SIGKILL) training, MindRecord writing, evaluation and sweeps at moments drawn by a seed.

    python -m tests.helpers.kill_driver --seed 0 --folder /tmp/kills [--kinds train,eval]
        [--moments 20]

After every kill: what was reported as finished is there and intact, nothing partial passes for
whole; in the end everything was resumed and equals a run that nobody killed, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from src.data.mindrecord_io import open_mindrecord, read_rows
from src.model_utils.paths import project_folder
from src.weights.checkpoint import find_latest, load_training_checkpoint
from tests.helpers import toy_sweep
from tests.helpers.data_helpers import picture_records
from tests.helpers.trained import STEPS, TrainedDemo, made_once

PROJECT = project_folder()
KINDS = ("train", "mindrecord", "eval", "sweep")
TIME_LIMIT = 900
RECORDS = 700  # of a MindRecord whose writing is killed: some seconds


class Child:
    """A process whose output goes to a file; killed with all of its group."""

    def __init__(self, command, output: Path, cwd: Path, **environment) -> None:
        self.output = output
        self.offset = output.stat().st_size if output.exists() else 0
        with output.open("ab") as handle:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": str(PROJECT), "GLOG_v": "3", **environment},
                stdout=handle,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                # ignored where the tests themselves are a job in the background
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def text(self) -> str:
        """What this process has written."""
        return self.output.read_bytes()[self.offset :].decode("utf-8", "replace")

    def wait_for(self, pattern: str) -> bool:
        """Return when the output matches; False if the process ended before."""
        end = time.monotonic() + TIME_LIMIT
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            if re.search(pattern, self.text()):
                return True
            if ended:
                return False
            time.sleep(0.01)
        raise AssertionError(f"no {pattern!r} in {self.output} after {TIME_LIMIT} s")

    def kill_after(self, seconds: float) -> bool:
        """Kill outright; False if it had ended by itself."""
        try:
            self.process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return True

    def end(self) -> float:
        """Wait for a good end; return how long it took from now."""
        started = time.monotonic()
        code = self.process.wait(TIME_LIMIT)
        assert code == 0, f"exit code {code}:\n{self.text()[-3000:]}"
        return time.monotonic() - started


class Driver:
    """The four kinds of victims, each in a folder of its own below `folder`.

    Training and evaluation are compared with `demo`, which nobody killed.
    """

    def __init__(
        self, folder: Path, seed: int, demo: TrainedDemo, report=lambda line: None
    ) -> None:
        self.folder = folder
        self.demo = demo
        self.random = random.Random(seed)
        self.report = report
        folder.mkdir(parents=True, exist_ok=True)

    def go(self, kind: str, moments: int) -> None:
        """Kill one kind of victim so many times, then let it end and compare."""
        getattr(self, f"_{kind}")(moments)

    def _config(self) -> Path:
        path = self.folder / "tiny.yaml"
        if not path.exists():
            self.demo.copy(self.folder, steps=None, checkpoint={"period": 1, "keep_last": 3})
        return path

    def train_command(self, run: str, *flags: str):
        return [
            sys.executable,
            PROJECT / "train.py",
            f"--config_path={self._config()}",
            f"--save_checkpoint_path={self.folder / run}",
            "--test.eval_at_end=false",
            *flags,
        ]

    def _train(self, moments: int) -> None:
        self.kill_training(moments)
        child = Child(
            self.train_command("victim", "--resume=true"), self.folder / "victim.txt", self.folder
        )
        child.end()
        self.check_end_of_training()

    def kill_training(self, moments: int, last: int = STEPS - 1) -> None:
        """Kill it so many times, the last time `last` steps from the beginning or before.

        There has to be something left to kill: `last` is never the last step.
        """
        reference = self.demo.run / "ckpt_0"
        place = self.folder / "victim" / "ckpt_0"
        done = 0
        for number in range(moments):
            resume = ("--resume=true",) if number else ()
            command = self.train_command("victim", *resume)
            child = Child(command, self.folder / "victim.txt", self.folder)
            until = last + 1 - moments + number
            target = self.random.randint(min(done, until), until)
            if target > done:
                assert child.wait_for(rf" step {target}/"), child.text()[-3000:]
            delay = self.random.uniform(0, 0.2)
            killed = child.kill_after(delay)
            told = [int(step) for step in re.findall(r"saved \S+defrcn-(\d+)\.ckpt", child.text())]
            done = max([done, *told])
            found = load_training_checkpoint(place) if done or place.exists() else None
            step = found.step if found else 0
            self.report(f"train {number}: killed {delay:.2f} s after step {target}, kept {step}")
            assert killed and step >= done, (killed, step, done)
            if found:
                same_checkpoint(reference / f"defrcn-{step}.json", place / f"defrcn-{step}.json")
            done = step

    def check_end_of_training(self) -> None:
        """The run that was resumed to its end is that which nobody interrupted."""
        place = self.folder / "victim" / "ckpt_0"
        name = f"defrcn-{STEPS}.json"
        same_checkpoint(self.demo.run / "ckpt_0" / name, place / name)
        assert not list(place.glob(".*")), "left-overs of interrupted saves"
        losses = losses_of(place.parent)
        assert losses == losses_of(self.demo.run) and len(losses) == STEPS

    def _mindrecord(self, moments: int) -> None:
        images, place = self.folder / "images", self.folder / "mr" / "m"
        picture_records(images, [(60, 80)] * 40)
        for index in range(40, RECORDS):
            os.link(images / f"{index % 40:03d}.png", images / f"{index:04d}.png")
        command = [sys.executable, "-c", _BUILD, images, place]
        output = self.folder / "mindrecord.txt"
        started = time.monotonic()
        Child(command, output, self.folder).end()
        whole = time.monotonic() - started
        names = sorted(path.name for path in place.iterdir())
        shutil.rmtree(place)
        number = 0
        while number < moments:  # moments that came too late do not count
            delay = self.random.uniform(0.3, 1) * whole
            killed = Child(command, output, self.folder).kill_after(delay)
            there = place.exists()
            self.report(
                f"mindrecord {number}: killed={killed} after {delay:.2f} of {whole:.2f} s, "
                f"{'whole' if there else 'absent'}"
            )
            if there:  # then it is whole
                assert open_mindrecord(place).num_rows == RECORDS
                shutil.rmtree(place)
            number += killed
        Child(command, output, self.folder).end()
        assert sorted(path.name for path in place.iterdir()) == names
        assert len(list(read_rows(open_mindrecord(place), range(RECORDS)))) == RECORDS
        assert sorted(p.name for p in place.parent.iterdir()) == [".m.lock", "m"]

    def _eval(self, moments: int) -> None:
        output = self.folder / "eval.txt"
        command = [
            sys.executable,
            PROJECT / "eval.py",
            f"--config_path={self._config()}",
            f"--eval_checkpoint_path={self.demo.run}",
            f"--result_path={self.folder / 'eval_victim'}",
        ]
        whole = self.demo.eval_seconds
        files = ("detections.json", "metrics.json")
        wanted = {name: (self.demo.evaluated / name).read_text() for name in files}
        number = 0
        while number < moments:
            # most of the time goes to compiling; the end is where files are written
            delay = whole * (self.random.uniform(0, 1) ** 0.5)
            killed = Child(command, output, self.folder).kill_after(delay)
            found = [name for name in files if (self.folder / "eval_victim" / name).exists()]
            self.report(
                f"eval {number}: killed={killed} after {delay:.1f} of {whole:.1f} s {found}"
            )
            for name in found:
                assert (self.folder / "eval_victim" / name).read_text() == wanted[name]
            number += killed
            if number < moments:
                shutil.rmtree(self.folder / "eval_victim", ignore_errors=True)
        Child(command, output, self.folder).end()
        for name in files:
            assert (self.folder / "eval_victim" / name).read_text() == wanted[name]

    def _sweep(self, moments: int) -> None:
        place = self.folder / "sweep"
        place.mkdir(exist_ok=True)
        toy_sweep.write_inputs(place)
        environment = {"FAKE_STEPS": "4", "FAKE_DELAY": "0.15"}

        def child(name):
            environment["FAKE_LOG"] = str(place / f"{name}.events")
            return Child(_sweep_command(name), place / f"{name}.txt", place, **environment)

        started = time.monotonic()
        child("reference").end()
        whole = time.monotonic() - started
        finished: dict[Path, int] = {}
        for number in range(moments):
            # not so late that nothing is left to kill; a second passes before the first run
            delay = min(1.0, whole / 4) + self.random.uniform(0, 0.7 * whole / moments)
            killed = child("victim").kill_after(delay)
            time.sleep(0.5)  # Linux tells the orphan, which ends
            results = list((place / "victim").glob("tfa-like/*/sweep_result.json"))
            self.report(
                f"sweep {number}: killed={killed} after {delay:.1f} of {whole:.1f} s, "
                f"{len(results)} of 4 runs finished"
            )
            assert killed
            for path in results:
                json.loads(path.read_text())
                changed = path.stat().st_mtime_ns
                assert finished.setdefault(path, changed) == changed, f"{path} was made again"
            for folder in (place / "victim").glob("tfa-like/*/ckpt_0"):
                if list(folder.glob("*.json")):
                    assert find_latest(folder) is not None
        child("victim").end()
        for path, changed in finished.items():
            assert path.stat().st_mtime_ns == changed, f"{path} was made again"
        for name in ("table.csv", "runs.csv"):
            texts = [
                re.sub(
                    r",\d+\.\d+(?=\r?$|\r?\n)", "", (place / run / "tfa-like" / name).read_text()
                )
                for run in ("reference", "victim")
            ]
            assert _without_seconds(texts[0]) == _without_seconds(texts[1]), name


def _without_seconds(text: str) -> list[list[str]]:
    """Rows of a table without its column of wall times."""
    rows = [line.split(",") for line in text.splitlines()]
    drop = {index for index, name in enumerate(rows[0]) if "second" in name or "hour" in name}
    return [[cell for index, cell in enumerate(row) if index not in drop] for row in rows]


def same_checkpoint(expected: Path, actual: Path) -> None:
    """Weights and state are equal bit for bit, wall time apart."""
    one, other = load_training_checkpoint(expected), load_training_checkpoint(actual)
    for kind in ("params", "state"):
        a, b = getattr(one, kind), getattr(other, kind)
        assert a.keys() == b.keys()
        for name in a.keys() - {"seconds"}:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def losses_of(run: Path) -> dict[str, str]:
    """What each step's line says, without the time; the last one of a step counts."""
    lines = (run / "loss_0.log").read_text().splitlines()
    return dict(re.search(r"\| (epoch: \d+ step: \d+) (.*)", line).groups() for line in lines)


_BUILD = """
import sys
from pathlib import Path
from tests.helpers.data_helpers import record
from src.dataset import build_mindrecord
source, folder = sys.argv[1:]
records = [record(path, 60, 80, image_id=index)
           for index, path in enumerate(sorted(Path(source).iterdir()))]
build_mindrecord(records, folder, class_names=("a",), training=True, show_progress=False)
"""


def _sweep_command(name: str) -> list[str]:
    return [sys.executable, "-m", "src.sweep", *toy_sweep.words(output=name)]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True, help="absent or empty")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--moments", type=int, default=20, help="kills in all")
    options = parser.parse_args()
    kinds = options.kinds.split(",")

    def report(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    driver = Driver(folder, options.seed, made_once(folder), report)
    for number, kind in enumerate(kinds):
        count = options.moments // len(kinds) + (number < options.moments % len(kinds))
        driver.go(kind, count)
        report(f"{kind}: {count} kills, nothing lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
