# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Checkpoints on disk: plain weights, the training state beside them, a manifest that binds both.

A checkpoint of step 500 is three files in one folder:

    defrcn-500.ckpt        weights, a MindSpore checkpoint with CRC
    defrcn-500.state.npz   optimizer, data position, random state: a zip of arrays
    defrcn-500.json        manifest: sizes and SHA-256 of the two, written last

Only a manifest whose files are present and unchanged makes a checkpoint. A run that is killed
while it saves therefore leaves the previous checkpoint valid and the new one invisible.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

from src.model_utils.errors import InputError
from src.util import atomic_path, sha256_file, write_json, writing
from src.weights.ckpt_format import read_ckpt, write_ckpt
from src.weights.mindcv import ADVICE, is_mindcv
from src.weights.parameter_rules import refuse_older_port

logger = logging.getLogger(__name__)

PathLike = Union[str, "os.PathLike[str]"]
Arrays = dict[str, np.ndarray]

FORMAT = "defrcn-checkpoint"
FORMAT_VERSION = 1

_MANIFEST_NAME = re.compile(r"defrcn-(\d+)\.json")
_CONVERTERS = {".pth": "src/pth2ckpt.py", ".pt": "src/pth2ckpt.py", ".pkl": "src/pkl2ckpt.py"}
# What numpy raises on a damaged archive, depending on where the damage is.
_DAMAGE = (ValueError, TypeError, KeyError, OSError, EOFError, MemoryError, zipfile.BadZipFile)


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A verified checkpoint in memory.

    Attributes:
        manifest: path of the manifest that vouches for it.
        step: optimizer steps done.
        class_names: class names in index order.
        info: whatever else the run stored with `save_checkpoint`.
        params: weights by name.
        state: training state by name.
    """

    manifest: Path
    step: int
    class_names: tuple[str, ...]
    info: dict[str, Any]
    params: Arrays
    state: Arrays


def load_weights(path: PathLike, *, mindcv: bool = False) -> Arrays:
    """Read a plain MindSpore checkpoint.

    The CRC is checked when the file has one, as every file of this project does, and the
    manifest's checksum when a manifest lies beside it.

    Args:
        path: the `.ckpt` file.
        mindcv: whether it may be a ResNet of MindCV, with that project's names.

    Returns:
        Arrays by parameter name; bfloat16 comes as float32. Text entries are left out.

    Raises:
        InputError: the file is missing, damaged, no MindSpore checkpoint, one of the older
            MindSpore port, or unasked one of MindCV.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"{source}: there is no such checkpoint file")
    if source.suffix in _CONVERTERS:
        raise InputError(f"{source}: convert it with {_CONVERTERS[source.suffix]} first")
    if source.suffix != ".ckpt":
        raise InputError(f"{source}: a MindSpore checkpoint is expected, its name ends in .ckpt")
    manifest = source.with_suffix(".json")
    if _MANIFEST_NAME.fullmatch(manifest.name) and manifest.exists():
        _verify_part(source, read_manifest(manifest)["weights"])
    params, has_crc = read_ckpt(source)
    if not has_crc:
        logger.info("%s has no CRC: damage to its numbers would go unnoticed", source)
    if is_mindcv(params):
        if not mindcv:
            raise InputError(f"{source} is a ResNet of MindCV; {ADVICE}")
    else:
        refuse_older_port(params, source)
    return params


def save_checkpoint(
    folder: PathLike,
    step: int,
    params: Mapping[str, np.ndarray],
    state: Mapping[str, np.ndarray],
    info: Mapping[str, Any],
    *,
    keep_last: int = 0,
) -> Path:
    """Save weights and training state of a step; prune older checkpoints afterwards.

    Args:
        folder: where the three files go; made if absent.
        step: optimizer steps done.
        params: weights by name.
        state: training state by name (numbers, text or booleans; no objects).
        info: JSON values stored in the manifest; `class_names` must be among them.
        keep_last: checkpoints to keep, this one included; 0 keeps all.

    Returns:
        The path of the weights (`.ckpt`).

    Raises:
        InputError: the disk is full, read-only or closed to this user; checkpoints of other steps
            stay as they were.
    """
    # As JSON will give it back, and before anything on disk is touched.
    plain_info = json.loads(json.dumps(dict(info), allow_nan=False))
    class_names = [str(name) for name in plain_info.pop("class_names")]
    place = Path(folder)
    weights, state_file, manifest = _paths(place, step)
    with writing(weights):
        place.mkdir(parents=True, exist_ok=True)
        # A repeated step must never be vouched for by the manifest of the files it replaces.
        manifest.unlink(missing_ok=True)
    write_ckpt(weights, params)
    _write_arrays(state_file, state)
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": int(step),
        # Not the step orders checkpoints: a run that starts anew in a used folder has lower ones.
        "sequence": 1 + max((_sequence(other) for other in _manifests(place)), default=0),
        "class_names": class_names,
        "info": plain_info,
        "weights": _describe(weights),
        "state": _describe(state_file),
    }
    write_json(manifest, {**content, "checksum": _checksum(content)})
    _prune(place, keep_last)
    return weights


def find_latest(folder: PathLike) -> Path | None:
    """Return the manifest of the most recently saved valid checkpoint, None if there is none.

    Damaged checkpoints are named in a warning and passed over.
    """
    for manifest in reversed(_manifests(Path(folder))):
        try:
            verify(manifest)
        except InputError as error:
            logger.warning("checkpoint refused: %s", error)
        else:
            return manifest
    return None


