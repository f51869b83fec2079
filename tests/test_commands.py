# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Every command that is shown anywhere is one that its program takes, and its configuration loads.

Documents, comments of YAML files and scripts, and docstrings are searched. A command goes through
the program's own parser, which then stops the program; a launcher is rehearsed (DRY_RUN=1), and
what it would run is checked in turn. No data is read.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from src.model_utils.config import Config, describe_keys, load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.sweep.plan import DEFAULT_CONFIGS

ROOT = project_folder()
COMMAND = r"(?:[A-Z_]+=\S+ )*(?:(?:\.venv/bin/)?python[\d.]*|bash|ascend310_infer/out/main) \S"
# What stands for a file or a number of the reader's.
PLACEHOLDERS = {"FILE": "configs/defrcn_base.yaml", "CONFIG": "configs/defrcn_base.yaml"}
PLACEHOLDERS |= {"configs/mine.yaml": "configs/defrcn_base.yaml", "H": "608", "W": "1008"}
OTHERS = {"pip", "venv", "ruff", "mypy", "pytest"}  # programs that are not ours
LAUNCHER = re.compile(r"scripts/run_(standalone|distribute|eval)_\w+\.sh")
DEPLOYMENT = "scripts/run_infer_310.sh"
# Flags of other programs (converter_lite, TensorBoard, msrun, docker), or of none.
FOREIGN = {"bind_core", "gpus", "key", "fmk", "modelFile", "outputFile", "saveType"}
FOREIGN |= {"optimize", "logdir"}


def documents() -> list[str]:
    """Files that show commands."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if not done.stdout:
        pytest.skip("no git checkout", allow_module_level=True)
    return [
        name
        for name in done.stdout.splitlines()
        if name.endswith((".md", ".yaml", ".sh"))
        or (name.endswith(".py") and not name.startswith("tests"))
        # the launchers' headers show no arguments; tests/launch rehearses all of them
        if (ROOT / name).is_file() and not LAUNCHER.fullmatch(name)
    ]


def shown_in(name: str) -> str:
    """What a document says: all of a Markdown file, comments of others, docstrings of modules."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        return ast.get_docstring(ast.parse(text)) or ""
    if name.endswith(".md"):
        return text
    return "\n".join(line for line in text.splitlines() if line.lstrip().startswith("#"))


