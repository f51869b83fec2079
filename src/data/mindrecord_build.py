# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From records to a MindRecord folder: check every image, drop what cannot be used, write."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src.data.mindrecord_io import (
    FORMAT_VERSION,
    MAX_IMAGE_BYTES,
    META_NAME,
    FolderWriter,
    MindRecordInfo,
    Row,
    whole_folder,
)
from src.data.mindrecord_wait import WAIT_MINUTES, await_folder, locked
from src.data.prefetch import Prefetched
from src.data.transforms import (
    check_size,
    clip_boxes,
    decode,
    header,
    non_empty,
    to_xyxy,
)
from src.defrcn.built_datacategory import Record
from src.defrcn.picture_file import PILLOW_MAX_PIXELS
from src.model_utils.errors import InputError
from src.util import read_regular, umask, write_text

logger = logging.getLogger(__name__)

NUM_EXAMPLES = 5
NUM_NAMED_PROBLEMS = 3

KINDS = {
    "crowd": "objects marked as crowd left out",
    "empty": "boxes without area (zero size or outside the image) left out",
    "negative": "boxes of negative size left out",
    "border": "boxes that cross the border, clipped when they are used",
    "no_objects": "images without a usable object left out of training",
    "rotated": "images turned by their EXIF orientation",
    "grey": "greyscale images, used as three equal channels",
    "deep": "greyscale images of 16 bits, of which the upper 8 are used",
}
ORDINARY = ("crowd", "border", "no_objects", "rotated", "grey", "deep")


@dataclass
class BuildReport:
    """Counts of what is unusual in a data set, with a few file names of each kind."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    examples: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(self, kind: str, file_name: str, count: int = 1) -> None:
        """Count something, and remember the file's name if it is among the first."""
        self.counts[kind] += count
        names = self.examples[kind]
        if count and file_name not in names and len(names) < NUM_EXAMPLES:
            names.append(file_name)

    def log(self, folder: Path) -> None:
        """Write one line a kind that occurred."""
        for kind, text in KINDS.items():
            if self.counts[kind]:
                names = ", ".join(self.examples[kind])
                level = logging.INFO if kind in ORDINARY else logging.WARNING
                logger.log(level, "%s: %d %s (%s ...)", folder, self.counts[kind], text, names)


def usable_for_training(records: Sequence[Record]) -> list[Record]:
    """Leave out the records in which no object counts: none at all, or crowds only."""
    return [
        record
        for record in records
        if any(annotation.iscrowd == 0 for annotation in record.annotations)
    ]


def usable_boxes(record: Record, report: BuildReport) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of a record that can be trained on.

    Crowds, and boxes that are empty once clipped to the image, are dropped and counted. The boxes
    that stay are not clipped yet: that happens in the model frame.

    Returns:
        Boxes (n, 4) float32 (x1, y1, x2, y2), image frame, and classes (n,) int32.
    """
    plain = [annotation for annotation in record.annotations if annotation.iscrowd == 0]
    report.add("crowd", record.file_name, len(record.annotations) - len(plain))
    corners = [to_xyxy(annotation.bbox, annotation.bbox_mode) for annotation in plain]
    boxes = np.array(corners, dtype=np.float64).reshape(-1, 4)
    classes = np.array([annotation.category_id for annotation in plain], dtype=np.int32)
    negative = np.any(boxes[:, 2:] < boxes[:, :2], axis=1)
    clipped = clip_boxes(boxes, record.height, record.width)
    kept = non_empty(clipped, threshold=0.0)
    report.add("negative", record.file_name, int(negative.sum()))
    report.add("empty", record.file_name, int((~kept & ~negative).sum()))
    report.add("border", record.file_name, int((kept & np.any(clipped != boxes, axis=1)).sum()))
    return boxes[kept].astype(np.float32), classes[kept]


def labelled_classes(record: Record, num_classes: int) -> np.ndarray:
    """Which classes a record's annotations name: (K,) bool; crowds and empty boxes count too."""
    labelled = np.zeros(num_classes, bool)
    labelled[[annotation.category_id for annotation in record.annotations]] = True
    labelled[list(record.crowd_classes)] = True
    return labelled