def latest_manifest(folder: PathLike) -> Path | None:
    """The most recently saved manifest that can be read, whatever became of the files it names."""
    return next((one for one in reversed(_manifests(Path(folder))) if _sequence(one)), None)


def verify(manifest: PathLike) -> dict[str, Any]:
    """Check a manifest and the two files that it names, by size and SHA-256.

    Returns:
        The manifest's content.

    Raises:
        InputError: naming the file that is missing, changed or incomplete.
    """
    path = Path(manifest)
    content = read_manifest(path)
    weights, state, _ = _paths(path.parent, content["step"])
    _verify_part(weights, content["weights"])
    _verify_part(state, content["state"])
    return content


def load_training_checkpoint(path: PathLike) -> TrainingCheckpoint | None:
    """Load a checkpoint with its training state, after verifying all of it.

    Args:
        path: a folder (the most recent valid checkpoint in it is used; a damaged one is named
            in a warning and passed over), or one manifest or `.ckpt` (used or refused).

    Returns:
        The checkpoint; None if a folder holds none or does not exist.

    Raises:
        InputError: the named checkpoint is damaged, or none of those in the folder is valid.
    """
    place = Path(path)
    if place.suffix in (".ckpt", ".json"):
        return _load_verified(place.with_suffix(".json"))
    candidates = _manifests(place)
    for manifest in reversed(candidates):
        try:
            return _load_verified(manifest)
        except InputError as error:
            logger.warning("checkpoint refused, trying the one before it: %s", error)
    if candidates:
        raise InputError(
            f"{place}: none of the {len(candidates)} checkpoints is intact (the log names the "
            "damage); remove them to start from the beginning"
        )
    return None


def _load_verified(manifest: Path) -> TrainingCheckpoint:
    content = verify(manifest)
    weights, state, _ = _paths(manifest.parent, content["step"])
    return TrainingCheckpoint(
        manifest=manifest,
        step=content["step"],
        class_names=tuple(content["class_names"]),
        info=content["info"],
        params=read_ckpt(weights)[0],
        state=_read_arrays(state),
    )


def read_manifest(path: PathLike) -> dict[str, Any]:
    """Read a manifest and check its own checksum, not yet the files that it names.

    Raises:
        InputError: missing, damaged, or of a format version that this code does not know.
    """
    source = Path(path)
    match = _MANIFEST_NAME.fullmatch(source.name)
    if match is None or not source.is_file():
        raise InputError(f"{source}: there is no such checkpoint manifest (defrcn-<step>.json)")
    damaged = InputError(f"{source} is damaged and vouches for nothing; remove it")
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        checksum = content.pop("checksum")
        if content["format"] != FORMAT or checksum != _checksum(content):
            raise damaged
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged from error
    if content["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{source} has format version {content['format_version']}, this code reads "
            f"{FORMAT_VERSION}; use the version of the project that wrote it"
        )
    if content["step"] != int(match.group(1)):
        raise InputError(f"{source} was renamed: it belongs to step {content['step']}")
    return dict(content)


def _paths(folder: Path, step: int) -> tuple[Path, Path, Path]:
    """Return the paths of weights, state and manifest."""
    stem = f"defrcn-{int(step)}"
    return folder / f"{stem}.ckpt", folder / f"{stem}.state.npz", folder / f"{stem}.json"


def _manifests(folder: Path) -> list[Path]:
    """Manifests in the order in which they were saved; unreadable ones last, by step.

    Unreadable ones count as the latest so that whoever looks for the latest meets and names them.
    """
    if not folder.is_dir():
        return []
    manifests = [path for path in folder.iterdir() if _MANIFEST_NAME.fullmatch(path.name)]
    return sorted(manifests, key=lambda path: (_sequence(path) or math.inf, _step(path)))


def _step(manifest: Path) -> int:
    return int(manifest.stem.rpartition("-")[2])


def _sequence(manifest: Path) -> int:
    """The running number of a manifest (from 1), 0 if it cannot be read."""
    try:
        return int(read_manifest(manifest)["sequence"])
    except (InputError, OSError):
        return 0


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _describe(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _verify_part(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing although its manifest names it")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise InputError(f"{path} is damaged: {size} bytes instead of {expected['bytes']}")
    if sha256_file(path) != expected["sha256"]:
        raise InputError(f"{path} is damaged: its content differs from the manifest's checksum")


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` without pickles; `numpy.savez` would pickle objects and refuse some names."""
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.asarray(array), allow_pickle=False)


def _read_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged or no training state") from error


def _prune(folder: Path, keep_last: int) -> None:
    """Remove old checkpoints, and what interrupted saves left behind."""
    readable = [manifest for manifest in _manifests(folder) if _sequence(manifest)]
    surplus = readable[: max(len(readable) - keep_last, 0)] if keep_last > 0 else []
    for manifest in surplus:
        # The manifest first: without it the files are invisible, never half a checkpoint.
        for path in reversed(_paths(folder, _step(manifest))):
            path.unlink(missing_ok=True)
    for leftover in folder.glob(".defrcn-*"):
        leftover.unlink(missing_ok=True)
    for orphan in (*folder.glob("defrcn-*.ckpt"), *folder.glob("defrcn-*.state.npz")):
        step = orphan.name.split("-")[1].split(".")[0]
        if step.isdigit() and not (folder / f"defrcn-{step}.json").exists():
            logger.warning("%s has no manifest (its save was interrupted); it is ignored", orphan)
