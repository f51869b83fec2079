# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What a batch is and how rows become one: decode, resize, flip, normalise, pad."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Union

import numpy as np
from PIL import Image

from src.data.mindrecord_io import Row
from src.data.transforms import (
    check_size,
    decode,
    normalise_into,
    resize,
    resized_shape,
    to_bgr,
    transform_boxes,
)
from src.defrcn.picture_file import PILLOW_MAX_PIXELS
from src.model_utils.errors import InputError

InputShapes = Union[Literal["exact"], Sequence[tuple[int, int]]]


@dataclass
class Batch:
    """N images with G ground-truth slots, as NumPy arrays.

    Attributes:
        images: (N, 3, H, W) float32, BGR minus mean, 0 to the right of and below each image.
        image_sizes: (N, 2) float32, height and width of each image, model frame.
        padded_size: (2,) int32, the largest height and the largest width of the batch; equal to
            (H, W) with exact shapes, less within a fixed shape.
        gt_boxes: (N, G, 4) float32 (x1, y1, x2, y2), model frame; 0 in empty slots.
        gt_classes: (N, G) int32, 0 in empty slots.
        gt_valid: (N, G) bool.
        image_ids: N ids of the annotations.
        file_names: N paths.
        original_sizes: (N, 2) int32, height and width, image frame.
        positions: N places in the endless order of all processes, which training draws its
            random numbers by; none in evaluation.
        labelled: (N, K) bool, classes that each image is labelled for; None where its rows do
            not say.
    """

    images: np.ndarray
    image_sizes: np.ndarray
    padded_size: np.ndarray
    gt_boxes: np.ndarray
    gt_classes: np.ndarray
    gt_valid: np.ndarray
    image_ids: list[int | str]
    file_names: list[str]
    original_sizes: np.ndarray
    positions: tuple[int, ...] = ()
    labelled: np.ndarray | None = None


@dataclass(frozen=True)
class Preprocessing:
    """The settings that pictures and boxes are brought to the model frame with.

    The defaults are the paper's.

    Attributes:
        max_size: limit of the long edge.
        pixel_mean: B, G, R.
        pixel_std: B, G, R.
        shapes: (height, width) that batches are padded to, smallest area first; empty: no more
            than the batch needs.
        num_slots: ground-truth slots with fixed shapes.
        max_pixels: larger images are refused.
    """

    max_size: int = 1333
    pixel_mean: tuple[float, ...] = (103.53, 116.28, 123.675)
    pixel_std: tuple[float, ...] = (1.0, 1.0, 1.0)
    shapes: tuple[tuple[int, int], ...] = ()
    num_slots: int = 1
    max_pixels: int = PILLOW_MAX_PIXELS


def parse_shapes(input_shapes: InputShapes) -> tuple[tuple[int, int], ...]:
    """Fixed shapes as (height, width), smallest area first; none for "exact"."""
    if input_shapes == "exact":
        return ()
    return tuple(sorted(input_shapes, key=lambda shape: shape[0] * shape[1]))


