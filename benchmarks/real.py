# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Few-shot detection on real photographs, end to end on a CPU: what helps, with intervals.

    python benchmarks/real.py --data FOLDER_OF_NEU_DET --weights thin_r50.ckpt --output DIR

Trains a base detector and a calibration encoder on three kinds of defects, draws K-shot sets,
fine-tunes on every one with plain cross-entropy and with DCFS's loss, as FSOD and as G-FSOD, and
evaluates each with PCB off and on. All through the project's own programs. Writes `table.md`,
`results.json` and `plot.png` after each stage. Started again, it goes on where it ended, also with
more shots, seeds or settings; other weights or schedules need another folder. docs/results.md says
where data and weights come from.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.comparison.table import machine  # noqa: E402
from benchmarks.real_photographs import figures  # noqa: E402
from benchmarks.real_photographs.figures import (  # noqa: E402
    LOSSES,
    SETTINGS,
    Result,
    last_evaluation,
)
from src.assembly.schedule import real_schedule  # noqa: E402
from src.model_utils.command_line import Flags, command_parser  # noqa: E402
from src.model_utils.config import load_config  # noqa: E402
from src.model_utils.errors import InputError  # noqa: E402
from src.model_utils.paths import CHECKPOINTS  # noqa: E402
from src.util import (  # noqa: E402
    numbers,
    read_json,
    run_main,
    set_up_logging,
    sha256_file,
    write_json,
    write_text,
)
from src.weights.checkpoint import find_latest, latest_manifest  # noqa: E402

logger = logging.getLogger("real")

HERE = ROOT / "benchmarks" / "real_photographs"
FLAGS: Flags = {
    "--data": dict(
        type=Path, required=True, help="folder with annotations/ and images/ of NEU-DET"
    ),
    "--weights": dict(type=Path, required=True, help="the pre-trained half-width ResNet-50"),
    "--output": dict(type=Path, required=True, help="folder of all runs"),
    "--shots": dict(default="1,5,10", help="default: %(default)s"),
    "--seeds": dict(default="0-4", help="K-shot sets (%(default)s)"),
    "--encoder_steps": dict(type=int, default=400, help="of pretrain_encoder (%(default)s)"),
    "--settings": dict(default=",".join(SETTINGS), help="default: %(default)s"),
}


