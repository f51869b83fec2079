# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From a data set's name to batches: records, MindRecord, and the loaders of train and eval."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from src.data.batch_plan import endless_batches
from src.data.batching import Batch, Prepared, Preprocessing, check_shapes, run_job
from src.data.mindrecord_build import build_mindrecord, usable_for_training
from src.data.mindrecord_io import MindRecordInfo, Row, open_mindrecord, read_rows
from src.data.prefetch import Prefetched
from src.data.transforms import resized_shape
from src.defrcn import meta_coco, meta_voc, meta_yolo
from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.data_types import DatasetInfo, Record
from src.model_utils.errors import InputError
from src.model_utils.random_streams import Stream, generator

__all__ = [
    "Batch",
    "EvalLoader",
    "MindRecordInfo",
    "Preprocessing",
    "TrainLoader",
    "build_mindrecord",
    "check_together",
    "load_dataset",
    "open_dataset",
    "open_mindrecord",
    "usable_for_training",
]

DEFAULTS = Preprocessing()
READERS = {"coco": meta_coco, "voc": meta_voc, "yolo": meta_yolo}


def open_dataset(name: str, **places: Any) -> DatasetInfo:  # noqa: ANN401 - see resolve_dataset
    """`resolve_dataset`, with the classes of a data set of one's own read from its files."""
    info = resolve_dataset(name, **places)
    return READERS[info.format].read_classes(info)


def check_together(infos: Sequence[DatasetInfo]) -> None:
    """Refuse sets that cannot be trained on or judged together.

    Raises:
        InputError: their classes differ, or two hold the same boxes.
    """
    for info in infos[1:]:
        if info.class_names != infos[0].class_names:
            raise InputError(
                f"data sets {infos[0].name} and {info.name} have different classes; "
                "train them one at a time"
            )
    shots = [info.few_shot for info in infos if info.few_shot is not None]
    if len(set(shots)) < len(shots):
        names = ", ".join(info.name for info in infos)
        raise InputError(f"data sets {names} hold the same boxes; name one of them")


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
    check_together(infos)
    records = [record for info in infos for record in READERS[info.format].load_records(info)]
    return infos[0], records


class _Loader:
    """A MindRecord folder and how its pictures are prepared.

    Attributes:
        num_images: images of all ranks.
        class_names: the position is the class index.
    """

    def __init__(
        self,
        mindrecord_dir: str | os.PathLike[str],
        settings: Preprocessing,
        min_sizes: Sequence[int],
        num_workers: int,
        *,
        batch_size: int = 1,
        grouped: bool = False,
    ) -> None:
        self._info = info = open_mindrecord(mindrecord_dir)
        self.num_images = info.num_rows
        self.class_names = info.class_names
        self._settings = settings = replace(settings, num_slots=info.max_boxes)
        self._min_sizes = tuple(min_sizes)
        self._num_workers = max(num_workers, 1)
        check_shapes(
            info.sizes,
            min_sizes=min_sizes,
            max_size=settings.max_size,
            shapes=settings.shapes,
            batch_size=batch_size,
            grouped=grouped,
        )

    def _prepare(self, row: Row, short_edge: int, flip: bool = False) -> Prepared:
        size = resized_shape(row.height, row.width, short_edge, self._settings.max_size)
        return row, size, flip

    def _batches(self, jobs: Iterator[Callable[[], Batch]]) -> Prefetched[Batch]:
        return Prefetched(jobs, self._num_workers, self._num_workers + 1)


