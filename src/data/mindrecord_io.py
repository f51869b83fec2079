# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""MindRecord folders: written whole or not at all, tied to their inputs, read by row.

A folder holds `data-NNNN.mindrecord` files with their `.db` indices and `meta.json`, written last.
MindRecord itself notices neither a flipped bit nor a missing row, so `meta.json` keeps sizes and
checksums of the files, and every row carries a checksum that is tested when it is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from src.model_utils.errors import InputError
from src.util import sha256_file, write_json

FORMAT_VERSION = 1
META_NAME = "meta.json"
SHARD_BYTES = 1 << 30
MIN_PAGE_BYTES, MAX_PAGE_BYTES = 1 << 22, 1 << 28  # a row must fit into a page of MindRecord
HEADER_BYTES = 1 << 22
ROW_MARGIN = 1 << 20  # room for boxes and texts beside the image
MAX_IMAGE_BYTES = MAX_PAGE_BYTES - ROW_MARGIN
FULL_CHECK_BYTES = 2 << 30  # larger folders are checked by size and index, rows when read
BLOCK_ROWS = 4096
_DATA_FILE = re.compile(r"data-\d{4,}\.mindrecord(\.db)?")

# One row. MindRecord returns an array of no rows as something else, so there is always one box
# and `num_boxes` says how many of them count; texts are never empty for the same reason.
SCHEMA: dict[str, dict[str, Any]] = {
    "row": {"type": "int64"},
    "image": {"type": "bytes"},
    "boxes": {"type": "float32", "shape": [-1, 4]},
    "classes": {"type": "int32", "shape": [-1]},
    "num_boxes": {"type": "int32"},
    "size": {"type": "int32", "shape": [2]},
    "image_id": {"type": "string"},
    "file_name": {"type": "string"},
    "crc": {"type": "int64"},
}
LABELLED: dict[str, Any] = {"type": "int32", "shape": [-1]}  # of folders that hold it, 0 or 1


@dataclass(frozen=True)
class Row:
    """One stored image.

    Attributes:
        content: bytes of the image file, as on disk.
        boxes: (n, 4) float32 (x1, y1, x2, y2), image frame, not clipped.
        classes: (n,) int32 class indices.
        height: pixels, EXIF orientation applied.
        width: pixels.
        image_id: the id in the annotations.
        file_name: path when the folder was built.
        labelled: (K,) bool, classes that the image's annotations name, those of boxes that are
            left out included; None in a folder that was built without.
    """

    content: bytes
    boxes: np.ndarray
    classes: np.ndarray
    height: int
    width: int
    image_id: int | str
    file_name: str
    labelled: np.ndarray | None = None


@dataclass(frozen=True)
class MindRecordInfo:
    """A MindRecord folder and what `meta.json` says of it.

    Attributes:
        folder: where it is.
        num_rows: images.
        class_names: the position is the class index.
        max_boxes: most boxes of an image, at least 1.
        sizes: (num_rows, 2) int32 height, width, image frame.
        num_boxes: (num_rows,) int32.
        report: what was dropped or is unusual, by kind, with a few file names.
        files: the data files in row order.
        labelled: whether rows hold the classes that their images are labelled for.
    """

    folder: Path
    num_rows: int
    class_names: tuple[str, ...]
    max_boxes: int
    sizes: np.ndarray
    num_boxes: np.ndarray
    report: dict[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    labelled: bool = False


def row_crc(index: int, row: Row) -> int:
    """Checksum of everything in a row, its place included."""
    text = json.dumps([index, row.height, row.width, row.image_id, row.file_name]).encode()
    crc = zlib.crc32(row.content, zlib.crc32(text))
    crc = zlib.crc32(row.classes.tobytes(), zlib.crc32(row.boxes.tobytes(), crc))
    return crc if row.labelled is None else zlib.crc32(row.labelled.tobytes(), crc)


def _raw(index: int, row: Row) -> dict[str, Any]:
    """A row in the form that MindRecord stores."""
    empty = len(row.boxes) == 0
    labelled = {} if row.labelled is None else {"labelled": row.labelled.astype(np.int32)}
    return {
        "row": index,
        "image": row.content,
        "boxes": np.zeros((1, 4), np.float32) if empty else row.boxes,
        "classes": np.zeros(1, np.int32) if empty else row.classes,
        "num_boxes": len(row.boxes),
        "size": np.array([row.height, row.width], np.int32),
        "image_id": json.dumps(row.image_id),
        "file_name": row.file_name,
        "crc": row_crc(index, row),
        **labelled,
    }


@contextlib.contextmanager
def _mindrecord_writes(folder: Path) -> Iterator[None]:
    """Turn what MindRecord's writer raises into one sentence.

    It stops when less than 10 MB are free, and at every error of the system.
    """
    try:
        yield
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.startswith("[ERROR]")]
        said = lines[-1][len("[ERROR]") :].strip() if lines else str(error).strip()
        raise InputError(
            f"{folder}: MindRecord cannot be written ({said:.200}); make room there or name "
            "another folder"
        ) from error


