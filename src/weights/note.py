# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A note beside a plain weights file: the classes that it is for, and how it was made.

Checkpoints of a training run have a manifest (`checkpoint`). A file that a tool made of one has no
training state, but its classes matter as much: their number alone does not tell them apart. The
note of `model_reset_surgery.ckpt` is `model_reset_surgery.note.json`; it vouches for those bytes
only, so that a file which took the other's place is not taken for it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.model_utils.errors import InputError
from src.model_utils.paths import checkpoints_in
from src.util import sha256_file, write_json
from src.weights.checkpoint import (
    find_latest,
    load_training_checkpoint,
    load_weights,
    read_manifest,
)

FORMAT = "defrcn-weights-note"
FORMAT_VERSION = 1


def note_path(weights: str | os.PathLike[str]) -> Path:
    """Where the note of a `.ckpt` file is."""
    return Path(weights).with_suffix(".note.json")


def write_note(
    weights: str | os.PathLike[str], class_names: Sequence[str], origin: Mapping[str, Any]
) -> Path:
    """Write the note of a file that exists.

    Args:
        weights: the `.ckpt` file.
        class_names: in index order; empty if the file has no class layers, or is for any.
        origin: JSON values that say how the file was made.
    """
    path = note_path(weights)
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class_names": list(class_names),
        "origin": dict(origin),
        "weights": {"file": Path(weights).name, "sha256": sha256_file(weights)},
    }
    write_json(path, content)
    return path


def read_note(weights: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The note of a weights file, None if there is none.

    Raises:
        InputError: the note is damaged, or for other bytes than the file's.
    """
    path = note_path(weights)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names, checksum = content["class_names"], content["weights"]["sha256"]
        known = content["format"] == FORMAT and content["format_version"] == FORMAT_VERSION
        if not known or not all(isinstance(name, str) for name in names):
            raise ValueError("not a note of this version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); make the weights again") from error
    if sha256_file(weights) != checksum:
        raise InputError(
            f"{weights} is not the file that {path.name} was written for; make it again, or remove "
            "the note if the file is the right one"
        )
    return dict(content)


def class_names_of(weights: str | os.PathLike[str]) -> tuple[str, ...]:
    """The classes of weights; () if nothing tells.

    Args:
        weights: a `.ckpt` file, of which the manifest or the note beside it tells; or a folder,
            for the newest checkpoint in it or in its `ckpt_0`.

    Raises:
        InputError: manifest or note are damaged.
    """
    if Path(weights).is_dir():
        newest = find_latest(checkpoints_in(Path(weights)))
        return () if newest is None else tuple(read_manifest(newest)["class_names"])
    manifest = Path(weights).with_suffix(".json")
    if manifest.name.startswith("defrcn-") and manifest.is_file():
        return tuple(read_manifest(manifest)["class_names"])
    note = read_note(weights)
    return tuple(note["class_names"]) if note else ()


@dataclass(frozen=True)
class Weights:
    """Weights in memory: where they came from, their classes (() if not known), arrays by name."""

    path: Path
    class_names: tuple[str, ...]
    params: dict[str, np.ndarray]


def read_weights(path: Path, key: str) -> Weights:
    """Read a `.ckpt` file, or the newest valid checkpoint of a folder or its `ckpt_0`.

    Args:
        path: file or folder.
        key: the configuration key or flag that named it, for messages.

    Returns:
        The weights; for a folder, `path` is the checkpoint's manifest.

    Raises:
        InputError: it is missing, damaged, or of another kind.
    """
    if not path.is_dir():
        params = load_weights(path)
        return Weights(path, class_names_of(path), params)
    found = load_training_checkpoint(checkpoints_in(path))
    if found is None:
        raise InputError(f"{key}: there is no checkpoint in {path}; give a .ckpt file")
    return Weights(found.manifest, found.class_names, found.params)


def check_classes(given: Sequence[str], wanted: Sequence[str], source: object, what: str) -> None:
    """Refuse weights for other classes; nothing is known of () and nothing refused.

    Args:
        given: classes of the weights.
        wanted: classes of the data.
        source: the weights, for the message.
        what: what the message calls the data, such as "the training set".

    Raises:
        InputError: the lists differ, in names or in their order.
    """
    if not given or tuple(given) == tuple(wanted):
        return
    pairs = enumerate(itertools.zip_longest(given, wanted))
    place, differing = next((place, pair) for place, pair in pairs if pair[0] != pair[1])
    first = ("nothing" if name is None else repr(name) for name in differing)
    raise InputError(
        f"{source} is for {len(given)} classes, {what} has {len(wanted)}; they differ from number "
        f"{place} on ({' instead of '.join(first)})"
    )