def commands_of(text: str) -> list[str]:
    """Commands at the start of a line or of a span of code, continuation lines joined."""
    text = re.sub(r"^[ \t]*#[ \t]*", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    for name, words in re.findall(r"^(\w+)=\(([^)]*)\)", text, re.MULTILINE):
        text = text.replace(f'"${{{name}[@]}}"', " ".join(words.split()))
    lines = [line.strip() for line in text.splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return [found for found in (*lines, *spans) if re.match(COMMAND, found)]


def words_of(command: str) -> list[str]:
    """The words of a command without what may be left out, comments and variables."""
    command = re.sub(r"(?<!\S)\[(--[\w.]+=[^\]\s]+)\](?!\S)", r"\1", command)
    command = re.sub(r"(?<!\S)(\[[^\]]*\]|\([^)]*\)|…|\.\.\.)(?!\S)", "", command)
    words = shlex.split(re.split(r"\s(?:&&|\||>|;)\s", command)[0], comments=True)
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return [filled(word) for word in words]


def filled(word: str) -> str:
    """A word with a value for each placeholder."""
    flag, equals, value = word.rpartition("=")
    return f"{flag}{equals}{PLACEHOLDERS.get(value, value)}"


class Parsed(BaseException):
    """Raised where a program has read its command line."""


real_parse = argparse.ArgumentParser.parse_known_args


def stop_after_parsing(parser, args=None, namespace=None, *, strict=False):
    found, rest = real_parse(parser, args, namespace)
    if strict and rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    raise Parsed(found, rest)


@pytest.fixture
def parsers(monkeypatch):
    """Programs end where they have read their command line; logging stays as it was."""
    strict = functools.partialmethod(stop_after_parsing, strict=True)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", strict)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop_after_parsing)
    monkeypatch.chdir(ROOT)
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def check(words: list[str]) -> None:
    """Fail if a command's program would not take it."""
    if words[0].endswith("out/main"):
        sources = "".join(path.read_text() for path in (ROOT / "ascend310_infer").rglob("*.cc"))
        for flag in flags(words):
            assert re.search(rf"DEFINE_\w+\({flag},", sources), flag
    elif words[0] == "bash":
        check_script(words[1], words[2:])
    elif words[1] == "-m":
        check_program(words[2], words[3:])
    else:
        check_program(words[1].removesuffix(".py").replace("/", "."), words[2:])


def flags(words: list[str]) -> list[str]:
    return [word[2:].partition("=")[0] for word in words if word.startswith("--")]


def check_script(path: str, words: list[str]) -> None:
    assert (ROOT / path).is_file(), path
    if LAUNCHER.fullmatch(path):
        rehearse(path, words)
    elif path == DEPLOYMENT and words:
        with tempfile.NamedTemporaryFile() as model:
            config = PLACEHOLDERS["FILE"] if words[2].isupper() else words[2]
            device = "CPU" if words[3].startswith("DEVICE") else words[3]
            size = [word for word in words[4:6] if word.isdecimal()] or ["608", "608"]
            rehearse(path, [model.name, str(Path(model.name).parent), config, device, *size])
    else:
        content = (ROOT / path).read_text()
        assert all(f"--{flag}" in content for flag in flags(words)), (path, words)


def rehearse(path: str, words: list[str]) -> None:
    """Check what a script says that it would run."""
    environment = {**os.environ, "DRY_RUN": "1", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(ROOT / path), *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rehearsed = [shlex.split(line) for line in done.stdout.splitlines()]
    rehearsed = [found for found in rehearsed if found and "python" in Path(found[0]).name]
    assert rehearsed, done.stdout
    for found in rehearsed:
        check(found)


def check_program(name: str, words: list[str]) -> None:
    if name in OTHERS or name.endswith(".NAME"):
        return
    place = ROOT / name.replace(".", "/")
    file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    assert file.is_file(), f"there is no {name}"
    if name.startswith(("benchmarks", "tests")):
        text = file.read_text()
        own = {flag for flag in flags(words) if f'"--{flag}"' in text}
        rest = [
            word
            for word in words
            if word.startswith("--") and word[2:].partition("=")[0] not in own
        ]
        if rest:  # a configuration's, handed on
            assert "parse_known_args" in text, rest
            check_configuration(argparse.Namespace(), rest)
        return
    if not words:
        return  # named, not shown
    module = importlib.import_module(f"{name}.__main__" if place.is_dir() else name)
    try:
        module.main(words)
    except Parsed as parsed:
        options, rest = parsed.args
    if name == "src.launch":
        check([sys.executable, options.program, *options.words])
    else:
        check_configuration(options, rest)


def check_configuration(options: argparse.Namespace, rest: list[str]) -> None:
    """Load what a program would load, if it would."""
    given = [word for word in rest if word.startswith("--config_path=")]
    rest = [word for word in rest if word not in given]
    path = getattr(options, "config_path", None) or PLACEHOLDERS["FILE"]
    path = given[0].partition("=")[2] if given else path
    dataset = str(getattr(options, "dataset", ""))
    if hasattr(options, "protocol"):  # the sweep
        paths = options.config_path or [DEFAULT_CONFIGS[dataset]]
        values = {"setting": options.setting, "split": options.split, "shot": 1}
        path = paths[0].format(**values)
        rest = [word.replace("{shot}", "1") for word in rest]
    elif dataset.endswith(".yaml"):  # surgery
        path = dataset
    assert isinstance(load_config(path, rest), Config)


@pytest.mark.usefixtures("parsers")
@pytest.mark.parametrize("name", documents())
def test_commands_are_taken(name):
    for command in commands_of(shown_in(name)):
        try:
            check(words_of(command))
        except (SystemExit, InputError, AssertionError) as error:
            if isinstance(error, SystemExit) and error.code == 0:
                continue  # --help
            pytest.fail(f"{name} shows: {command}\n{type(error).__name__}: {error}")


def test_commands_are_found():
    """The extraction sees what a reader sees: blocks, spans over lines, comments, arrays."""
    shown = {name: commands_of(shown_in(name)) for name in documents()}
    assert sum(map(len, shown.values())) > 100
    assert len(shown["README.md"]) > 25
    assert len(shown["README.md"]) == len(shown["README_CN.md"])
    for name, first, last in (
        ("README.md", "python -m src.sweep --output=", "--base_checkpoint="),
        ("docs/evaluation.md", "python -m src.tools.report --config_path=FILE", "--output=DIR"),
        ("docs/deployment.md", "python export.py --config_path=", "--img_height=208"),
        ("configs/coco/defrcn_det_r101_base.yaml", "python eval.py", "--eval_checkpoint_path"),
        ("src/model_surgery.py", "python -m src.model_surgery", "--src-path"),
        ("scripts/run_tests.sh", "bash scripts/run_tests.sh", ""),
    ):
        assert any(one.startswith(first) and last in one for one in shown[name]), (name, first)


@pytest.mark.usefixtures("parsers")
@pytest.mark.parametrize(
    "command",
    [
        "python train.py --config_path=configs/demo/shapes_base.yaml --solver.max_iter=100",
        "python train.py --config_path=configs/nowhere.yaml",
        "python train.py --config_path=FILE --solver.max_itre=100",
        "python -m src.nowhere --config_path=FILE",
        "python -m src.tools.prepare_coco --sauce=DIR",
        "python -m src.tools.report --config_path=FILE --detections=d.json",
        "python -m src.sweep --output=o --dataset=coco --setting=fsod --protocol=fsrw --nothing=1",
        "bash scripts/run_standalone_train_cpu.sh my_exp --solver.max_iter=100",
        "bash scripts/run_standalone_train_cpu.sh my_exp --nothing=100",
        "bash scripts/setup_env.sh --nothing",
        "ascend310_infer/out/main --nothing=1",
        "python benchmarks/bundle.py --output=o --config_path=configs/demo/shapes_base.yaml --no=1",
    ],
)
def test_what_a_program_refuses_is_noticed(command):
    with pytest.raises((SystemExit, InputError, AssertionError)):
        check(words_of(command))


@pytest.mark.parametrize("name", [name for name in documents() if name.endswith(".md")])
def test_flags_in_the_text_exist(name):
    """Those with a dot are keys; the others occur in some program."""
    keys = set(re.findall(r"^  --([\w.]+)=", describe_keys(), re.MULTILINE))
    keys |= {key.rpartition(".")[0] for key in keys}
    sources = all_sources()
    for flag in re.findall(r"(?<![\w-])--([a-z][\w.-]*\w)", (ROOT / name).read_text("utf-8")):
        known = flag in keys | FOREIGN or ("." not in flag and f"--{flag}" in sources)
        assert known or re.search(rf"DEFINE_\w+\({flag},", sources), flag


@functools.lru_cache(maxsize=1)
def all_sources() -> str:
    names = [name for name in documents() if name.endswith((".py", ".sh"))]
    paths = [*map(ROOT.joinpath, names), *(ROOT / "ascend310_infer").rglob("*.cc")]
    paths += [*(ROOT / "tests" / "helpers").glob("*.py"), ROOT / ".ci" / "run"]
    return "".join(path.read_text(encoding="utf-8") for path in paths)
