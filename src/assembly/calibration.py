# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the configuration to the prototypical calibration block: weights, support set, caches."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from src.assembly.data import read_sets
from src.assembly.encoders import make_encoder
from src.calibration.cache import FeatureCache, read_entry, write_entry
from src.calibration.pictures import reader, support_boxes
from src.calibration.support_set import FILE_NAME, SupportSet, read_support_set
from src.data.transforms import to_xyxy
from src.defrcn.built_datacategory import DatasetInfo, Record
from src.defrcn.pcb import (
    Calibrator,
    Encoder,
    Picture,
    Prototypes,
    Support,
    Vectors,
    build_prototypes,
)
from src.defrcn.pcb_pooling import MapEncoder
from src.model_utils.config import Config
from src.model_utils.errors import InputError
from src.model_utils.set_names import is_few_shot
from src.util import sha256_file

logger = logging.getLogger(__name__)


def make_calibrator(
    config: Config, info: DatasetInfo, checkpoint: Path | None
) -> Calibrator | None:
    """Build the calibration block for a test set.

    Args:
        config: the configuration; `data.train` names the K-shot set whose boxes are the support.
        info: the test set; detections have its class indices.
        checkpoint: the detector's file or folder, whose support set must be the same; None for
            the network that was just trained on `data.train`.

    Returns:
        None if `test.pcb.enable` is false, or if the test set has no novel class.

    Raises:
        InputError: weights are missing or no encoder, `data.train` is no K-shot set or another
            one than the checkpoint's, or a picture cannot be read.
    """
    pcb = config.test.pcb
    if not pcb.enable:
        return None
    excluded = [i for i, name in enumerate(info.class_names) if name in info.base_classes]
    if len(excluded) == len(info.class_names):
        logger.warning("%s has no novel class: the calibration block does nothing", info.name)
        return None
    support = read_support(config)
    if checkpoint is not None:
        check_support(
            support,
            checkpoint,
            any_support=pcb.any_support or config.data.official_vocsplit_sampling,
        )
    encoder = make_encoder(config)
    return Calibrator(
        encoder,
        _prototypes(config, encoder, info, support, excluded),
        excluded=excluded,
        alpha=pcb.alpha,
        lower=pcb.lower,
        upper=pcb.upper,
        read=reader(config.data.max_image_pixels),
        vectors=_cached(config, encoder) if pcb.cache_features else None,
    )


def read_support(config: Config) -> SupportSet:
    """Read the support set: the boxes of the K-shot sets in `data.train`.

    Raises:
        InputError: there is none among them.
    """
    names = tuple(name for name in config.data.train if is_few_shot(name))
    if not names:
        raise InputError(
            f"data.train: {', '.join(config.data.train)} is no K-shot set, but the calibration "
            "block (test.pcb.enable) takes its prototypes from one, such as "
            "coco14_trainval_novel_10shot_seed0; name the set that was fine-tuned on"
        )
    info, records = read_sets(config, names)
    return SupportSet("+".join(names), info.class_names, tuple(records))


