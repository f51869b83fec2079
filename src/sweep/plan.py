# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What the sweep's flags ask for: numbers, folders, configuration files and words for train.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.model_utils.config import Config, to_plain
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.model_utils.set_names import split_shots

PROTOCOLS = ("fsrw", "tfa")
DEFAULT_CONFIGS: Mapping[str, str] = {
    "coco": "configs/coco/defrcn_{setting}_r101_novel_{shot}shot.yaml",
    "voc": "configs/voc/defrcn_{setting}_r101_novel{split}_{shot}shot.yaml",
}
# What the sweep sets itself, run by run.
RESERVED = (
    "config_path",
    "seed",
    "shot_seed",
    "save_checkpoint_path",
    "model_pretrained_path",
    "eval_checkpoint_path",
    "resume",
    "overwrite",
    "test.eval_at_end",
)
# Keys that cannot change a run's figures: where things are, what is logged and kept. Weights and
# data sets count by their content.
WITHOUT_EFFECT = (
    "device_id",
    "datasets_root",
    "coco_root",
    "train_mindrecord_dir",
    "test_mindrecord_dir",
    "backbone_pretrained_path",
    "model_pretrained_path",
    "pcb_modelpath",
    "save_checkpoint_path",
    "eval_checkpoint_path",
    "resume",
    "overwrite",
    "export_ckpt_file",
    "export_file_name",
    "export_file_format",
    "input_path",
    "result_path",
    "enable_modelarts",
    "data_url",
    "train_url",
    "checkpoint_url",
    "enable_profiling",
    "mindir_version",
    "img_height",
    "img_width",
    "restore_bbox",
    "watch",
    "profile",
    "modelarts",
    "data.num_workers",
    "data.wait_minutes",
    "test.eval_period",
    "test.eval_at_end",
    "test.visualize_images",
    "test.report",
    "test.report_before",
    "test.pcb.encoder",
    "test.pcb.cache_dir",
    "test.pcb.cache_features",
    "test.pcb.cache_gigabytes",
    "test.pcb.max_pixels",
    "log",
    "checkpoint",
)


@dataclass(frozen=True)
class Place:
    """Numbers of a run, and its folder.

    Attributes:
        shot: K, objects of a class.
        shot_seed: number of the K-shot set.
        seed: of the training.
        folder: everything of the run goes there.
    """

    shot: int
    shot_seed: int
    seed: int
    folder: Path


def places(
    root: Path, protocol: str, shots: Sequence[int], seeds: Sequence[int], shot_seed: int
) -> list[Place]:
    """Every run's numbers and folder, all shots of a seed before the next seed.

    So a table with every shot exists early, and becomes more certain.

    Args:
        root: the sweep's folder.
        protocol: "fsrw": set `shot_seed`, training seeds `seeds`; "tfa": set and training seed
            both from `seeds`.
        shots: K.
        seeds: see protocol.
        shot_seed: see protocol.
    """
    runs = []
    for seed in seeds:
        for shot in shots:
            chosen = shot_seed if protocol == "fsrw" else seed
            folder = root / f"{shot}shot_seed{chosen}"
            if protocol == "fsrw":
                folder = folder / f"repeat{seed}"
            runs.append(Place(shot, chosen, seed, folder))
    return runs


def config_files(templates: Sequence[str], shots: Sequence[int]) -> dict[int, str]:
    """The configuration file of each shot.

    Args:
        templates: one file for all, with `{shot}` in its name or not; or one for each shot.
        shots: K.

    Raises:
        InputError: their number fits neither.
    """
    if len(templates) == 1:
        return {shot: fill(templates[0], shot) for shot in shots}
    if len(templates) != len(shots):
        raise InputError(
            f"--config_path names {len(templates)} files for {len(shots)} shots; name one a shot, "
            "or one with {shot} in its name"
        )
    return dict(zip(shots, templates))


def fill(text: str, shot: int, shot_seed: int | None = None) -> str:
    """Put the numbers in place of `{shot}` and `{shot_seed}`."""
    text = text.replace("{shot}", str(shot))
    return text if shot_seed is None else text.replace("{shot_seed}", str(shot_seed))


def check_words(words: Sequence[str]) -> None:
    """Refuse flags for train.py that the sweep sets itself.

    Raises:
        InputError: naming the flag.
    """
    for word in words:
        key = word[2:].partition("=")[0] if word.startswith("--") else ""
        if key in RESERVED:
            raise InputError(f"--{key} is set by the sweep for each run; leave it out")


def check_sets(names: Sequence[str], place: Place) -> bool:
    """Check that training sets are those of a run's shot and seed.

    Returns:
        False if one is no K-shot set at all.

    Raises:
        InputError: one is of another shot or seed.
    """
    parsed = [split_shots(name) for name in names]
    for name, parts in zip(names, parsed):
        if parts and (parts[1] != place.shot or parts[2] not in (None, place.shot_seed)):
            raise InputError(
                f"data.train: {name} is not the {place.shot}-shot set {place.shot_seed} of this "
                "run; write {shot} and seedx, as in --data.train=[coco14_trainval_novel_"
                "{shot}shot_seedx], or name a file for each shot in --config_path"
            )
    return all(parsed)


def identity(settings: Mapping[str, Any], checksums: Mapping[str, str]) -> dict[str, Any]:
    """What decides a run's figures: the settings that have an effect, checksums of files.

    Args:
        settings: the whole configuration as plain values.
        checksums: SHA-256 of weights and data sets, by the key that names them.
    """

    def reduced(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            key: reduced(value, f"{prefix}{key}.") if isinstance(value, dict) else value
            for key, value in tree.items()
            if f"{prefix}{key}" not in WITHOUT_EFFECT
        }

    return {**reduced(settings, ""), "sha256": dict(sorted(checksums.items()))}


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored identity as this version writes it.

    Keys that it has and an older one had not get their defaults; those that are gone, or have no
    effect any more, are left out.
    """
    half = CustomSource(annotations="-", images="-")
    custom = to_plain(CustomDataset(format="coco", train=half, test=half))
    sets = dict(stored.get("data", {}).get("custom", {}))
    filled = _like(identity(to_plain(Config()), {}), stored)
    filled["data"]["custom"] = {name: _like(custom, entry) for name, entry in sets.items()}
    return {**filled, "sha256": stored.get("sha256", {})}


def _like(defaults: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of one tree with the values of another, where that has them."""
    merged = {}
    for key, value in defaults.items():
        old = stored.get(key, value)
        merged[key] = _like(value, old) if value and isinstance(value, dict) else old
    return merged
