# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Every few-shot configuration, and VOC's base ones, against the official settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from src.defrcn.built_datacategory import resolve_dataset
from src.model_utils.config import load_config, to_plain
from src.model_utils.errors import InputError
from tests.model_utils.test_config import OFFICIAL, ROOT, pick

CFG = ROOT / "tests" / "golden" / "cfg"
SUMMARY = json.loads((CFG / "summary.json").read_text())
OURS = {name: (key, convert) for key, (name, convert) in OFFICIAL.items()}


def our_files(official: str) -> list[tuple[Path, str]]:
    """Our files for an official one, with the split that the official placeholder stands for."""
    name = official.replace("_seedx", "")
    if "novelx" not in name:
        return [(ROOT / "configs" / name, "")]
    return [(ROOT / "configs" / name.replace("novelx", f"novel{i}"), str(i)) for i in (1, 2, 3)]


def resolved(value, number: str, seed: int):
    """An official value with its placeholders for split and seed replaced."""
    if not isinstance(value, tuple) or not all(isinstance(entry, str) for entry in value):
        return value
    value = tuple(entry.replace("seedx", f"seed{seed}") for entry in value)
    for stem in ("novel", "all"):
        value = tuple(entry.replace(f"{stem}x", f"{stem}{number}") for entry in value)
    return value


CASES = [(official, *found) for official in sorted(SUMMARY) for found in our_files(official)]


def test_there_are_as_many_files_as_official_ones():
    shots = [path for _, path, _ in CASES if "shot" in path.name]
    assert len(shots) == 2 * 6 + 2 * 3 * 5
    assert len(CASES) == len(shots) + 1 + 3
    written = set((ROOT / "configs" / "coco").glob("d*.yaml"))
    written |= set((ROOT / "configs" / "voc").glob("d*.yaml"))
    assert written == {path for _, path, _ in CASES}


@pytest.mark.parametrize(("official", "path", "number"), CASES, ids=[p.stem for _, p, _ in CASES])
def test_settings_that_differ_between_files(official, path, number):
    config = load_config(path, ["--seed=3"])
    for name, value in SUMMARY[official].items():
        if name == "MODEL.BACKBONE.FREEZE":
            assert value is False
            continue
        key, convert = OURS[name]
        assert pick(config, key) == resolved(convert(value), number, 3), (key, name)


FULL = [
    (full, path, number)
    for full in sorted(CFG.glob("*.yaml"))
    for _, path, number in CASES
    if path.stem == full.stem.partition("_")[2].replace("novelx", f"novel{number}")
    and path.parent.name == full.stem.partition("_")[0]
]


def test_every_whole_file_is_used():
    assert {full for full, _, _ in FULL} == set(CFG.glob("*.yaml"))
    assert len(FULL) == 3 + 3 + 2 * 3


@pytest.mark.parametrize(("full", "path", "number"), FULL, ids=[p.stem for _, p, _ in FULL])
def test_all_settings(full, path, number):
    official = yaml.safe_load(full.read_text())
    config = load_config(path)
    for key, (name, convert) in OFFICIAL.items():
        assert pick(config, key) == resolved(convert(pick(official, name)), number, 0), (key, name)


@pytest.mark.parametrize("path", [p for _, p, _ in CASES], ids=lambda path: path.stem)
def test_names_are_known_and_fit_the_network(path):
    config = load_config(path)
    for name in (*config.data.train, *config.data.test):
        assert len(resolve_dataset(name).class_names) == config.model.num_classes
    assert path.stem in config.save_checkpoint_path


def test_folders_are_not_shared():
    """No two files write to the same folder, and no two seeds of one file."""
    runs, data = [], {}
    for _, path, _ in CASES:
        for flags in (["--shot_seed=1"], ["--shot_seed=2"]) if "shot" in path.name else ([],):
            config = load_config(path, flags)
            runs.append(config.save_checkpoint_path)
            for names, folder in (
                (config.data.train, config.train_mindrecord_dir),
                (config.data.test, config.test_mindrecord_dir),
            ):
                assert data.setdefault(folder, names) == names
    assert len(set(runs)) == len(runs)


def test_a_handful_of_lines():
    for _, path, _ in CASES:
        if "shot" in path.name:
            lines = [line for line in path.read_text().splitlines() if line.strip()]
            assert len(lines) <= 10


# --- the placeholder


def load(tmp_path, text, *flags):
    (tmp_path / "run.yaml").write_text(text)
    return load_config(tmp_path / "run.yaml", flags)


TEXT = """
data: {train: [coco14_trainval_novel_5shot_seedx], test: [a_test_all, x_train_all_1shot_seedx]}
save_checkpoint_path: runs/seedx/5shot_seedx
train_mindrecord_dir: m/myseedx/seedxy
"""


@pytest.mark.parametrize(
    ("flags", "number"),
    [
        ([], 0),
        (["--seed=4"], 4),
        (["--seed=4", "--shot_seed=2"], 2),
        (["--shot_seed=0", "--seed=4"], 0),
    ],
)
def test_placeholder(tmp_path, flags, number):
    config = load(tmp_path, TEXT, *flags)
    assert config.data.train == (f"coco14_trainval_novel_5shot_seed{number}",)
    assert config.data.test == ("a_test_all", f"x_train_all_1shot_seed{number}")
    assert config.save_checkpoint_path == f"runs/seed{number}/5shot_seed{number}"
    assert config.train_mindrecord_dir == "m/myseedx/seedxy"
    assert "shot_seedx" not in json.dumps(to_plain(config))


def test_placeholder_in_flags(tmp_path):
    flags = ["--data.train=[coco14_trainval_all_1shot_seedx]", "--shot_seed=7"]
    flags += ["--eval_checkpoint_path=runs/seedx", "--result_path=out_seedx"]
    config = load(tmp_path, TEXT, *flags)
    assert config.data.train == ("coco14_trainval_all_1shot_seed7",)
    assert (config.eval_checkpoint_path, config.result_path) == ("runs/seed7", "out_seed7")


def test_a_set_that_does_not_exist(tmp_path):
    config = load(tmp_path, TEXT, "--seed=4321")
    with pytest.raises(InputError, match=r"seed 4321 does not exist, only 0 to 9; .*--shot_seed"):
        resolve_dataset(config.data.train[0])
