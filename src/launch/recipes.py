# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What the launchers in scripts/ do: folders, configurations and commands of an experiment.

    python -m src.launch.recipes SCRIPT CALLER STAGE MODE TARGET [words of the launcher]

for scripts/lib_launch.sh. SCRIPT is the launcher's name, CALLER the folder that it was called in,
STAGE train, eval_pretrain, finetune or eval_finetune, MODE standalone or distribute, TARGET
Ascend, GPU or CPU. Everything goes below checkpoints/DATASET/EXP_NAME; nothing is ever removed
there. Variables: DRY_RUN=1 prints the commands and does nothing; DEVICE_ID is the card of a
standalone launcher; RANK_TABLE_FILE and MPIRUN_ARGS are those of `python -m src.launch`.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from src.launch import __main__ as launcher
from src.model_utils.errors import InputError
from src.model_utils.paths import CHECKPOINTS, project_folder
from src.util import numbers, run_main

OFFICIAL = ("coco", "voc")
_ALL = ("train", "eval_pretrain", "finetune", "eval_finetune")
_NOVEL = ("finetune", "eval_finetune")
_LIST = r"\d+(-\d+)?(,\d+(-\d+)?)*"
# Option: launchers that have it, its form, what its value looks like, help.
OPTIONS = {
    "dataset": (_ALL, "coco|voc|NAME", r"[A-Za-z0-9][A-Za-z0-9_-]*",
                "data set (default: coco); NAME: one's own, with --config_path"),
    "split": (_ALL, "1|2|3", "[123]", "of VOC (default: 1)"),
    "config_path": (_ALL, "FILE", ".+",
                    "instead of the data set's own configuration; {shot} in it stands for K, "
                    "{setting} for fsod or gfsod"),
    "checkpoints": (_ALL, "DIR", ".+",
                    "folder of all results (default: checkpoints in the project)"),
    "setting": (_NOVEL, "fsod|gfsod|both", "fsod|gfsod|both", "(default: both)"),
    "shots": (_NOVEL, "1,2,3,5,10,30", _LIST, "(default: all)"),
    "seeds": (_NOVEL, "0-9", _LIST,
              "fsrw: seeds of the repeats; tfa: K-shot sets (default: 0-9; evaluation: all runs "
              "that have a checkpoint)"),
    "protocol": (_NOVEL, "fsrw|tfa", "fsrw|tfa", "(default: fsrw for fsod, tfa for gfsod)"),
    "base_checkpoint": (("finetune",), "PATH", ".+", "(default: the experiment's own)"),
    "model_pretrained_path": (("finetune",), "PATH", ".+", "or a checkpoint after surgery"),
    "result_path": (("eval_pretrain",), "DIR", ".+", "(default: a new folder in the experiment's)"),
}  # fmt: skip
# Keys of the configuration that go on to train.py; the other stages have no use for them.
TRAINING_ONLY = ("resume", "overwrite", "model_pretrained_path")
_CLUSTER = tuple(flag[2:] for flag in launcher.CLUSTER_FLAGS)
_NEVER_EMPTY = ("dataset", "checkpoints", "setting")
_OF_THE_LAUNCHER = ("device_target", "save_checkpoint_path", "eval_checkpoint_path")
_EPILOG = {
    "train": "  --resume=true          go on with the experiment's training\n"
    "  --overwrite=true       move it to a folder beside it, and begin anew\n",
    "finetune": "  and the flags of python -m src.sweep, such as --keep_going or "
    "--keep_checkpoints=none\n",
}
_KEYS = """  --key=value            any key of the configuration, such as --solver.base_lr=0.01
Relative paths start at the project's folder. DRY_RUN=1 prints the commands only.
"""


