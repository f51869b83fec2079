# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From a data set's name to batches: records, MindRecord, and the loaders of train and eval."""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from src.data.batch_plan import Sample, endless_batches
from src.data.batching import (
    Batch,
    InputShapes,
    Prepared,
    Preprocessing,
    check_shapes,
    parse_shapes,
    run_job,
)
from src.data.mindrecord_build import build_mindrecord, usable_for_training
from src.data.mindrecord_io import MindRecordInfo, open_mindrecord, read_rows
from src.data.prefetch import Prefetcher
from src.data.transforms import PILLOW_MAX_PIXELS, resized_shape
from src.defrcn import meta_coco, meta_voc
from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.data_types import DatasetInfo, Record
from src.model_utils.errors import InputError
from src.model_utils.random_streams import Stream, generator

__all__ = [
    "Batch",
    "EvalLoader",
    "MindRecordInfo",
    "TrainLoader",
    "build_mindrecord",
    "load_dataset",
    "open_dataset",
    "open_mindrecord",
    "usable_for_training",
]

READERS = {"coco": meta_coco, "voc": meta_voc}


def open_dataset(name: str, **places: Any) -> DatasetInfo:  # noqa: ANN401 - see resolve_dataset
    """`resolve_dataset`, with the classes of a data set of one's own read from its files."""
    info = resolve_dataset(name, **places)
    return READERS[info.format].read_classes(info)


def load_dataset(
    names: Sequence[str],
    **places: Any,  # noqa: ANN401 - see resolve_dataset
) -> tuple[DatasetInfo, list[Record]]:
    """Read one or more data sets that share their classes, one after the other.

    The arguments beside the names are those of `resolve_dataset`.

    Returns:
        The first data set's description, and all records.

    Raises:
        InputError: a name is unknown, a file is wrong, or the classes differ.
    """
    if not names:
        raise InputError("no data set is named")
    infos = [open_dataset(name, **places) for name in names]
    for info in infos[1:]:
        if info.class_names != infos[0].class_names:
            raise InputError(
                f"data sets {infos[0].name} and {info.name} have different classes; "
                "train them one at a time"
            )
    shots = [info.few_shot for info in infos if info.few_shot is not None]
    if len(set(shots)) < len(shots):
        raise InputError(f"data sets {', '.join(names)} hold the same boxes; name one of them")
    records = [record for info in infos for record in READERS[info.format].load_records(info)]
    return infos[0], records


