# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What preprocess.py hands to the inference program: one file an input and picture, and a manifest.

    DIR/eval_img_bin/00000.bin    image (1, 3, H, W) float32: BGR, 0 to 255, resized, zeros beyond
    DIR/eval_id_bin/00000.bin     image_id (1,) int32
    DIR/eval_meta_bin/00000.bin   image_meta (1, 4) float32: height, width after resizing and before
    DIR/manifest.json             written last: a folder without it is not whole

Numbers are little-endian, without any header. No MindSpore here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.data.batching import Batch
from src.model_utils.errors import InputError
from src.util import sha256_file, write_json, writing

FORMAT, FORMAT_VERSION = "defrcn-inference-input", 1
MANIFEST = "manifest.json"
#: Inputs of the network in order: name, dtype, folder.
INPUTS = (
    ("image", "float32", "eval_img_bin"),
    ("image_id", "int32", "eval_id_bin"),
    ("image_meta", "float32", "eval_meta_bin"),
)
_INT32 = 2**31


@dataclass(frozen=True)
class Entry:
    """One picture of a manifest.

    Attributes:
        stem: its files are called so, with `.bin`.
        number: the id that the network is given and gives back.
        image_id: id of the annotations.
        file_name: path of the picture.
        original_size: height, width.
        resized_size: likewise, in the model frame.
    """

    stem: str
    number: int
    image_id: int | str
    file_name: str
    original_size: tuple[int, int]
    resized_size: tuple[int, int]


@dataclass(frozen=True)
class Manifest:
    """A folder of inputs.

    Attributes:
        path: the manifest file.
        dataset: name of the test set.
        input_shape: H, W.
        config_digest: of the settings that the inputs depend on.
        entries: the pictures, in the test set's order.
        sha256: of the manifest file.
    """

    path: Path
    dataset: str
    input_shape: tuple[int, int]
    config_digest: str
    entries: tuple[Entry, ...]
    sha256: str


def write_inputs(
    folder: Path,
    batches: Iterable[Batch],
    *,
    num_images: int,
    dataset: str,
    input_shape: tuple[int, int],
    config_digest: str,
) -> Manifest:
    """Write the inputs of a test set.

    Args:
        folder: new, empty, or one that this function wrote before, whose files are replaced.
        batches: the pictures one by one; pixels not normalised, padded to `input_shape`.
        num_images: how many there are.
        dataset: name of the test set.
        input_shape: H, W.
        config_digest: see `Manifest`.

    Raises:
        InputError: the folder holds something else, or the disk is too small.
    """
    _prepare(folder, num_images * 3 * 4 * input_shape[0] * input_shape[1])
    digits = max(5, len(str(num_images - 1)))
    entries: list[Entry] = []
    for index, batch in enumerate(batches):
        entry = _entry(index, f"{index:0{digits}d}", batch)
        meta = np.concatenate((batch.image_sizes[0], batch.original_sizes[0])).astype("<f4")
        values = (batch.images.astype("<f4", copy=False), np.array([entry.number], "<i4"), meta)
        for (_, _, name), value in zip(INPUTS, values):
            path = folder / name / f"{entry.stem}.bin"
            with writing(path):
                path.write_bytes(np.ascontiguousarray(value).tobytes())
        entries.append(entry)
    if len(entries) != num_images:
        raise InputError(f"{dataset}: {len(entries)} of {num_images} pictures could be prepared")
    write_json(folder / MANIFEST, _to_json(dataset, input_shape, config_digest, entries), indent=1)
    return read_manifest(folder)


def _entry(index: int, stem: str, batch: Batch) -> Entry:
    image_id = batch.image_ids[0]
    usable = isinstance(image_id, int) and 0 <= image_id < _INT32
    return Entry(
        stem=stem,
        # An id of the annotations may be a word, or too long for the network's int32.
        number=int(image_id) if usable else index,
        image_id=image_id,
        file_name=batch.file_names[0],
        original_size=_pair(batch.original_sizes[0]),
        resized_size=_pair(batch.image_sizes[0]),
    )


def _pair(values: Iterable[Any]) -> tuple[int, int]:
    height, width = (int(value) for value in values)
    return height, width


def _prepare(folder: Path, needed: int) -> None:
    """Make the folders, remove files of an earlier run, and see whether there is room."""
    names = [name for _, _, name in INPUTS]
    known = {*names, MANIFEST}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        other = sorted(path.name for path in folder.iterdir() if path.name not in known)
    if other:
        raise InputError(
            f"result_path: {folder} holds other files ({', '.join(other[:3])}); name a new folder"
        )
    with writing(folder):
        (folder / MANIFEST).unlink(missing_ok=True)  # first: from here on it is not whole
        for name in names:
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir()
        free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"result_path: {folder} needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB "
            "left; make room, or name a folder on another disk"
        )


def _to_json(
    dataset: str, input_shape: tuple[int, int], config_digest: str, entries: list[Entry]
) -> dict[str, Any]:
    height, width = input_shape
    shapes = {"image": [1, 3, height, width], "image_id": [1], "image_meta": [1, 4]}
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dataset": dataset,
        "input_shape": [height, width],
        "config_digest": config_digest,
        "inputs": [
            {"name": name, "dtype": dtype, "shape": shapes[name], "folder": folder}
            for name, dtype, folder in INPUTS
        ],
        "images": [
            {
                "stem": one.stem,
                "number": one.number,
                "image_id": one.image_id,
                "file_name": one.file_name,
                "original_size": list(one.original_size),
                "resized_size": list(one.resized_size),
                "scale": [new / old for new, old in zip(one.resized_size, one.original_size)],
            }
            for one in entries
        ],
    }


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder.

    Raises:
        InputError: there is none (preprocess.py did not finish), or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} has no {MANIFEST}: preprocess.py did not finish; run it again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["format"], content["format_version"]) != (FORMAT, FORMAT_VERSION):
            raise ValueError("not a manifest of this version")
        return Manifest(
            path=path,
            dataset=str(content["dataset"]),
            input_shape=_pair(content["input_shape"]),
            config_digest=str(content["config_digest"]),
            entries=tuple(map(_read_entry, content["images"])),
            sha256=sha256_file(path),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}: {error}); run preprocess.py again"
        ) from error


def _read_entry(content: Mapping[str, Any]) -> Entry:
    return Entry(
        stem=str(content["stem"]),
        number=int(content["number"]),
        image_id=content["image_id"],
        file_name=str(content["file_name"]),
        original_size=_pair(content["original_size"]),
        resized_size=_pair(content["resized_size"]),
    )
