# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Base classes as if they were novel: K boxes of each drawn for prototypes, other pictures judged.

What the calibration block is worth can so be seen without a label of a novel class. Detections and
their likenesses to the prototypes of every draw are computed once; what a setting of the block
makes of the scores is then a matter of arithmetic.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from src import detecteval
from src.assembly.calibration import supports_of
from src.assembly.data import preprocessing, read_sets
from src.assembly.encoders import make_encoder
from src.assembly.evaluation import (
    detections,
    evaluation_checkpoint,
    load_for_evaluation,
    make_inference,
)
from src.assembly.training import make_detector, shared_mindrecord
from src.calibration.pictures import reader
from src.dataset import EvalLoader
from src.defrcn.data_types import Annotation, DatasetInfo, Record
from src.defrcn.pcb import Encoder, Prototypes, build_prototypes, cosines, mixed
from src.engine.inference import Detections
from src.engine.parallel import ALONE
from src.evaluation.detection_rows import ImageId, Row, detections_to_rows
from src.model_utils.config import Config
from src.model_utils.errors import InputError
from src.model_utils.random_streams import Stream, generator
from src.util import listing
from src.weights.note import class_names_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseDraws:
    """What is judged, and what prototypes come from; base classes only.

    Attributes:
        info: the set of the pictures that are judged.
        judged: those, none of which any draw has.
        draws: for each draw the training set's records with the K boxes of each class.
        own: whether the judged pictures are the training set's.
    """

    info: DatasetInfo
    judged: list[Record]
    draws: list[list[Record]]
    own: bool


@dataclass(frozen=True)
class Found:
    """The detections of base classes in a picture.

    Attributes:
        image_id: of the picture.
        boxes: (R, 4) float32, image frame.
        scores: (R,) float32, the detector's own.
        classes: (R,) int, class indices of the judged set.
        cosines: (draws, R) float32 to the prototype of the class; NaN where there is none.
    """

    image_id: ImageId
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    cosines: np.ndarray

    def calibrated(self, draw: int, alpha: float, lower: float, upper: float) -> np.ndarray:
        """Scores (R,) float32 as `pcb.Calibrator` makes them with a draw's prototypes."""
        cosine, scores = self.cosines[draw], self.scores.copy()
        chosen = (scores > np.float32(lower)) & (scores <= np.float32(upper)) & ~np.isnan(cosine)
        scores[chosen] = mixed(scores[chosen], cosine[chosen], np.float32(alpha))
        return scores


def draw_base(config: Config, on: str, *, pictures: int, shots: int, draws: int) -> BaseDraws:
    """Divide the pictures and draw the boxes, by `seed`.

    Args:
        config: the configuration; `data.train` is what is drawn from.
        on: name of the set whose pictures are judged; "" for half of the training set's at most.
        pictures: how many are judged, at most.
        shots: K, boxes of each class in a draw.
        draws: how often they are drawn.

    Raises:
        InputError: a set has a novel class, the two have other classes, or there is no picture.
    """
    train, records = _read_base(config, config.data.train, "data.train")
    info, others = _read_base(config, (on,), "--on") if on else (train, records)
    if info.class_names != train.class_names:
        raise InputError(
            f"--on: {info.name} has other classes than {train.name} of data.train; name a set of "
            "the same base classes"
        )
    order = generator(config.seed, Stream.BASE_DRAWS, 0).permutation(len(others))
    most = len(others) if on else len(others) // 2
    places = sorted(order[: min(pictures, most)])
    # numbered anew: pictures of two sets may have the same ids
    judged = [replace(others[place], image_id=i) for i, place in enumerate(places, start=1)]
    files = {record.file_name for record in judged}
    pool = [record for record in records if record.file_name not in files]
    if not judged or not pool:
        raise InputError(
            f"{info.name} has {len(others)} pictures and {train.name} {len(pool)} others: too few "
            "to judge some and draw boxes of others; name larger sets in data.train and --on"
        )
    found = [_drawn(pool, train, shots, config.seed, number) for number in range(draws)]
    return BaseDraws(info, judged, found, own=not on)


def _read_base(
    config: Config, names: tuple[str, ...], key: str
) -> tuple[DatasetInfo, list[Record]]:
    info, records = read_sets(config, names)
    novel = [name for name in info.class_names if name in info.novel_classes]
    if novel:
        raise InputError(
            f"{key}: {', '.join(names)} has novel classes ({listing(novel)}), and nothing may be "
            "chosen by these; name the base set, such as coco14_trainval_base"
        )
    return info, records