def _check_sharding(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise InputError(f"rank {rank} is not within 0..{world_size - 1}")


def _train_jobs(
    *,
    info: MindRecordInfo,
    plan: Iterator[list[Sample]],
    seed: int,
    min_sizes: Sequence[int],
    flip_probability: float,
    settings: Preprocessing,
) -> Generator[Callable[[], Batch], None, None]:
    """Read the rows of each planned batch in order; draw its sizes and flips."""
    planned: deque[list[Sample]] = deque()

    def indices() -> Iterator[int]:
        for batch in plan:
            planned.append(batch)
            yield from (row for _, row in batch)

    rows = read_rows(info, indices())
    while True:
        first = next(rows)  # the plan of a batch is known once its first row has been asked for
        prepared: list[Prepared] = []
        positions = [position for position, _ in planned.popleft()]
        for position in positions:
            row = next(rows) if prepared else first
            draw = generator(seed, Stream.SAMPLE, position)
            short_edge = min_sizes[int(draw.integers(len(min_sizes)))]
            flip = bool(draw.random() < flip_probability)
            size = resized_shape(row.height, row.width, short_edge, settings.max_size)
            prepared.append((row, size, flip))
        yield functools.partial(run_job, prepared, settings, positions)


class TrainLoader:
    """Endless training batches of one rank.

    Batch number b depends only on the data, the settings, `seed`, `rank`, `world_size` and b;
    `start_batch=b` continues bit for bit. Images are read and prepared in other threads.

    Args:
        mindrecord_dir: folder made by `build_mindrecord(..., training=True)`.
        batch_size: images a batch.
        seed: decides the order, the sizes and the flips; not negative.
        rank: this process among `world_size`.
        world_size: processes that share the data.
        start_batch: number of the first batch.
        min_sizes: short edges to choose from, in pixels.
        max_size: limit of the long edge.
        flip_probability: of a horizontal flip.
        pixel_mean: B, G, R, taken off.
        pixel_std: B, G, R, divided by.
        input_shapes: "exact", or [height, width] pairs that batches are padded to.
        aspect_ratio_grouping: batches hold only images wider than high, or only others.
        num_workers: threads that prepare batches.
        max_image_pixels: larger images are refused.

    Attributes:
        num_images: training images of all ranks.
        class_names: the position is the class index.
        next_batch: number of the batch that `next()` gives.

    Raises:
        InputError: the folder is not whole, or an image does not fit `input_shapes`.
    """

    def __init__(
        self,
        mindrecord_dir: str | os.PathLike[str],
        *,
        batch_size: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
        min_sizes: Sequence[int] = (640, 672, 704, 736, 768, 800),
        max_size: int = 1333,
        flip_probability: float = 0.5,
        pixel_mean: Sequence[float] = (103.53, 116.28, 123.675),
        pixel_std: Sequence[float] = (1.0, 1.0, 1.0),
        input_shapes: InputShapes = "exact",
        aspect_ratio_grouping: bool = True,
        num_workers: int = 2,
        max_image_pixels: int = PILLOW_MAX_PIXELS,
    ) -> None:
        _check_sharding(rank, world_size)
        if batch_size < 1 or start_batch < 0 or seed < 0 or not min_sizes:
            raise InputError(
                f"batch_size {batch_size}, start_batch {start_batch}, seed {seed} and min_sizes "
                f"{list(min_sizes)}: must be at least 1, 0, 0 and one number"
            )
        info = open_mindrecord(mindrecord_dir)
        self.num_images = info.num_rows
        self.class_names = info.class_names
        self.next_batch = start_batch
        self._num_workers = max(num_workers, 1)
        settings = Preprocessing(
            max_size=max_size,
            pixel_mean=tuple(pixel_mean),
            pixel_std=tuple(pixel_std),
            shapes=parse_shapes(input_shapes),
            num_slots=info.max_boxes,
            max_pixels=max_image_pixels,
        )
        check_shapes(
            info.sizes,
            min_sizes=min_sizes,
            max_size=max_size,
            shapes=settings.shapes,
            batch_size=batch_size,
            grouped=aspect_ratio_grouping,
        )
        self._plan = functools.partial(
            endless_batches,
            num_rows=self.num_images,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            is_landscape=info.sizes[:, 1] > info.sizes[:, 0] if aspect_ratio_grouping else None,
        )
        # a function of the module: the loading thread must not keep the loader alive
        self._jobs = functools.partial(
            _train_jobs,
            info=info,
            seed=seed,
            min_sizes=tuple(min_sizes),
            flip_probability=flip_probability,
            settings=settings,
        )
        self._prefetcher: Prefetcher[Batch] | None = None

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> Batch:
        if self._prefetcher is None:
            jobs = self._jobs(plan=self._plan(start_batch=self.next_batch))
            self._prefetcher = Prefetcher(jobs, self._num_workers, self._num_workers + 1)
            weakref.finalize(self, self._prefetcher.close)
        batch = next(self._prefetcher)
        self.next_batch += 1
        return batch

    def close(self) -> None:
        """Stop the threads; iterating afterwards goes on with `next_batch`."""
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None


class EvalLoader:
    """The images of a test set one by one, in the order of the records.

    Every iteration starts from the beginning; `len()` is the number of this rank's images. The
    arguments are those of `TrainLoader`; `min_size` is the one short edge.

    Attributes:
        num_images: test images of all ranks.
        class_names: the position is the class index.

    Raises:
        InputError: the folder is not whole, or an image does not fit `input_shapes`.
    """

    def __init__(
        self,
        mindrecord_dir: str | os.PathLike[str],
        *,
        rank: int = 0,
        world_size: int = 1,
        min_size: int = 800,
        max_size: int = 1333,
        pixel_mean: Sequence[float] = (103.53, 116.28, 123.675),
        pixel_std: Sequence[float] = (1.0, 1.0, 1.0),
        input_shapes: InputShapes = "exact",
        num_workers: int = 2,
        max_image_pixels: int = PILLOW_MAX_PIXELS,
    ) -> None:
        _check_sharding(rank, world_size)
        self._info = open_mindrecord(mindrecord_dir)
        self.num_images = self._info.num_rows
        self.class_names = self._info.class_names
        self._indices = range(rank, self.num_images, world_size)
        self._min_size = min_size
        self._num_workers = max(num_workers, 1)
        self._settings = Preprocessing(
            max_size=max_size,
            pixel_mean=tuple(pixel_mean),
            pixel_std=tuple(pixel_std),
            shapes=parse_shapes(input_shapes),
            num_slots=self._info.max_boxes,
            max_pixels=max_image_pixels,
        )
        check_shapes(
            self._info.sizes,
            min_sizes=(min_size,),
            max_size=max_size,
            shapes=self._settings.shapes,
            batch_size=1,
            grouped=False,
        )

    def __len__(self) -> int:
        return len(self._indices)

    def _jobs(self) -> Generator[Callable[[], Batch], None, None]:
        settings = self._settings
        for row in read_rows(self._info, self._indices):
            size = resized_shape(row.height, row.width, self._min_size, settings.max_size)
            yield functools.partial(run_job, [(row, size, False)], settings)

    def __iter__(self) -> Iterator[Batch]:
        ahead = self._num_workers + 1
        with contextlib.closing(Prefetcher(self._jobs(), self._num_workers, ahead)) as batches:
            yield from batches