class _Form(argparse.RawDescriptionHelpFormatter):
    """Writes an option as --name=FORM."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return str(action.dest)
        form = f"={action.metavar}" if action.metavar else ""
        return f"{action.option_strings[-1]}{form}"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong first, and then how it is done."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"error: {message}\n{self.format_help()}")
        sys.exit(2)


class Experiment:
    """One call of a launcher, read and checked.

    Args:
        script: the launcher's name, for messages.
        caller: folder that it was called in.
        stage: what it does.
        mode: "standalone" or "distribute".
        target: the device.
        words: its command line.
    """

    def __init__(
        self, script: str, caller: str, stage: str, mode: str, target: str, words: Sequence[str]
    ) -> None:
        self.script, self.stage, self.mode, self.target = script, stage, mode, target
        self._parser = self._make_parser()
        self.name = "defrcn"
        if words and not words[0].startswith("-"):
            self.name, words = words[0], words[1:]
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_. +=-]*", self.name):
            self._parser.error(
                f"EXP_NAME '{self.name}' may hold letters, digits, spaces and _ . + = -"
            )
        for word in words:
            if not re.match("--.|-h$", word):
                self._parser.error(f"'{word}' is not an option; write --key=value")
        self.options, self.words = self._parser.parse_known_args(words)
        self._refuse_words()
        self._check_values()
        self.options.config_path = _from_caller(self.options.config_path, Path(caller))
        self._start = self._start_words()
        self._net = "_r101" if self.options.dataset in OFFICIAL else ""
        self.split = self.options.split or ("1" if self.options.dataset == "voc" else "")
        self.root = (
            f"{self.options.checkpoints or 'checkpoints'}/{self.options.dataset}/{self.name}"
        )
        self.base = f"{self.root}/defrcn_det{self._net}_base{self.split}"
        self.stamp = time.strftime("%Y%m%d-%H%M%S")

    def _make_parser(self) -> _Parser:
        several = self.mode == "distribute" or self.stage.startswith("eval")
        parser = _Parser(
            usage=f"bash scripts/{self.script} [EXP_NAME] [options] [--key=value ...]",
            description="  EXP_NAME               name of the experiment (default: defrcn)",
            formatter_class=functools.partial(_Form, max_help_position=36, width=100),
            allow_abbrev=False,
            epilog=_EPILOG.get(self.stage, "") + _KEYS,
        )
        for flag, settings in launcher.CLUSTER_FLAGS.items() if several else ():
            parser.add_argument(flag, **settings)
        for name, (stages, form, _, text) in OPTIONS.items():
            if self.stage in stages:
                parser.add_argument(f"--{name}", metavar=form, help=text)
        if several:
            text = f"cards of this machine (default: {self._default_cards()})"
            parser.add_argument("--device_num", "--cards", dest="cards", metavar="N", help=text)
        parser.set_defaults(**dict.fromkeys(_CLUSTER), dataset="coco")
        return parser

    def _default_cards(self) -> int:
        if self.mode == "standalone":
            return 1
        return 2 if self.target == "CPU" else 8

    def _refuse_words(self) -> None:
        """Refuse what is left for the program but is no flag of it here."""
        for word in self.words:
            name = word[2:].partition("=")[0]
            if name in _OF_THE_LAUNCHER:
                self._parser.error(f"--{name} is set by the launcher")
            if name in (*_CLUSTER, "cards", "device_num"):
                other = self.script.replace("standalone", "distribute")
                self._parser.error(f"a standalone launcher has one card; use scripts/{other}")
            passed_on = self.stage == "train" and name in TRAINING_ONLY
            if name in (*OPTIONS, *TRAINING_ONLY) and not passed_on:
                self._parser.error(f"--{name} is no option of {self.script}")

    def _check_values(self) -> None:
        options, fail = self.options, self._parser.error
        for name, (_, form, pattern, _) in {**OPTIONS, "cards": ((), "8", r"[1-9]\d*", "")}.items():
            value = getattr(options, name, None)
            # an empty one is one that was not given, but for those that have a default here
            if (value or value == "" and name in _NEVER_EMPTY) and not re.fullmatch(pattern, value):
                advice = (
                    f"one of {form.replace('|', ' ')}" if "|" in form else f"a value such as {form}"
                )
                fail(f"--{name}={value}: give {advice}")
        if options.split and options.dataset != "voc":
            fail("--split goes with --dataset=voc")
        if options.dataset not in OFFICIAL and not options.config_path:
            fail(f"--dataset={options.dataset} needs --config_path")
        if self.stage == "finetune":
            if getattr(options, "node_rank", None) is not None:
                fail("fine-tuning uses the cards of one machine; give each machine other --seeds")
            if options.dataset not in OFFICIAL and not options.shots:
                fail("one's own data needs --shots")

    def _start_words(self) -> list[str]:
        """Flags for src.launch that say how many processes."""
        pairs = ((name, getattr(self.options, name, None)) for name in _CLUSTER)
        flags = {name: value for name, value in pairs if value is not None}
        cards = int(getattr(self.options, "cards", None) or self._default_cards())
        self.cards = flags.get("worker_num", cards)
        if self.mode == "distribute" or cards > 1:
            flags = {"worker_num": cards, **flags}
        elif flags:
            self._parser.error(f"--{next(iter(flags))} needs --cards")
        return [f"--device_target={self.target}", *(f"--{key}={flags[key]}" for key in flags)]

    def _device(self) -> list[str]:
        """Flags of a program: the device, and the card of a single process."""
        flags = [f"--device_target={self.target}"]
        card = os.environ.get("DEVICE_ID")
        if card and self.mode == "standalone" and self.target != "CPU":
            if not any(word.startswith("--device_id=") for word in self.words):
                flags.append(f"--device_id={card}")
        return flags

    def _program(self, log_dir: str, program: str, config: str, *flags: str) -> list[str]:
        """Words for src.launch that run train.py or eval.py."""
        log = f"--log_dir={log_dir}/logs"
        config_path = f"--config_path={config}"
        return [*self._start, log, program, config_path, *self._device(), *flags, *self.words]

    def _base_config(self) -> str:
        options = self.options
        default = f"configs/{options.dataset}/defrcn_det{self._net}_base{self.split}.yaml"
        return str(options.config_path or default)

    def train(self) -> Iterator[list[str]]:
        """The base detector."""
        place = f"--save_checkpoint_path={self.base}"
        yield self._program(self.base, "train.py", self._base_config(), place)

    def eval_pretrain(self) -> Iterator[list[str]]:
        """The base detector's evaluation."""
        yield self._program(
            self.base,
            "eval.py",
            self._base_config(),
            f"--save_checkpoint_path={self.base}",
            f"--eval_checkpoint_path={self.base}",
            f"--result_path={self.options.result_path or f'{self.base}/eval-{self.stamp}'}",
        )

    def _settings(self) -> Iterator[tuple[str, str, str]]:
        """Each setting with its protocol and the folder of its runs."""
        chosen = self.options.setting or "both"
        for setting in ("fsod", "gfsod") if chosen == "both" else (chosen,):
            protocol = self.options.protocol or ("fsrw" if setting == "fsod" else "tfa")
            folder = f"{self.root}/defrcn_{setting}{self._net}_novel{self.split}"
            yield setting, protocol, folder

    def finetune(self) -> Iterator[list[str]]:
        """A sweep for each setting."""
        options = self.options
        for setting, protocol, folder in self._settings():
            start = "model_pretrained_path" if options.model_pretrained_path else "base_checkpoint"
            flags = {
                "output": folder,
                "dataset": options.dataset if options.dataset in OFFICIAL else "own",
                "setting": setting,
                "protocol": protocol,
                "split": self.split,
                "shots": options.shots,
                "repeats" if protocol == "fsrw" else "seeds": options.seeds,
                "config_path": (options.config_path or "").replace("{setting}", setting),
                start: getattr(options, start) or self.base,
            }
            words = [f"--{name}={value}" for name, value in flags.items() if value]
            if self.mode == "distribute":
                train = str(project_folder() / "train.py")
                command = shlex.join([sys.executable, "-m", "src.launch", *self._start, train])
                words += [f"--train_command={command}", "--run_distribute=true"]
                words.append(f"--device_num={self.cards}")
            yield [f"--log_dir={folder}/logs", "src.sweep", *words, *self._device(), *self.words]

    def eval_finetune(self) -> Iterator[list[str]]:
        """Every fine-tuned run that has a checkpoint.

        Raises:
            InputError: there is none.
        """
        found = 0
        for setting, protocol, novel in self._settings():
            for folder, shot, number, seed in self._runs(f"{novel}/{protocol}-like"):
                found += 1
                title = f"{setting}, {shot}-shot, set {number}, seed {seed}"
                sys.stdout.write(f"== {title}: {folder}\n")
                name = f"defrcn_{setting}{self._net}_novel{self.split}_{shot}shot.yaml"
                config = self.options.config_path or f"configs/{self.options.dataset}/{name}"
                yield self._program(
                    str(folder),
                    "eval.py",
                    config.replace("{shot}", str(shot)).replace("{setting}", setting),
                    f"--shot_seed={number}",
                    f"--seed={seed}",
                    f"--save_checkpoint_path={folder}",
                    f"--eval_checkpoint_path={folder}",
                    f"--test_mindrecord_dir={novel}/mindrecord/test",
                    f"--result_path={folder}/eval-{self.stamp}",
                )
        if not found:
            first = self.script.replace("eval", "standalone")
            raise InputError(
                f"no fine-tuned checkpoint in {self.root} for these options; run {first} first"
            )

    def _runs(self, root: str) -> list[tuple[Path, int, int, int]]:
        """Folder, shot, K-shot set and training seed of the wanted runs with a checkpoint."""
        wanted_shots, wanted_seeds = (
            numbers(text, flag) if text else None
            for text, flag in ((self.options.shots, "--shots"), (self.options.seeds, "--seeds"))
        )
        runs = []
        for folder in (*Path(root).glob("*"), *Path(root).glob("*/repeat*")):
            name = folder.relative_to(root).as_posix()
            match = re.fullmatch(r"(\d+)shot_seed(\d+)(?:/repeat(\d+))?", name)
            if match and any(folder.glob(f"{CHECKPOINTS}/defrcn-*.json")):
                shot, number = int(match[1]), int(match[2])
                seed = int(match[3] or number)
                if shot in (wanted_shots or (shot,)) and seed in (wanted_seeds or (seed,)):
                    runs.append((folder, shot, number, seed))
        return sorted(runs, key=lambda run: run[1:])


def _from_caller(path: str | None, caller: Path) -> str | None:
    """A file's name as the caller meant it: from the caller's folder if it is there."""
    if not path:
        return None
    place = caller / path
    return str(place) if place.exists() or ("{" in path and place.parent.is_dir()) else path


def main(argv: Sequence[str] | None = None) -> int:
    """Run a launcher's commands one after the other; the first that fails is the last."""
    script, caller, stage, mode, target, *words = sys.argv[1:] if argv is None else argv
    experiment = Experiment(script, caller, stage, mode, target, words)
    dry_run = os.environ.get("DRY_RUN")
    if not dry_run and importlib.util.find_spec("mindspore") is None:
        raise InputError(
            f"{sys.executable} has no MindSpore; run bash scripts/setup_env.sh, or set PYTHON"
        )
    for command in getattr(experiment, stage)():
        if dry_run:
            sys.stdout.write(f"{shlex.join([sys.executable, '-m', 'src.launch', *command])}\n")
        elif code := launcher.main(command):
            return code
    return 0


if __name__ == "__main__":
    run_main(main)
