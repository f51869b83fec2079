# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The prototypical calibration block (paper, sec. 3.4): scores after few-shot training.

A prototype is the mean vector of a class's support boxes, seen by an encoder that was trained on
something else (ImageNet). A detection's score becomes a mix of itself and the cosine between its
own vector and the prototype of its class. Only scores in (lower, upper] change, base classes
keep theirs, and the order of detections stays.

Letters: R boxes, K classes, D numbers of a vector, C channels of a feature map of h x w cells.
Boxes are float32 (x1, y1, x2, y2) pixels of the image frame. All of it runs on the host but the
encoder's feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from src.model_utils.errors import InputError

# Largest array of weights or pooled features that is made at once, in numbers (64 MB).
MAX_NUMBERS = 1 << 24


class Encoder(Protocol):
    """What the block needs of a network; `pcb_encoder.ResNetEncoder` is one."""

    stride: int
    """Pixels a cell of the feature map."""
    identity: str
    """What tells this encoder's results from those of any other."""

    def feature_map(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR -> (h, w, C) float32."""

    def project(self, pooled: np.ndarray) -> np.ndarray:
        """Pooled features (R, C) -> vectors (R, D) float32."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: pixels (H, W, 3) uint8 BGR, and the SHA-256 of the file."""

    pixels: np.ndarray
    sha256: str


Reader = Callable[[str], Picture]
"""File name -> its picture; raises InputError where it cannot be read."""


@dataclass(frozen=True)
class Support:
    """Support boxes of one picture.

    Attributes:
        file_name: the picture.
        height: pixels, as annotated.
        width: pixels.
        boxes: (R, 4) float32, see `pictures.support_boxes`.
        classes: (R,) int, class indices of the test set.
    """

    file_name: str
    height: int
    width: int
    boxes: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Prototypes:
    """vectors (K, D) float32, zeros where a class has no support box; counts (K,) boxes."""

    vectors: np.ndarray
    counts: np.ndarray


def axis_weights(start: np.ndarray, end: np.ndarray, length: int) -> np.ndarray:
    """How much each cell of one axis gives to a box's only bin.

    The rules of `roi_align.axis_weights` (aligned, as many samples as the box has cells), with
    the samples scattered instead of compared with every cell.

    Args:
        start: (R,) float32 cells, already moved by half a cell.
        end: (R,) float32.
        length: cells of the axis.

    Returns:
        (R, length) float32.
    """
    extent = end - start
    count = np.ceil(extent)
    samples = max(int(count.max(initial=0.0)), 1)
    order = np.arange(samples, dtype=np.float32)
    step = extent / np.maximum(count, 1)
    point = start[:, None] + (order + np.float32(0.5)) * step[:, None]
    used = (order < count[:, None]) & (point >= -1) & (point <= length)
    share = used / np.maximum(count, 1)[:, None]
    point = np.clip(point, 0, length - 1)
    low = np.minimum(point.astype(np.int64), length - 1)
    part = point - low
    weights = np.zeros((len(start), length), np.float32)
    rows = np.arange(len(start))[:, None]
    np.add.at(weights, (rows, low), share * (1 - part))
    np.add.at(weights, (rows, np.minimum(low + 1, length - 1)), share * part)
    return weights


def pool_boxes(
    features: np.ndarray, boxes: np.ndarray, stride: int, max_numbers: int = MAX_NUMBERS
) -> np.ndarray:
    """ROIAlign with one bin, aligned, adaptive samples.

    Args:
        features: (h, w, C) float32.
        boxes: (R, 4) float32, image frame.
        stride: pixels a cell.
        max_numbers: boxes are taken in chunks so that no array of theirs is larger.

    Returns:
        (R, C) float32.
    """
    height, width, channels = features.shape
    cells = features.reshape(-1, channels)
    edges = np.asarray(boxes, np.float32).reshape(-1, 4) / np.float32(stride) - np.float32(0.5)
    pooled = np.empty((len(edges), channels), np.float32)
    # A box has as many samples an axis as cells there, unless it reaches far beyond the map.
    largest = max(len(cells), channels, 1 + int((edges[:, 2:] - edges[:, :2]).max(initial=0.0)))
    chunk = max(max_numbers // largest, 1)
    for first in range(0, len(edges), chunk):
        x1, y1, x2, y2 = edges[first : first + chunk].T
        by_row, by_column = axis_weights(y1, y2, height), axis_weights(x1, x2, width)
        weights = (by_row[:, :, None] * by_column[:, None, :]).reshape(len(x1), -1)
        pooled[first : first + chunk] = weights @ cells
    return pooled


def box_vectors(
    encoder: Encoder, features: np.ndarray, boxes: np.ndarray, max_numbers: int = MAX_NUMBERS
) -> np.ndarray:
    """Vectors (R, D) of boxes of a picture, given its feature map."""
    return encoder.project(pool_boxes(features, boxes, encoder.stride, max_numbers))


def build_prototypes(
    encoder: Encoder,
    supports: Iterable[Support],
    num_classes: int,
    *,
    read: Reader,
) -> Prototypes:
    """Average the vectors of each class's support boxes.

    Args:
        encoder: see `Encoder`.
        supports: the support set.
        num_classes: K.
        read: file name -> its picture.

    Raises:
        InputError: a picture cannot be read or has another size than annotated.
    """
    sums: np.ndarray | None = None
    counts = np.zeros(num_classes, np.int64)
    for support in supports:
        pixels = read(support.file_name).pixels
        if pixels.shape[:2] != (support.height, support.width):
            raise InputError(
                f"{support.file_name}: the picture is {pixels.shape[1]} x {pixels.shape[0]} "
                f"(width x height) but the annotation says {support.width} x {support.height}"
            )
        vectors = box_vectors(encoder, encoder.feature_map(pixels), support.boxes)
        if sums is None:
            sums = np.zeros((num_classes, vectors.shape[1]))
        np.add.at(sums, support.classes, vectors.astype(np.float64))
        np.add.at(counts, support.classes, 1)
    if sums is None:
        raise InputError("the support set of the calibration block has no boxes; check data.train")
    means = sums / np.maximum(counts, 1)[:, None]
    return Prototypes(means.astype(np.float32), counts)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each row of (R, D) with the same row of another; 0 with a zero row: (R,)."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(1) / np.where(norms > 0, norms, 1), np.float32)


class Calibrator:
    """Calibrates the scores of one picture's detections.

    Args:
        encoder: see `Encoder`.
        prototypes: of the classes of the test set.
        excluded: class indices whose scores stay (the base classes).
        alpha: share of the score in the mix.
        lower: scores up to this stay.
        upper: scores above this stay.
        read: file name -> its picture.
        feature_map: `(picture) -> (h, w, C)`; None asks the encoder. A cache comes in here.

    Classes without a support box keep their scores as well.
    """

    def __init__(
        self,
        encoder: Encoder,
        prototypes: Prototypes,
        *,
        excluded: Sequence[int],
        alpha: float,
        lower: float,
        upper: float,
        read: Reader,
        feature_map: Callable[[Picture], np.ndarray] | None = None,
    ) -> None:
        self.encoder = encoder
        self.prototypes = prototypes
        self.changes = prototypes.counts > 0
        self.changes[list(excluded)] = False
        self.alpha = np.float32(alpha)
        self.lower = np.float32(lower)
        self.upper = np.float32(upper)
        self._read = read
        self._feature_map = feature_map or (lambda picture: encoder.feature_map(picture.pixels))

    def __call__(
        self, file_name: str, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray
    ) -> np.ndarray:
        """Calibrate the detections of a file.

        Args:
            file_name: the picture.
            boxes: (R, 4) float32, image frame.
            scores: (R,) float32.
            classes: (R,) int, class indices of the test set.

        Returns:
            (R,) float32, in the order given.

        Raises:
            InputError: the picture cannot be read.
        """
        return self._calibrated(
            lambda: self._feature_map(self._read(file_name)), boxes, scores, classes
        )

    def on_pixels(
        self, pixels: np.ndarray, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray
    ) -> np.ndarray:
        """The same for a picture in memory, (H, W, 3) uint8 BGR, such as a video's frame."""
        return self._calibrated(lambda: self.encoder.feature_map(pixels), boxes, scores, classes)

    def _calibrated(
        self,
        features: Callable[[], np.ndarray],
        boxes: np.ndarray,
        scores: np.ndarray,
        classes: np.ndarray,
    ) -> np.ndarray:
        """Features are computed only if a score lies in (lower, upper], compared in float32."""
        result, classes = np.array(scores, np.float32), np.asarray(classes, np.int64)
        chosen = (result > self.lower) & (result <= self.upper) & self.changes[classes]
        if chosen.any():
            vectors = box_vectors(self.encoder, features(), np.asarray(boxes)[chosen])
            cosine = cosines(vectors, self.prototypes.vectors[classes[chosen]])
            result[chosen] = result[chosen] * self.alpha + cosine * (np.float32(1) - self.alpha)
        return result