class TrainLoader(_Loader):
    """Endless training batches of one rank.

    Batch number b depends only on the data, the settings, `seed`, `rank`, `world_size` and b;
    `start_batch=b` continues bit for bit. Images are prepared in other threads.

    Args:
        mindrecord_dir: folder made by `build_mindrecord(..., training=True)`.
        settings: see `Preprocessing`; `num_slots` is the folder's.
        batch_size: images a batch.
        seed: decides the order, the sizes and the flips; not negative.
        rank: this process among `world_size`.
        world_size: processes that share the data.
        start_batch: number of the first batch.
        min_sizes: short edges to choose from, in pixels.
        flip_probability: of a horizontal flip.
        aspect_ratio_grouping: batches hold only images wider than high, or only others.
        num_workers: threads that prepare batches.
        labelled: batches say what their images are labelled for, see `Batch.labelled`.

    Attributes:
        next_batch: number of the batch that `next()` gives.

    Raises:
        InputError: the folder is not whole, an image does not fit the shapes of `settings`, or
            `labelled` is asked of a folder that was built without.
    """

    def __init__(
        self,
        mindrecord_dir: str | os.PathLike[str],
        settings: Preprocessing = DEFAULTS,
        *,
        batch_size: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
        min_sizes: Sequence[int] = (640, 672, 704, 736, 768, 800),
        flip_probability: float = 0.5,
        aspect_ratio_grouping: bool = True,
        num_workers: int = 2,
        labelled: bool = False,
    ) -> None:
        super().__init__(
            mindrecord_dir,
            settings,
            min_sizes,
            num_workers,
            batch_size=batch_size,
            grouped=aspect_ratio_grouping,
        )
        if labelled and not self._info.labelled:
            raise InputError(
                f"{mindrecord_dir} does not say what its images are labelled for; build it again "
                "with `labelled`"
            )
        self.next_batch = start_batch
        self._labelled = labelled
        self._seed = seed
        self._flip_probability = flip_probability
        sizes = self._info.sizes
        self._plan = functools.partial(
            endless_batches,
            num_rows=self.num_images,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            is_landscape=sizes[:, 1] > sizes[:, 0] if aspect_ratio_grouping else None,
        )
        self._running: Prefetched[Batch] | None = None

    def _jobs(self) -> Iterator[Callable[[], Batch]]:
        """Read the rows of each planned batch in order; draw its sizes and flips."""
        planned, ahead = itertools.tee(self._plan(start_batch=self.next_batch))
        rows = read_rows(self._info, (row for batch in ahead for _, row in batch))
        for batch in planned:
            positions = [position for position, _ in batch]
            prepared = []
            for position, stored in zip(positions, rows):
                row = stored if self._labelled else replace(stored, labelled=None)
                draw = generator(self._seed, Stream.SAMPLE, position)
                short_edge = self._min_sizes[int(draw.integers(len(self._min_sizes)))]
                flip = bool(draw.random() < self._flip_probability)
                prepared.append(self._prepare(row, short_edge, flip))
            yield functools.partial(run_job, prepared, self._settings, positions)

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> Batch:
        if self._running is None:
            self._running = self._batches(self._jobs())
        batch = next(self._running)
        self.next_batch += 1
        return batch

    def close(self) -> None:
        """Stop the threads; iterating afterwards goes on with `next_batch`."""
        if self._running is not None:
            self._running.close()
            self._running = None


class EvalLoader(_Loader):
    """The images of a test set one by one, in the order of the records.

    Every iteration starts from the beginning; `len()` is the number of this rank's images. The
    arguments are those of `TrainLoader`; `min_size` is the one short edge.

    Raises:
        InputError: the folder is not whole, or an image does not fit the shapes of `settings`.
    """

    def __init__(
        self,
        mindrecord_dir: str | os.PathLike[str],
        settings: Preprocessing = DEFAULTS,
        *,
        rank: int = 0,
        world_size: int = 1,
        min_size: int = 800,
        num_workers: int = 2,
    ) -> None:
        super().__init__(mindrecord_dir, settings, (min_size,), num_workers)
        self._indices = range(rank, self.num_images, world_size)

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Batch]:
        return self._batches(self._jobs())

    def _jobs(self) -> Iterator[Callable[[], Batch]]:
        for row in read_rows(self._info, self._indices):
            prepared = self._prepare(row, self._min_sizes[0])
            yield functools.partial(run_job, [prepared], self._settings)