def _drawn(
    pool: Sequence[Record], info: DatasetInfo, shots: int, seed: int, number: int
) -> list[Record]:
    """K boxes of each class; all of them where there are fewer."""
    rng = generator(seed, Stream.BASE_DRAWS, 1 + number)
    of_class: list[list[tuple[int, Annotation]]] = [[] for _ in info.class_names]
    for place, record in enumerate(pool):
        for item in record.annotations:
            if not item.iscrowd and not item.difficult:
                of_class[item.category_id].append((place, item))
    chosen: dict[int, list[Annotation]] = {}
    for name, items in zip(info.class_names, of_class):
        if len(items) < shots and number == 0:
            logger.warning("%s has %d boxes to draw from, not %d", name, len(items), shots)
        for index in sorted(rng.choice(len(items), min(shots, len(items)), replace=False)):
            place, item = items[index]
            chosen.setdefault(place, []).append(item)
    return [
        replace(pool[place], annotations=tuple(items)) for place, items in sorted(chosen.items())
    ]


def prototypes_of(config: Config, encoder: Encoder, base: BaseDraws) -> list[Prototypes]:
    """The prototypes of each draw."""
    made = []
    for records in tqdm(base.draws, unit="draw", disable=None, leave=False):
        supports = supports_of(
            records,
            range(len(base.info.class_names)),
            short_edge=config.input.min_size_test,
            max_size=config.input.max_size_test,
        )
        read = reader(config.data.max_image_pixels)
        made.append(build_prototypes(encoder, supports, len(base.info.class_names), read=read))
    return made


def look(config: Config, base: BaseDraws, folder: Path) -> list[Found]:
    """Detect on the judged pictures, and compare each detection with every draw's prototype.

    Args:
        config: the configuration; `eval_checkpoint_path` names the detector.
        base: see `draw_base`.
        folder: which exists; for files that are gone afterwards.

    Raises:
        InputError: the detector or the encoder is missing, or the detector has no base class.
    """
    encoder = make_encoder(config)
    prototypes = prototypes_of(config, encoder, base)
    path = evaluation_checkpoint(config)
    names = class_names_of(path) or base.info.class_names
    index_of = {name: index for index, name in enumerate(base.info.class_names)}
    own_index = np.array([index_of.get(name, -1) for name in names])
    if (own_index < 0).all():
        raise InputError(
            f"eval_checkpoint_path: {path} knows none of the base classes; name a detector of "
            "base training or of G-FSOD"
        )
    net = make_detector(config, names)
    load_for_evaluation(net, path, names)
    outputs_of = make_inference(config, net)
    read = reader(config.data.max_image_pixels)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".judged-") as records:
        loader = _loader(config, base, Path(records))
        result = []
        for one in detections(config, outputs_of, loader, len(loader)):
            classes = own_index[one.classes]
            kept = classes >= 0
            boxes, scores, classes = one.boxes[kept], one.scores[kept], classes[kept]
            likeness = np.zeros((len(prototypes), 0), np.float32)
            if len(boxes):
                pixels = read(one.image.file_names[0]).pixels
                likeness = _likeness(encoder.box_vectors(pixels, boxes), classes, prototypes)
            result.append(Found(_image_id(one), boxes, scores, classes, likeness))
        return result


def _image_id(one: Detections[Any]) -> ImageId:
    (identity,) = one.image.image_ids
    return identity


def _loader(config: Config, base: BaseDraws, folder: Path) -> EvalLoader:
    shared_mindrecord(
        config, base.judged, folder, base.info.class_names, training=False, group=ALONE
    )
    return EvalLoader(
        folder,
        preprocessing(config, config.input.max_size_test),
        min_size=config.input.min_size_test,
        num_workers=config.data.num_workers,
    )


def _likeness(
    vectors: np.ndarray, classes: np.ndarray, prototypes: Sequence[Prototypes]
) -> np.ndarray:
    """Cosines (draws, R) float32; NaN where a draw has no box of the class."""
    found = []
    for one in prototypes:
        values = cosines(vectors, one.vectors[classes])
        found.append(np.where(one.counts[classes] > 0, values, np.float32(np.nan)))
    return np.array(found, np.float32)


class Judge:
    """Figures of the judged pictures for any scores of their detections.

    Args:
        config: the configuration; `test.metric` is the rule.
        base: see `draw_base`.

    Attributes:
        figure: the one to choose by: AP by COCO's rules, AP50 by VOC's.
    """

    def __init__(self, config: Config, base: BaseDraws) -> None:
        self.info, self.metric = base.info, config.test.metric
        rule = detecteval.metric_of(base.info.name, config.test.metric)
        self.figure = "AP" if rule == "coco" else "AP50"
        self._truth = detecteval.ground_truth_from_records(
            base.judged, base.info.class_names, base.info.category_ids
        )

    def __call__(self, found: Sequence[Found], scores: Sequence[np.ndarray]) -> dict[str, float]:
        """AP and AP50, percent, of detections with other scores than their own."""
        rows: list[Row] = []
        for one, values in zip(found, scores):
            rows += detections_to_rows(
                one.image_id, one.boxes, values, one.classes, self.info.category_ids
            )
        judged = detecteval.evaluate(self.info, self._truth, rows, metric=self.metric)
        return {name: judged.groups["all"][name] for name in ("AP", "AP50")}
