# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The prototypical calibration block (paper, sec. 3.4): scores after few-shot training.

A prototype is the mean vector of a class's support boxes, seen by an encoder that was trained on
something else (ImageNet). A detection's score becomes a mix of itself and the cosine between its
own vector and the prototype of its class. Only scores in (lower, upper] change, base classes
keep theirs, and the order of detections stays.

Letters: R boxes, K classes, D numbers of a vector. Boxes are float32 (x1, y1, x2, y2) pixels of the
image frame. All of it runs on the host but the encoder's network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from src.model_utils.errors import InputError


class Encoder(Protocol):
    """What the block needs of a network; `pcb_pooling.MapEncoder` is one way to have it."""

    identity: str
    """What tells this encoder's results from those of any other."""

    def box_vectors(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """A picture (H, W, 3) uint8 BGR and boxes (R, 4) in it -> vectors (R, D) float32."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture: pixels (H, W, 3) uint8 BGR, and the SHA-256 of the file."""

    pixels: np.ndarray
    sha256: str


Reader = Callable[[str], Picture]
"""File name -> its picture; raises InputError where it cannot be read."""


Vectors = Callable[[Picture, np.ndarray], np.ndarray]
"""A picture and boxes (R, 4) in it -> vectors (R, D) float32."""


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
        vectors = encoder.box_vectors(pixels, support.boxes)
        if sums is None:
            sums = np.zeros((num_classes, vectors.shape[1]))
        np.add.at(sums, support.classes, vectors.astype(np.float64))
        np.add.at(counts, support.classes, 1)
    if sums is None:
        raise InputError("the support set of the calibration block has no boxes; check data.train")
    means = sums / np.maximum(counts, 1)[:, None]
    return Prototypes(means.astype(np.float32), counts)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each row of (R, D) with the same row of another; 0 with a zero row: (R,).

    Raises:
        InputError: one is not finite. As a score it would be below any threshold, so the detection
            would vanish without a word.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # told below
        norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        found = np.asarray((first * second).sum(1) / np.where(norms > 0, norms, 1), np.float32)
    if not np.isfinite(norms).all() or not np.isfinite(found).all():
        raise InputError(
            "the calibration block's encoder (test.pcb.encoder or pcb_modelpath, or a bundle's "
            "own) gives NaN, infinity or numbers too large for float32; name another one, or "
            "convert or export it again"
        )
    return found


def mixed(scores: np.ndarray, cosine: np.ndarray, alpha: np.float32) -> np.ndarray:
    """Calibrated scores: alpha score + (1 - alpha) cosine, float32."""
    return np.asarray(scores * alpha + cosine * (np.float32(1) - alpha), np.float32)


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
        vectors: None asks the encoder. A cache comes in here.

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
        vectors: Vectors | None = None,
    ) -> None:
        self.encoder = encoder
        self.prototypes = prototypes
        self.changes = prototypes.counts > 0
        self.changes[list(excluded)] = False
        self.alpha = np.float32(alpha)
        self.lower = np.float32(lower)
        self.upper = np.float32(upper)
        self._read = read
        self._vectors = vectors or (lambda picture, b: encoder.box_vectors(picture.pixels, b))

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
            lambda chosen: self._vectors(self._read(file_name), chosen), boxes, scores, classes
        )

    def on_pixels(
        self, pixels: np.ndarray, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray
    ) -> np.ndarray:
        """The same for a picture in memory, (H, W, 3) uint8 BGR, such as a video's frame."""
        return self._calibrated(
            lambda chosen: self.encoder.box_vectors(pixels, chosen), boxes, scores, classes
        )

    def _calibrated(
        self,
        vectors_of: Callable[[np.ndarray], np.ndarray],
        boxes: np.ndarray,
        scores: np.ndarray,
        classes: np.ndarray,
    ) -> np.ndarray:
        """Vectors are computed only if a score lies in (lower, upper], compared in float32."""
        result, classes = np.array(scores, np.float32), np.asarray(classes, np.int64)
        chosen = (result > self.lower) & (result <= self.upper) & self.changes[classes]
        if chosen.any():
            vectors = vectors_of(np.asarray(boxes)[chosen])
            cosine = cosines(vectors, self.prototypes.vectors[classes[chosen]])
            result[chosen] = mixed(result[chosen], cosine, self.alpha)
        return result