def fit_shape(height: int, width: int, shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The first of `shapes` (smallest area first) that holds height x width; itself if none given.

    Raises:
        InputError: no shape is large enough.
    """
    if not shapes:
        return height, width
    for shape in shapes:
        if shape[0] >= height and shape[1] >= width:
            return shape
    raise InputError(
        f"input_shapes: none of {[list(shape) for shape in shapes]} holds {height} x {width} "
        "(height x width); add a larger one or lower the sizes"
    )


def check_shapes(
    sizes: np.ndarray,
    *,
    min_sizes: Sequence[int],
    max_size: int,
    shapes: Sequence[tuple[int, int]],
    batch_size: int,
    grouped: bool,
) -> None:
    """Refuse fixed shapes that some batch will not fit into, before the run starts.

    Args:
        sizes: (n, 2) heights and widths of the images, image frame.
        min_sizes: short edges that may be chosen.
        max_size: limit of the long edge.
        shapes: fixed shapes; nothing is checked without any.
        batch_size: images a batch; more than one may unite the largest height of one image
            with the largest width of another.
        grouped: batches are all landscape or all not.

    Raises:
        InputError: naming a size that fits nowhere.
    """
    if not shapes:
        return
    unique = [(int(height), int(width)) for height, width in np.unique(sizes, axis=0)]
    groups: dict[bool, list[tuple[int, int]]] = {}
    for height, width in unique:
        landscape = grouped and width > height
        for short_edge in min_sizes:
            new = resized_shape(height, width, short_edge, max_size)
            groups.setdefault(landscape, []).append(new)
    for members in groups.values():
        for height, width in sorted(set(members), key=lambda size: -size[0] * size[1]):
            fit_shape(height, width, shapes)
        if batch_size > 1:
            fit_shape(max(h for h, _ in members), max(w for _, w in members), shapes)


Prepared = tuple[Row, tuple[int, int], bool]
"""A row, its height and width in the model frame, and whether it is mirrored."""


def collate(
    prepared: Sequence[Prepared], settings: Preprocessing, positions: Sequence[int] = ()
) -> Batch:
    """Decode, resize, flip, normalise and pad the images of a batch; move their boxes along.

    Args:
        prepared: N images.
        settings: see `Preprocessing`.
        positions: see `Batch`.

    Raises:
        InputError: an image does not decode or has another size than annotated.
    """
    pictures = (_decoded(row, settings.max_pixels) for row, _, _ in prepared)
    return assemble(pictures, prepared, settings, positions)


def _decoded(row: Row, max_pixels: int) -> Image.Image:
    image = decode(row.content, row.file_name, max_pixels)
    check_size(image, row.height, row.width, row.file_name)
    return image


def assemble(
    pictures: Iterable[Image.Image],
    prepared: Sequence[Prepared],
    settings: Preprocessing,
    positions: Sequence[int] = (),
) -> Batch:
    """`collate` for pictures that are decoded already; the rows' `content` is not looked at."""
    heights, widths = zip(*(size for _, size, _ in prepared))
    padded = (max(heights), max(widths))
    shape = fit_shape(*padded, settings.shapes)
    images = np.zeros((len(prepared), 3, *shape), dtype=np.float32)
    labels = []
    for plane, image, (row, (height, width), flip) in zip(images, pictures, prepared):
        pixels = to_bgr(resize(image, height, width), flip)
        normalise_into(plane[:, :height, :width], pixels, settings.pixel_mean, settings.pixel_std)
        boxes, valid = transform_boxes(row.boxes, (row.height, row.width), (height, width), flip)
        labels.append((boxes[valid], row.classes[valid]))
    most = max([1, *(len(boxes) for boxes, _ in labels)])
    slots = max(most, settings.num_slots) if settings.shapes else most
    gt_boxes = np.zeros((len(prepared), slots, 4), dtype=np.float32)
    gt_classes = np.zeros((len(prepared), slots), dtype=np.int32)
    gt_valid = np.zeros((len(prepared), slots), dtype=bool)
    for index, (boxes, classes) in enumerate(labels):
        gt_boxes[index, : len(boxes)] = boxes
        gt_classes[index, : len(boxes)] = classes
        gt_valid[index, : len(boxes)] = True
    rows = [row for row, _, _ in prepared]
    labelled = [row.labelled for row in rows if row.labelled is not None]
    return Batch(
        images=images,
        image_sizes=np.array([size for _, size, _ in prepared], dtype=np.float32),
        padded_size=np.array(padded, dtype=np.int32),
        gt_boxes=gt_boxes,
        gt_classes=gt_classes,
        gt_valid=gt_valid,
        image_ids=[row.image_id for row in rows],
        file_names=[row.file_name for row in rows],
        original_sizes=np.array([(row.height, row.width) for row in rows], dtype=np.int32),
        positions=tuple(positions),
        labelled=np.stack(labelled) if labelled else None,
    )


def run_job(
    prepared: list[Prepared], settings: Preprocessing, positions: Sequence[int] = ()
) -> Batch:
    """`collate`, with the files' names added to any error."""
    try:
        return collate(prepared, settings, positions)
    except InputError:
        raise
    # a bug or a full memory: still say which images it happened with
    except Exception as error:
        names = ", ".join(row.file_name for row, _, _ in prepared)
        raise RuntimeError(f"loading {names} failed: {error!r}") from error