def check_support(support: SupportSet, checkpoint: Path, *, any_support: bool) -> None:
    """Compare the support set with the one that lies beside a checkpoint.

    Args:
        support: the configured one.
        checkpoint: the detector's file or folder; its own folder and the one above are looked in.
        any_support: only warn.

    Raises:
        InputError: it is another one.
    """
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    places = [place / FILE_NAME for place in (folder, folder.resolve().parent)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        logger.warning(
            "%s has no %s beside it, so the prototypes may come from other boxes than it was "
            "trained on",
            checkpoint,
            FILE_NAME,
        )
        return
    trained = read_support_set(path)
    if trained.sha256 == support.sha256:
        return
    message = (
        f"the support set of data.train ({support.dataset}, {support.sha256[:12]}) is not the one "
        f"that {checkpoint} was trained on ({trained.dataset}, {trained.sha256[:12]}, {path})"
    )
    if not any_support:
        raise InputError(
            f"{message}; name that set (--shot_seed), or accept another one with "
            "test.pcb.any_support"
        )
    logger.warning("%s", message)


def supports_of(
    records: Sequence[Record],
    index_of: Sequence[int | None],
    *,
    short_edge: int,
    max_size: int,
) -> list[Support]:
    """Group support boxes by picture, which is then encoded once, whatever the records.

    Args:
        records: of the support set.
        index_of: for each class of the support set its index in the test set, or None if its
            boxes are not needed.
        short_edge: see `pictures.support_boxes`.
        max_size: likewise.
    """
    grouped: dict[tuple[str, int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
    for record in records:
        items = [
            a for a in record.annotations if not a.iscrowd and index_of[a.category_id] is not None
        ]
        corners = np.array([to_xyxy(a.bbox, a.bbox_mode) for a in items])
        size = (record.height, record.width)
        boxes, kept = support_boxes(corners, *size, short_edge=short_edge, max_size=max_size)
        classes = np.array([index_of[a.category_id] for a in items], np.int64)
        if kept.any():
            grouped.setdefault((record.file_name, *size), []).append((boxes[kept], classes[kept]))
    return [
        Support(
            *picture,
            np.concatenate([boxes for boxes, _ in parts]),
            np.concatenate([classes for _, classes in parts]),
        )
        for picture, parts in grouped.items()
    ]


def _prototypes(
    config: Config,
    encoder: Encoder,
    info: DatasetInfo,
    support: SupportSet,
    excluded: Sequence[int],
) -> Prototypes:
    """Prototypes of the test set's classes, from the disk if they were made before.

    Classes are matched by name: support set and test set may number them differently.
    """
    wanted = {name: i for i, name in enumerate(info.class_names) if i not in set(excluded)}
    supports = supports_of(
        support.records,
        [wanted.get(name) for name in support.class_names],
        short_edge=config.input.min_size_test,
        max_size=config.input.max_size_test,
    )
    path, key = _prototype_entry(config, encoder, support, supports, info)
    found = read_entry(path, key) if path is not None else None
    if found is not None:
        logger.info("prototypes from %s", path)
        prototypes = Prototypes(found["vectors"], found["counts"])
    else:
        logger.info("prototypes of %d support pictures of %s", len(supports), support.dataset)
        prototypes = build_prototypes(
            encoder,
            tqdm(supports, unit="picture", disable=None, leave=False),
            len(info.class_names),
            read=reader(config.data.max_image_pixels),
        )
        if path is not None:
            arrays = {"vectors": prototypes.vectors, "counts": prototypes.counts}
            write_entry(path, key, arrays)
    lacking = [name for name, i in wanted.items() if not prototypes.counts[i]]
    if lacking:
        logger.warning(
            "%s has no box of %s: their scores are not calibrated",
            support.dataset,
            ", ".join(lacking),
        )
    return prototypes


def _prototype_entry(
    config: Config,
    encoder: Encoder,
    support: SupportSet,
    supports: Sequence[Support],
    info: DatasetInfo,
) -> tuple[Path | None, dict]:
    """Where prototypes are kept, and everything that decides them."""
    if not config.test.pcb.cache_dir:
        return None, {}
    pictures = [one.file_name for one in supports]
    key = {
        "encoder": encoder.identity,
        "support": support.sha256,
        # a missing one is named when it is read
        "pictures": [sha256_file(path) for path in pictures if Path(path).is_file()],
        "classes": list(info.class_names),
        "base_classes": list(info.base_classes),
        "test_size": [config.input.min_size_test, config.input.max_size_test],
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return Path(config.test.pcb.cache_dir) / "prototypes" / f"{digest[:32]}.npz", key


def _cached(config: Config, encoder: Encoder) -> Vectors | None:
    """Vectors by way of kept maps; None for an encoder that makes no map."""
    if isinstance(encoder, MapEncoder):
        return _CachedMaps(config, encoder)
    logger.warning("test.pcb.cache_features: the encoder looks at each box; nothing is kept")
    return None


class _CachedMaps:
    """Vectors of boxes of test pictures, whose feature maps are kept in `test.pcb.cache_dir`.

    Raises:
        InputError: the folder is not named.
    """

    def __init__(self, config: Config, encoder: MapEncoder) -> None:
        pcb = config.test.pcb
        if not pcb.cache_dir:
            raise InputError(
                "test.pcb.cache_dir is empty, but test.pcb.cache_features keeps features there; "
                "name a folder"
            )
        self.encoder = encoder
        self.cache = FeatureCache(
            Path(pcb.cache_dir) / "features", encoder.identity, int(pcb.cache_gigabytes * 1e9)
        )

    def __call__(self, picture: Picture, boxes: np.ndarray) -> np.ndarray:
        """See `pcb.Calibrator`."""
        height, width = picture.pixels.shape[:2]
        features = self.cache.get(picture.sha256, self.encoder.map_shape(height, width))
        if features is None:
            features = self.encoder.feature_map(picture.pixels)
            self.cache.put(picture.sha256, features)
        return self.encoder.pooled_vectors(features, (height, width), boxes)
