# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The classes of a checkpoint, with the ids and the base and novel classes of its data set."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from src.assembly.data import describe_set
from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.data_types import DatasetInfo
from src.model_utils.config import Config
from src.model_utils.errors import InputError
from src.model_utils.set_names import parse_name

logger = logging.getLogger(__name__)


def describe_classes(config: Config, trained: tuple[str, ...]) -> tuple[DatasetInfo, bool]:
    """Classes with ids, base and novel: of the test set, unless the checkpoint has others.

    Args:
        config: the first set of `data.test` gives ids, and the names where `trained` has none.
        trained: names of the checkpoint's classes, or ().

    Returns:
        The description, and whether its ids are a data set's own.

    Raises:
        InputError: the checkpoint has no names, and the test set is not here either.
    """
    try:
        info = _test_set(config, trained)
    except InputError as error:
        if not trained:
            raise
        logger.info("the names of the classes are the checkpoint's: %s", error)
        return _without_files(config, trained), False
    if trained in ((), info.class_names):
        return info, True
    logger.info("the checkpoint has other classes than %s; its own are taken", info.name)
    known = dict(zip(info.class_names, info.category_ids))
    complete = all(label in known for label in trained)
    ids = [known[label] for label in trained] if complete else range(1, len(trained) + 1)
    return replace(info, class_names=trained, category_ids=tuple(ids)), complete


def _test_set(config: Config, trained: tuple[str, ...]) -> DatasetInfo:
    """The first test set; where a built-in one lacks classes of the checkpoint, all its classes."""
    name = config.data.test[0]
    info, parsed = describe_set(config, name), parse_name(name, config.data.custom)
    if parsed and not parsed.own and not set(trained) <= set(info.class_names):
        return resolve_dataset(replace(parsed, split="all").full)
    return info


def _without_files(config: Config, trained: tuple[str, ...]) -> DatasetInfo:
    """A checkpoint's classes; those are novel that the configuration of the test set names."""
    name = config.data.test[0]
    parsed = parse_name(name, config.data.custom)
    novel = config.data.custom[parsed.family].novel_classes if parsed and parsed.own else ()
    return DatasetInfo(
        name=name,
        format="coco",
        annotations=Path(),
        image_root=Path(),
        image_list=None,
        class_names=trained,
        category_ids=tuple(range(1, len(trained) + 1)),
        base_classes=tuple(label for label in trained if label not in novel) if novel else (),
        novel_classes=novel,
    )
