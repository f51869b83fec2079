# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the configuration to files: data sets by name and by content.

No MindSpore here: tools that train nothing read data sets too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import PurePath
from typing import Any

from src.calibration.support_set import SupportSet
from src.data.batching import Preprocessing, parse_shapes
from src.dataset import load_dataset, open_dataset
from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.data_types import DatasetInfo, Record
from src.model_utils.config import Config
from src.model_utils.set_names import is_few_shot, parse_name
from src.util import sha256_file


def _places(config: Config) -> dict[str, Any]:
    """The arguments of `resolve_dataset` beside the name."""
    return {
        "datasets_root": config.datasets_root,
        "coco_root": config.coco_root,
        "custom": config.data.custom,
        "official_vocsplit_sampling": config.data.official_vocsplit_sampling,
    }


def preprocessing(config: Config, max_size: int) -> Preprocessing:
    """How pictures are brought to the network, with a limit of the long edge."""
    return Preprocessing(
        max_size=max_size,
        pixel_mean=config.input.pixel_mean,
        pixel_std=config.input.pixel_std,
        shapes=parse_shapes(config.input.input_shapes),
        max_pixels=config.data.max_image_pixels,
    )


def read_sets(config: Config, names: tuple[str, ...]) -> tuple[DatasetInfo, list[Record]]:
    """Read data sets by name.

    Returns:
        The first one's description, and all records.

    Raises:
        InputError: a name is unknown, a file is wrong, or the classes differ.
    """
    return load_dataset(names, **_places(config))


def describe_set(config: Config, name: str) -> DatasetInfo:
    """A data set's classes: for a built-in one no file is read, one's own are read from theirs.

    Raises:
        InputError: the name is unknown, or a file is wrong.
    """
    parsed = parse_name(name, config.data.custom)
    opened = resolve_dataset if parsed and not parsed.own else open_dataset
    return opened(name, **_places(config))


@dataclass(frozen=True)
class TrainingData:
    """The training sets as they were read.

    Attributes:
        info: the first set.
        records: of all sets.
        support: the boxes of those that are K-shot sets; None without such a set.
        sha256: of what is trained on: classes, pictures by name and size, boxes; "" where boxes
            are drawn anew at every reading (`official_vocsplit_sampling`).
    """

    info: DatasetInfo
    records: list[Record]
    support: SupportSet | None
    sha256: str


def read_training_data(config: Config) -> TrainingData:
    """Read the training sets.

    Raises:
        InputError: see `read_sets`.
    """
    info, records = read_sets(config, config.data.train)
    names = tuple(name for name in config.data.train if is_few_shot(name))
    support = None
    if names:
        boxes_of = records if names == config.data.train else read_sets(config, names)[1]
        support = SupportSet("+".join(names), info.class_names, tuple(boxes_of))
    digest = hashlib.sha256(json.dumps(info.class_names).encode())
    for record in records:
        digest.update(json.dumps(_described(record)).encode())
    drawn = config.data.official_vocsplit_sampling
    return TrainingData(info, records, support, "" if drawn else digest.hexdigest())


def content_digest(config: Config, names: Sequence[str]) -> str:
    """Hash of what data sets hold: classes, images by name and size, boxes; no pixels.

    It does not depend on the folders that they lie in. Sets whose boxes are drawn anew at every
    reading (`official_vocsplit_sampling`) count by their classes only.

    Raises:
        InputError: see `read_sets`.
    """
    found: list[object] = []
    for name in names:
        info, records = read_sets(config, (name,))
        content: object = ""
        if info.few_shot is None and info.format == "coco":
            content = sha256_file(info.annotations)  # evaluation takes areas from it too
        elif info.few_shot is None or info.few_shot.seeded:
            content = [_described(record) for record in records]
        found.append([info.class_names, content])
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _described(record: Record) -> list[object]:
    boxes = [astuple(annotation) for annotation in record.annotations]
    return [PurePath(record.file_name).name, record.height, record.width, boxes]