def input_key(
    records: Sequence[Record], *, training: bool, class_names: Sequence[str], max_pixels: int
) -> str:
    """Hash of everything that a MindRecord folder depends on.

    The image files count by size and time of change; a missing one as missing.
    """
    settings = [FORMAT_VERSION, training, list(class_names), max_pixels]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for record in records:
        try:
            status = os.stat(record.file_name)
            state = (status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            state = (-1, -1)
        entry = (os.path.abspath(record.file_name), record, state)
        digest.update(repr(entry).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def with_labels(key: str, records: Sequence[Record]) -> str:
    """The key of a folder whose rows hold `Row.labelled`, from that of one without."""
    crowds = [record.crowd_classes for record in records]
    return hashlib.sha256(f"{key} labelled{crowds if any(crowds) else ''}".encode()).hexdigest()


def _read_image(record: Record, max_pixels: int) -> tuple[bytes, list[str]] | str:
    """The bytes of a record's image after it was checked and its oddities; or what is wrong."""
    name = record.file_name
    try:
        content = read_regular(name, MAX_IMAGE_BYTES)  # what a row of MindRecord can hold
        oddities = header(content, name, (record.height, record.width))
        image = decode(content, name, max_pixels)
        check_size(image, record.height, record.width, name)
    except OSError as error:
        return f"{name}: cannot be read ({error.strerror})"
    except ValueError as error:
        return f"{name}: cannot be read ({error})"
    except InputError as error:
        return str(error)
    return content, oddities


def _refuse(problems: list[str], total: int, folder: Path) -> None:
    """Tell all images that cannot be used, in one sentence and one file."""
    listing = folder.parent / f"{folder.name}.problems.txt"
    write_text(listing, "\n".join(problems) + "\n")
    more = len(problems) - NUM_NAMED_PROBLEMS
    shown = "; ".join(problems[:NUM_NAMED_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
    raise InputError(
        f"{len(problems)} of {total} images cannot be used: {shown}; correct them or take them out "
        f"of the annotations (all are listed in {listing})"
    )


def _check_replaceable(folder: Path) -> None:
    """Only remove what this module has written."""
    if not folder.exists():
        return
    names = os.listdir(folder) if folder.is_dir() else ["a file"]
    foreign = [name for name in names if name != META_NAME and not name.startswith("data-")]
    if foreign:
        raise InputError(
            f"{folder} is not a MindRecord folder (it holds {foreign[0]!r}); name another folder"
        )


def _check_space(records: Sequence[Record], folder: Path) -> int:
    """Refuse to start on a disk that is too small; return the bytes of the largest image."""
    sizes = []
    for record in records:
        with contextlib.suppress(OSError, ValueError):
            sizes.append(os.path.getsize(record.file_name))
    needed = int(sum(sizes) * 1.1) + (64 << 20)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise InputError(
            f"{folder.parent}: {needed >> 20} MB are needed for MindRecord and {free >> 20} MB are "
            "free; make room or set another folder"
        )
    return min(max(sizes, default=0), MAX_IMAGE_BYTES)


def _write(
    name: str,
    kept: Sequence[tuple[Record, np.ndarray, np.ndarray]],
    writer: FolderWriter,
    report: BuildReport,
    *,
    num_classes: int | None,
    max_pixels: int,
    num_workers: int,
    show_progress: bool,
) -> list[str]:
    """Check the images in threads (Pillow decodes outside the interpreter lock), write in order.

    With a number of classes, rows hold which of these their images are labelled for.

    Returns:
        What is wrong, one sentence an image; from the first one on, nothing is written.
    """
    problems: list[str] = []
    jobs = (functools.partial(_read_image, record, max_pixels) for record, _, _ in kept)
    with contextlib.closing(Prefetched(jobs, num_workers, 4 * max(num_workers, 1))) as checked:
        pairs = tqdm(
            zip(kept, checked),
            total=len(kept),
            desc=name,
            unit="image",
            disable=not show_progress,
        )
        for (record, boxes, classes), result in pairs:
            if isinstance(result, str):
                problems.append(result)
                continue
            content, oddities = result
            for kind in oddities:
                report.add(kind, record.file_name)
            size = (record.height, record.width)
            named = (record.image_id, record.file_name)
            labelled = None if num_classes is None else labelled_classes(record, num_classes)
            if not problems:
                writer.write(Row(content, boxes, classes, *size, *named, labelled))
    return problems


def _replace(partial: Path, folder: Path) -> None:
    """Move a finished folder into place."""
    if folder.exists():
        old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old-"))
        os.rename(folder, old / "replaced")
        os.rename(partial, folder)
        shutil.rmtree(old)
    else:
        os.rename(partial, folder)


def _remove_leftovers(folder: Path) -> None:
    """Remove what interrupted builds of this folder left; the lock is held."""
    for kind in ("building", "old"):
        for path in folder.parent.glob(f".{folder.name}.{kind}-*"):
            logger.info("%s: removing what an interrupted run left behind", path)
            shutil.rmtree(path)


def build_mindrecord(
    records: Sequence[Record],
    folder: str | os.PathLike[str],
    *,
    class_names: Sequence[str],
    training: bool,
    labelled: bool = False,
    max_image_pixels: int = PILLOW_MAX_PIXELS,
    num_workers: int = 2,
    show_progress: bool = True,
    builds: bool = True,
    wait_minutes: float = WAIT_MINUTES,
) -> MindRecordInfo:
    """Make the MindRecord folder of a data set, or use the one that is there.

    A folder that was built from the same inputs and is whole is used as it is. Anything else is
    built under a temporary name beside it and renamed when it is complete, so an interrupted run
    leaves nothing that passes for a data set.

    Args:
        records: the images in order.
        folder: where the folder shall be.
        class_names: the position is the class index.
        training: leave out images without a usable object.
        labelled: rows hold the classes that their images are labelled for. A folder with them is
            used as it is without the wish, too.
        max_image_pixels: larger images are refused.
        num_workers: threads that read and check images.
        show_progress: draw a progress bar.
        builds: whether this process builds; otherwise it waits for one that does.
        wait_minutes: longest wait for another process that builds.

    Raises:
        InputError: images are missing, unreadable, too large or of another size than annotated
            (all of them are named), nothing is left to train on, the disk is too small, or
            another process did not build in time.
    """
    folder = Path(folder)
    if max_image_pixels > PILLOW_MAX_PIXELS:
        raise InputError(f"max_image_pixels {max_image_pixels} is over {PILLOW_MAX_PIXELS}")
    key = input_key(
        records, training=training, class_names=class_names, max_pixels=max_image_pixels
    )
    labelled_key = with_labels(key, records)
    keys = (labelled_key,) if labelled else (key, labelled_key)
    if not builds:
        return await_folder(folder, keys, wait_minutes)
    with locked(folder, wait_minutes):
        try:
            info = whole_folder(folder, keys)
            logger.info("%s: %d images, built before from the same inputs", folder, info.num_rows)
            return info
        except (ValueError, LookupError, TypeError, OverflowError) as reason:
            logger.info("%s: building, because %s", folder, reason)
        _check_replaceable(folder)
        _remove_leftovers(folder)
        _build(
            records,
            folder,
            keys[0],
            class_names,
            training=training,
            labelled=labelled,
            max_pixels=max_image_pixels,
            num_workers=num_workers,
            show_progress=show_progress,
        )
        return whole_folder(folder, keys, full=False)


def _build(
    records: Sequence[Record],
    folder: Path,
    key: str,
    class_names: Sequence[str],
    *,
    training: bool,
    labelled: bool,
    max_pixels: int,
    num_workers: int,
    show_progress: bool,
) -> None:
    report = BuildReport()
    kept = []
    for record in records:
        boxes, classes = usable_boxes(record, report)
        if training and len(boxes) == 0:
            report.add("no_objects", record.file_name)
        else:
            kept.append((record, boxes, classes))
    if not kept:
        raise InputError(f"{folder}: none of {len(records)} images has an object to train on")
    largest = _check_space([record for record, _, _ in kept], folder)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.building-"))
    try:
        writer = FolderWriter(partial, largest, labelled=labelled)
        problems = _write(
            folder.name,
            kept,
            writer,
            report,
            num_classes=len(class_names) if labelled else None,
            max_pixels=max_pixels,
            num_workers=num_workers,
            show_progress=show_progress,
        )
        if problems:
            _refuse(problems, len(kept), folder)
        writer.finish(key, class_names, asdict(report))
        partial.chmod(0o777 & ~umask())
        _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    (folder.parent / f"{folder.name}.problems.txt").unlink(missing_ok=True)
    report.log(folder)