def _schema(labelled: bool) -> dict[str, dict[str, Any]]:
    return {**SCHEMA, "labelled": LABELLED} if labelled else SCHEMA


class FolderWriter:
    """Writes rows into the data files of one folder, a new file every `SHARD_BYTES`.

    Args:
        folder: an empty folder.
        largest_image: bytes of the largest image, which decides the page size; a page is the
            least that a file takes on disk.
        labelled: whether rows have `Row.labelled`.
    """

    def __init__(self, folder: Path, largest_image: int, *, labelled: bool = False) -> None:
        self.folder = folder
        self._schema = _schema(labelled)
        page = 1 << (largest_image + ROW_MARGIN - 1).bit_length()
        self._page_bytes = min(max(page, MIN_PAGE_BYTES), MAX_PAGE_BYTES)
        self.sizes: list[tuple[int, int]] = []
        self.num_boxes: list[int] = []
        self._writer: Any = None
        self._bytes = 0
        self._files: list[Path] = []

    def write(self, row: Row) -> None:
        """Append a row.

        Raises:
            InputError: the disk is full.
        """
        from mindspore.mindrecord import FileWriter

        with _mindrecord_writes(self.folder):
            if self._writer is None:
                path = self.folder / f"data-{len(self._files):04d}.mindrecord"
                self._writer = FileWriter(str(path), shard_num=1, overwrite=False)
                self._writer.set_header_size(HEADER_BYTES)
                self._writer.set_page_size(self._page_bytes)
                self._writer.add_schema(self._schema, "images with boxes and classes")
                self._files.append(path)
                self._bytes = 0
            self._writer.write_raw_data([_raw(len(self.sizes), row)])
            self.sizes.append((row.height, row.width))
            self.num_boxes.append(len(row.boxes))
            self._bytes += len(row.content)
            if self._bytes >= SHARD_BYTES:
                self._commit()

    def _commit(self) -> None:
        if self._writer is not None:
            self._writer.commit()
            self._writer = None

    def finish(self, key: str, class_names: Iterable[str], report: dict[str, Any]) -> None:
        """Close the files, flush them to disk, and write `meta.json`.

        Raises:
            InputError: the disk is full.
        """
        with _mindrecord_writes(self.folder):
            self._commit()
        files = {}
        for path in (Path(f"{path}{end}") for path in self._files for end in ("", ".db")):
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        meta = {
            "format_version": FORMAT_VERSION,
            "key": key,
            "num_rows": len(self.sizes),
            "class_names": list(class_names),
            "max_boxes": max([1, *self.num_boxes]),
            "files": files,
            "report": report,
            "sizes": self.sizes,
            "num_boxes": self.num_boxes,
            **({"labelled": True} if "labelled" in self._schema else {}),
        }
        write_json(self.folder / META_NAME, meta, indent=None)