class Bench:
    """The benchmark in a folder.

    Args:
        options: the command line's.
        extra: flags for every program, such as a shorter schedule's.
    """

    def __init__(self, options: argparse.Namespace, extra: Sequence[str]) -> None:
        self.options, self.extra = options, list(extra)
        self.output: Path = options.output.absolute()
        self.shots = numbers(options.shots, "--shots")
        self.seeds = numbers(options.seeds, "--seeds")
        self.settings = options.settings.split(",")
        unknown = sorted({*self.settings} - {*SETTINGS})
        if unknown:
            raise InputError(f"--settings {unknown[0]}: write fsod, gfsod, or both with a comma")
        self.seconds: dict[str, float] = {}
        self.times = self.output / "seconds.json"
        if self.times.exists():
            self.seconds = read_json(self.times, "remove it to go on")

    def run(self, name: str, program: Sequence[str], *flags: str) -> None:
        """Run one of the project's programs; its output goes to `logs/NAME.txt`.

        Raises:
            InputError: it failed.
        """
        command = [sys.executable, *program, *flags, *self.extra]
        log = self.output / "logs" / f"{name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        logger.info("%s: %s", name, shlex.join(command[1:]))
        started = time.monotonic()
        with log.open("a", encoding="utf-8") as handle:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            code = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=handle, stderr=handle, check=False
            ).returncode
        taken = time.monotonic() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + taken
        write_json(self.times, self.seconds)
        if code:
            raise InputError(
                f"{name} ended with exit code {code}; look at {log}, and start this again"
            )
        logger.info("%s: done in %.0f s", name, taken)

    def places(self, folder: Path) -> list[str]:
        """Flags that say where things are."""
        return [
            f"--datasets_root={self.output / 'datasets'}",
            f"--train_mindrecord_dir={folder / 'mindrecord' / 'train'}",
            f"--test_mindrecord_dir={folder / 'mindrecord' / 'test'}",
        ]

    def prepare(self) -> None:
        """Link the data, draw the K-shot sets."""
        for path in (self.options.data / "annotations", self.options.data / "images"):
            if not path.is_dir():
                raise InputError(f"--data: {path} is missing; docs/results.md says what goes there")
        if not self.options.weights.is_file():
            raise InputError(f"--weights: {self.options.weights} does not exist")
        datasets = self.output / "datasets"
        datasets.mkdir(parents=True, exist_ok=True)
        link = datasets / "neu_det"
        if not link.is_symlink():
            link.symlink_to(self.options.data.absolute())
        elif link.resolve() != self.options.data.resolve():
            raise InputError(
                f"--output: {self.output} holds runs on {link.resolve()}; name that as --data, or "
                "another folder"
            )
        self.check_settings()
        sets = (
            datasets / "neu_split" / f"seed{seed}" / f"full_box_{shot}shot_scratches_trainval.json"
            for seed in self.seeds
            for shot in self.shots
        )
        if not all(path.is_file() for path in sets):
            self.run(
                "draw_kshot",
                ["-m", "src.tools.draw_kshot"],
                f"--config_path={HERE / 'base.yaml'}",
                f"--shots={','.join(map(str, self.shots))}",
                f"--seeds={max(self.seeds) + 1}",
                f"--datasets_root={datasets}",
            )

    def check_settings(self) -> None:
        """Store what all runs depend on; shots, seeds and settings may change from start to start.

        Raises:
            InputError: the folder's runs were made with something else.
        """
        path = self.output / "settings.json"
        mine = {
            "weights_sha256": sha256_file(self.options.weights),
            "encoder_steps": self.options.encoder_steps,
            "flags": self.extra,
        }
        # until something is trained a flag may be corrected; folders of before have no such file
        if path.exists() and latest_manifest(self.base / CHECKPOINTS) is not None:
            advice = "remove it if the runs are of these flags"
            stored = read_json(path, advice)
            if not isinstance(stored, dict) or stored.keys() != mine.keys():
                raise InputError(f"{path} is not of this program; {advice}")
            texts = {
                "weights_sha256": "--weights of sha256 {}",
                "encoder_steps": "--encoder_steps={}",
                "flags": "the further flags {}",
            }
            other = [
                text.format(shlex.join(stored[key]) or "(none)" if key == "flags" else stored[key])
                for key, text in texts.items()
                if stored[key] != mine[key]
            ]
            if other:
                raise InputError(
                    f"--output: {self.output} holds runs with {' and '.join(other)}; give these, "
                    "or name another folder"
                )
        write_json(path, mine)

    @property
    def base(self) -> Path:
        """Folder of the base training."""
        return self.output / "base"

    @property
    def base_metrics(self) -> Path:
        """The base detector's figures after its last step; earlier evaluations do not count."""
        config = load_config(str(HERE / "base.yaml"), self.extra)
        return self.base / f"eval_{real_schedule(config, 1).max_steps}" / "metrics.json"

    def base_figures(self) -> dict[str, float]:
        """What the base detector has before fine-tuning."""
        return figures.read_figures(self.base_metrics, ("bAP", "bAP50"))

    def train_base(self) -> None:
        """Base training, and the encoder of the calibration block."""
        if not self.base_metrics.is_file():
            self.run(
                "base",
                ["train.py"],
                f"--config_path={HERE / 'base.yaml'}",
                f"--backbone_pretrained_path={self.options.weights.absolute()}",
                f"--save_checkpoint_path={self.base}",
                "--resume=true",
                *self.places(self.base),
            )
        if not self.encoder.is_file():
            self.run(
                "encoder",
                ["-m", "src.tools.pretrain_encoder"],
                f"--config_path={HERE / 'base.yaml'}",
                f"--output={self.encoder}",
                f"--steps={self.options.encoder_steps}",
                *self.places(self.base),
            )

    @property
    def encoder(self) -> Path:
        """The calibration block's weights."""
        return self.output / "encoder.ckpt"

    def fine_tune(self, setting: str, loss: str) -> None:
        """A sweep over shots and K-shot sets; then the same detections with PCB on."""
        folder = self.output / f"{setting}_{loss}"
        split = "novel" if setting == "fsod" else "all"
        self.run(
            folder.name,
            ["-m", "src.sweep"],
            f"--output={folder}",
            "--dataset=own",
            f"--setting={setting}",
            f"--shots={','.join(map(str, self.shots))}",
            f"--seeds={','.join(map(str, self.seeds))}",
            f"--config_path={HERE / f'{setting}.yaml'}",
            f"--base_checkpoint={self.base}",
            f"--data.train=[neu_train_{split}_{{shot}}shot_seedx]",
            f"--model.roi_heads.cls_loss={loss}",
            f"--datasets_root={self.output / 'datasets'}",
            f"--pcb_modelpath={self.encoder}",
            "--test.pcb.enable=false",
        )
        missing = [
            f"{run}:{shot}:{seed}"
            for shot, seed, run in self.runs(setting, loss)
            if not (run / "calibrated" / "metrics.json").is_file()
        ]
        if missing:
            self.run(
                f"{folder.name}_calibrated",
                ["-m", "benchmarks.real_photographs.calibrate"],
                f"--config_path={HERE / f'{setting}.yaml'}",
                f"--train=neu_train_{split}_{{shot}}shot_seedx",
                f"--pcb_modelpath={self.encoder}",
                f"--test.pcb.cache_dir={self.output / 'pcb_cache'}",
                "--test.pcb.cache_features=true",
                f"--datasets_root={self.output / 'datasets'}",
                "--runs",
                *missing,
            )

    def runs(self, setting: str, loss: str) -> Iterator[tuple[int, int, Path]]:
        """Shot, K-shot set and folder of every finished run."""
        root = self.output / f"{setting}_{loss}" / "tfa-like"
        for shot in self.shots:
            for seed in self.seeds:
                run = root / f"{shot}shot_seed{seed}"
                if (run / "sweep_result.json").is_file() and find_latest(run / CHECKPOINTS):
                    yield shot, seed, run

    def results(self) -> Iterator[Result]:
        """Everything evaluated so far."""
        for setting in self.settings:
            for loss in LOSSES:
                for shot, seed, run in self.runs(setting, loss):
                    folders = {False: last_evaluation(run), True: run / "calibrated"}
                    for calibrated, folder in folders.items():
                        path = folder / "metrics.json"
                        if path.is_file():
                            found = figures.read_figures(path, SETTINGS[setting])
                            yield Result(setting, loss, calibrated, shot, seed, found)

    def report(self) -> str:
        """Write table, figures and plot; return the table."""
        found, before = list(self.results()), self.base_figures()
        found.sort(key=lambda one: (LOSSES.index(one.loss), one.calibrated, one.shot, one.seed))
        text = figures.markdown(found, before)
        write_text(self.output / "table.md", text)
        more = {"machine": machine(), "seconds": self.seconds}
        write_json(self.output / "results.json", figures.to_json(found, before, **more))
        figures.plot(self.output / "plot.png", found, before)
        return text

    def go(self) -> str:
        """All stages; returns the table."""
        self.prepare()
        self.train_base()
        for setting in self.settings:
            for loss in LOSSES:
                self.fine_tune(setting, loss)
                self.report()
        return self.report()


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line, run what is missing, print the table."""
    parser = command_parser(FLAGS, program="python benchmarks/real.py", description=__doc__)
    options, extra = parser.parse_known_args(argv)
    set_up_logging()
    text = Bench(options, extra).go()
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    run_main(main)
