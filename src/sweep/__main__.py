# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Fine-tune and evaluate over shots and seeds, with a table, a plot and 95 % intervals.

    python -m src.sweep --output DIR --dataset coco --setting fsod --protocol fsrw \
        --base_checkpoint checkpoints/coco/defrcn_det_r101_base/ckpt_0/defrcn-110000.ckpt

Runs `train.py` once for each shot and seed (it evaluates at its end), one after the other, and
writes `table.md`, `table.csv`, `runs.csv` and `plot.png` after each. Started again, it skips what
is finished and resumes what is not. Any --key=value is handed on to every run; `{shot}` and
`{shot_seed}` in it stand for the run's numbers.

Protocols: `fsrw` trains the K-shot set --shot_seed (0) with the training seeds --repeats (0-9);
`tfa` trains the K-shot sets of --seeds (0-9), each with its number as training seed.
Exit code: 0 all finished, or ended with q; 1 a run failed or is busy elsewhere; 128 + signal.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import math
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from src.assembly.data import content_digest
from src.assembly.encoder_files import encoder_identity, encoder_key, encoder_path
from src.assembly.schedule import real_schedule
from src.defrcn.built_datacategory import resolve_dataset
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.config import Config, load_config, require_path, to_plain
from src.model_utils.errors import InputError
from src.model_utils.interruption import Interrupted
from src.model_utils.paths import project_folder
from src.model_utils.processes import Supervisor
from src.sweep.loop import Orders, Runner
from src.sweep.paper_figures import METRICS, SHOTS
from src.sweep.plan import (
    DEFAULT_CONFIGS,
    PROTOCOLS,
    Place,
    check_sets,
    check_words,
    config_files,
    fill,
    identity,
    places,
)
from src.sweep.runs import KEEP, Run, locked
from src.sweep.surgery import METHODS, checkpoint_file, operate, reset_file
from src.sweep.table import RunFigures, Sweep
from src.util import numbers, run_main, set_up_logging, sha256_file

logger = logging.getLogger(__name__)

_KEEP_ALL = 1_000_000_000
_METRIC = re.compile(r"[bn]?AP(50|75|s|m|l)?")
FLAGS: Flags = {
    "--output": dict(required=True, type=Path, help="folder of the sweep"),
    "--dataset": dict(required=True, choices=("coco", "voc", "own")),
    "--setting": dict(required=True, choices=("fsod", "gfsod")),
    "--split": dict(type=int, default=0, choices=(0, 1, 2, 3), help="of VOC"),
    "--protocol": dict(choices=PROTOCOLS, default="tfa", help="see above"),
    "--shots": dict(help="such as 1,2,3,5,10,30, the default for COCO"),
    "--seeds": dict(help="tfa: K-shot sets, such as 0-9, the default"),
    "--repeats": dict(help="fsrw: training seeds, such as 0-9, the default"),
    "--shot_seed": dict(type=int, help="fsrw: the K-shot set, 0 by default"),
    "--config_path": dict(
        action="append",
        help="YAML with {shot} in its name, or once for each shot; default: the official one",
    ),
    "--metric": dict(help="figure of the table: nAP (nAP50 for VOC; AP without novel classes)"),
    "--test_set": dict(help="test set of the table, if the configuration names several"),
    "--keep_checkpoints": dict(choices=KEEP, default="last", help="of finished runs"),
    "--redo_changed": dict(action="store_true", help="make runs of other settings anew"),
    "--keep_going": dict(action="store_true", help="go on after a run that failed"),
    "--confirm": dict(action="store_true", help="ask Y/n/q before each run"),
    "--dry_run": dict(action="store_true", help="print the commands, write nothing"),
    "--progress_seconds": dict(type=float, default=60.0, help="between lines while a run works"),
    "--train_command": dict(help="instead of python train.py, such as a launcher's"),
}


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line; what is not the sweep's own is for `train.py`."""
    parser = command_parser(FLAGS, program="python -m src.sweep", description=__doc__)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--model_pretrained_path", help="checkpoint after surgery")
    start.add_argument("--base_checkpoint", help="base checkpoint; surgery is done first")
    options, words = parser.parse_known_args(argv)
    _check(options, words)
    return options, words