def _meta(folder: Path) -> dict[str, Any]:
    """Read `meta.json`; ValueError says what is wrong with the folder."""
    try:
        meta = json.loads((folder / META_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{META_NAME} is missing") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{META_NAME} cannot be read: {error}") from error
    if not isinstance(meta, dict) or meta.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{META_NAME} is of another version of this program")
    _check_meta(meta)
    return meta


def _check_meta(meta: dict[str, Any]) -> None:
    """ValueError if `meta.json` was changed into something that this module does not write."""
    files, rows = meta.get("files"), meta.get("num_rows")
    if not isinstance(files, dict) or not all(_DATA_FILE.fullmatch(name) for name in files):
        raise ValueError(f"{META_NAME} names other files than there can be")
    entries = [(entry["bytes"], entry["sha256"]) for entry in files.values()]
    if not all(isinstance(size, int) and isinstance(digest, str) for size, digest in entries):
        raise ValueError(f"{META_NAME} lacks sizes or checksums of its files")
    sizes = np.array(meta["sizes"], dtype=np.int32)
    if not isinstance(rows, int) or sizes.shape != (rows, 2) or len(meta["num_boxes"]) != rows:
        raise ValueError(f"{META_NAME} does not have a size and a number of boxes for each image")


def _check_files(folder: Path, meta: dict[str, Any], full: bool) -> None:
    """Compare the files with `meta.json`; ValueError says which one differs."""
    total = sum(entry["bytes"] for entry in meta["files"].values())
    for name, entry in meta["files"].items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != entry["bytes"]:
            raise ValueError(f"{name} has {path.stat().st_size} bytes, not {entry['bytes']}")
        wanted = name.endswith(".db") or (full and total <= FULL_CHECK_BYTES)
        if wanted and sha256_file(path) != entry["sha256"]:
            raise ValueError(f"the content of {name} has changed")


def whole_folder(folder: Path, keys: Collection[str] = (), full: bool = True) -> MindRecordInfo:
    """Describe a folder after checking it.

    Args:
        folder: a MindRecord folder.
        keys: hashes of inputs, one of which it must have been built from; none accepts any.
        full: also compare the data files' checksums, up to `FULL_CHECK_BYTES`.

    Raises:
        ValueError: the folder is absent, damaged, or built from other inputs; says what.
    """
    if not folder.is_dir():
        raise ValueError("it does not exist")
    meta = _meta(folder)
    if keys and meta["key"] not in keys:
        raise ValueError("annotations, images or settings have changed since it was built")
    _check_files(folder, meta, full)
    return MindRecordInfo(
        folder=folder,
        num_rows=meta["num_rows"],
        class_names=tuple(meta["class_names"]),
        max_boxes=meta["max_boxes"],
        sizes=np.array(meta["sizes"], dtype=np.int32).reshape(-1, 2),
        num_boxes=np.array(meta["num_boxes"], dtype=np.int32),
        report=meta["report"],
        files=tuple(folder / name for name in sorted(meta["files"]) if not name.endswith(".db")),
        labelled=meta.get("labelled") is True,
    )


def open_mindrecord(folder: str | os.PathLike[str]) -> MindRecordInfo:
    """Open a folder for reading (sizes and indices are checked, rows when they are read).

    Raises:
        InputError: the folder is absent or damaged.
    """
    try:
        return whole_folder(Path(folder), full=False)
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise InputError(
            f"{folder} is not a whole MindRecord folder: {error}; remove it and build it again"
        ) from error


def _row(raw: dict[str, np.ndarray], expected: int, info: MindRecordInfo) -> Row:
    """A stored row in the form that the program uses, after its checksum was tested."""
    count = int(raw["num_boxes"])
    boxes = np.asarray(raw["boxes"], dtype=np.float32).reshape(-1, 4)[:count].copy()
    classes = np.asarray(raw["classes"], dtype=np.int32).reshape(-1)[:count].copy()
    labelled = np.asarray(raw["labelled"]).reshape(-1) == 1 if info.labelled else None
    name = str(raw["file_name"])
    try:
        image_id = json.loads(str(raw["image_id"]))
        height, width = (int(value) for value in raw["size"].reshape(-1))
        size = (height, width)
        row = Row(raw["image"].tobytes(), boxes, classes, *size, image_id, name, labelled)
        intact = row_crc(expected, row) == int(raw["crc"]) and int(raw["row"]) == expected
    except ValueError:
        intact = False
    if not intact:
        raise InputError(
            f"{info.folder}: row {expected} ({name}) is damaged; remove the folder and build it "
            "again"
        )
    return row


def read_rows(info: MindRecordInfo, indices: Iterable[int]) -> Iterator[Row]:
    """Read rows in the order of `indices`, which may repeat and may be endless.

    `MindDataset` takes a list of at most as many rows as there are, so the order is handed over
    in blocks; opening the next block costs some 10 ms whatever the size of the data set.

    Raises:
        InputError: a row is damaged, or the folder cannot be read.
    """
    import mindspore.dataset as ds

    files = [str(path) for path in info.files]
    remaining = iter(indices)
    while block := list(islice(remaining, min(info.num_rows, BLOCK_ROWS))):
        try:
            data = ds.MindDataset(
                files,
                columns_list=list(_schema(info.labelled)),
                sampler=ds.SubsetSampler(block),
                num_parallel_workers=1,
            )
            rows = data.create_dict_iterator(num_epochs=1, output_numpy=True)
            count = 0
            for index, raw in zip(block, rows):
                yield _row(raw, index, info)
                count += 1
            if count < len(block):
                raise RuntimeError(f"{count} rows came instead of {len(block)}")
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(f"{info.folder}: cannot be read as MindRecord: {error}") from error