def _check(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Refuse what contradicts itself, and fill in defaults."""
    if (options.dataset == "voc") != (options.split > 0):
        raise InputError("--split 1, 2 or 3 goes with --dataset voc, and with it only")
    wrong = ("seeds",) if options.protocol == "fsrw" else ("repeats", "shot_seed")
    for name in wrong:
        if getattr(options, name) is not None:
            raise InputError(f"--{name} does not go with --protocol {options.protocol}")
    if options.dataset == "own" and not (options.shots and options.config_path):
        raise InputError("--dataset own needs --shots and --config_path")
    check_words(words)
    if options.metric and not _METRIC.fullmatch(options.metric):
        raise InputError(
            f"--metric {options.metric}: write AP, AP50, AP75, APs, APm or APl, of base or novel "
            "classes with b or n before it, such as nAP50"
        )
    options.shots = numbers(options.shots, "--shots") if options.shots else SHOTS[options.dataset]
    flag = "repeats" if options.protocol == "fsrw" else "seeds"
    options.training_seeds = numbers(getattr(options, flag) or "0-9", f"--{flag}")
    if 0 in options.shots:
        raise InputError("--shots: 0 shots cannot be trained")
    options.root = options.output / f"{options.protocol}-like"
    if not options.config_path:
        default = project_folder() / DEFAULT_CONFIGS[options.dataset]
        text = str(default).replace("{setting}", options.setting)
        options.config_path = [text.replace("{split}", str(options.split))]


def plan(
    options: argparse.Namespace, words: Sequence[str], start: Path
) -> tuple[list[Run], list[Config]]:
    """Read the configuration of every run.

    Args:
        options: of the sweep.
        words: flags for train.py.
        start: the checkpoint that training starts from.

    Raises:
        InputError: a configuration is wrong, or not for its run's shot and seed.
    """
    files = config_files(options.config_path, options.shots)
    runs, configs = [], []
    contents = _Contents(options.dry_run)
    warned = False
    for place in places(
        options.root,
        options.protocol,
        options.shots,
        options.training_seeds,
        options.shot_seed or 0,
    ):
        flags = [fill(word, place.shot, place.shot_seed) for word in words]
        flags += [
            f"--shot_seed={place.shot_seed}",
            f"--seed={place.seed}",
            f"--save_checkpoint_path={place.folder}",
            f"--model_pretrained_path={start}",
            "--test.eval_at_end=true",
            *_flags_of_folders(options, words, place.folder),
        ]
        config = load_config(files[place.shot], flags)
        if options.test_set and options.test_set not in config.data.test:
            raise InputError(
                f"--test_set: {options.test_set!r} is not in data.test of {files[place.shot]} "
                f"({', '.join(config.data.test)})"
            )
        if config.test.pcb.enable and not config.test.pcb.cache_dir:
            flags.append(f"--test.pcb.cache_dir={options.output / 'pcb_cache'}")
        if not check_sets(config.data.train, place) and not warned:
            logger.warning("data.train %s holds no K-shot set", list(config.data.train))
            warned = True
        command = (f"--config_path={files[place.shot]}", *flags)
        runs.append(_run(config, place, command, start, contents))
        configs.append(config)
    return runs, configs


def _flags_of_folders(options: argparse.Namespace, words: Sequence[str], folder: Path) -> list[str]:
    """Where the runs keep MindRecord and how many checkpoints, unless the user said so."""
    flags = {
        "train_mindrecord_dir": str(folder / "mindrecord"),
        "test_mindrecord_dir": str(options.output / "mindrecord" / "test"),
    }
    if options.keep_checkpoints == "all":
        flags["checkpoint.keep_last"] = str(_KEEP_ALL)
    given = {word[2:].partition("=")[0] for word in words}
    return [f"--{key}={value}" for key, value in flags.items() if key not in given]


def _run(
    config: Config,
    place: Place,
    flags: tuple[str, ...],
    start: Path,
    contents: _Contents,
) -> Run:
    cards = config.device_num if config.run_distribute else 1
    checksums = {
        "model_pretrained_path": _checksum(str(start)),
        **(_encoder(config, contents.dry_run) if config.test.pcb.enable else {}),
        "data.train": contents(config, config.data.train),
        "data.test": contents(config, config.data.test),
    }
    return Run(
        **vars(place),
        flags=flags,
        identity=identity(to_plain(config), checksums),
        iterations=real_schedule(config, cards).max_steps,
        images_per_iteration=config.solver.images_per_card * cards,
    )


def _encoder(config: Config, dry_run: bool) -> dict[str, str]:
    """The encoder's hash by the key that names it; now, and not when the first training has ended.

    Empty if there is no such file in a dry run.
    """
    key = encoder_key(config)
    try:
        return {key: _identity(str(encoder_path(config)), key)}
    except InputError:
        if not dry_run:
            raise
        return {key: ""}


@functools.lru_cache(maxsize=8)
def _identity(path: str, key: str) -> str:
    return encoder_identity(Path(path), key)


@functools.lru_cache(maxsize=8)
def _checksum(path: str) -> str:
    """Of a file or a folder's newest checkpoint; empty if there is none (in a dry run)."""
    return sha256_file(path) if Path(path).is_file() else ""


class _Contents:
    """Hashes of data sets; what several runs share is read once."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run = dry_run
        self._known: dict[str, str] = {}

    def __call__(self, config: Config, names: Sequence[str]) -> str:
        """See `content_digest`; empty if the data are not here in a dry run."""
        custom = {name: own.model_dump() for name, own in config.data.custom.items()}
        sampling = config.data.official_vocsplit_sampling
        key = json.dumps([names, custom, config.datasets_root, config.coco_root, sampling])
        if key not in self._known:
            try:
                self._known[key] = content_digest(config, names)
            except InputError:
                if not self.dry_run:
                    raise
                self._known[key] = ""
        return self._known[key]


def describe(
    options: argparse.Namespace, config: Config, test_set: str, found: RunFigures, note: str
) -> Sweep:
    """What the table is about: metric and novel classes, once a first run is finished."""
    default = METRICS.get(options.dataset, "nAP")
    if default not in found.results:
        default = default[1:]  # no split: AP instead of nAP
    return Sweep(
        dataset=options.dataset,
        setting=options.setting,
        split=options.split,
        protocol=options.protocol,
        metric=options.metric or default,
        test_set=test_set,
        novel_classes=resolve_dataset(test_set, custom=config.data.custom).novel_classes,
        protocol_note=note,
    )


def starting_point(
    options: argparse.Namespace, words: Sequence[str], supervisor: Supervisor
) -> Path:
    """The checkpoint that every run starts from; surgery is done if it is asked for."""
    if options.model_pretrained_path:
        what = "give a detector's .ckpt file after surgery"
        path = options.model_pretrained_path
        return require_path("--model_pretrained_path", path, what, kind="file")
    base = require_path(
        "--base_checkpoint", options.base_checkpoint, "give a base detector's .ckpt"
    )
    method = METHODS[options.setting]
    folder = options.output / "surgery"
    if options.dry_run:
        return reset_file(folder, method)
    dataset, flags = options.dataset, []
    if dataset == "own":
        # the classes are those of any shot's configuration
        dataset = fill(options.config_path[0], options.shots[0])
        of_first = (options.shots[0], options.shot_seed or options.training_seeds[0])
        flags = [fill(word, *of_first) for word in words]
    return operate(
        supervisor,
        checkpoint_file(base),
        dataset=dataset,
        method=method,
        folder=folder,
        flags=flags,
        redo_changed=options.redo_changed,
    )


def sweep(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Plan, then run what is not finished, or say what would be run; return the exit code."""
    # the group: a command may start others; a training ends when its step is saved
    supervisor = Supervisor(lambda pids: [-pid for pid in pids], grace_seconds=math.inf)
    runs, configs = plan(options, words, starting_point(options, words, supervisor))
    train = [sys.executable, str(project_folder() / "train.py")]
    orders = Orders(
        root=options.root,
        command=shlex.split(options.train_command) if options.train_command else train,
        keep=options.keep_checkpoints,
        redo_changed=options.redo_changed,
        keep_going=options.keep_going,
        confirm=options.confirm,
        test_set=options.test_set,
        tick_seconds=options.progress_seconds,
    )
    about = functools.partial(describe, options, configs[0])
    runner = Runner(orders, runs, supervisor, about)
    return runner.rehearse() if options.dry_run else runner.go()


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line; one sweep at a time in a folder."""
    options, words = parse(argv)
    set_up_logging()
    try:
        with contextlib.nullcontext() if options.dry_run else locked(options.root):
            return sweep(options, words)
    except Interrupted as event:
        logger.warning("ended by %s; the same command goes on from here", event)
        return event.code


if __name__ == "__main__":
    run_main(main)
