# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What the inference program left: outputs by picture, checked against the manifest of the inputs.

DIR/<stem>_<i>.bin    output i of a picture, little-endian, without any header
DIR/outputs.json      index, name, dtype and shape of each output
DIR/done.json         written last: which pictures were done
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.data.batching import Batch
from src.export.manifest import Entry, Manifest
from src.model_utils.errors import InputError
from src.util import listing, read_json

OUTPUTS, DONE = "outputs.json", "done.json"
_DTYPES = {"boxes": "float32", "scores": "float32", "valid": "int32", "info": "int32"}
_AGAIN = "run the inference program again"


class StoredResults:
    """The outputs of all pictures, in the manifest's order.

    It stands where both the pictures and the network are in evaluation: iterating gives batches
    without pixels, a call what the network gave for one.

    Args:
        folder: of the results.
        manifest: of the inputs that they were computed from.
        num_classes: K.

    Attributes:
        restored: boxes are in the image frame.

    Raises:
        InputError: the results are not whole, or not of these pictures or of such a network.
    """

    def __init__(self, folder: Path, manifest: Manifest, num_classes: int) -> None:
        self.folder, self.manifest = folder, manifest
        self._entries = {entry.image_id: entry for entry in manifest.entries}
        done = _read(folder, DONE, "the inference program did not finish")
        _check_stems(folder, done, manifest)
        self._shapes = _output_shapes(folder, num_classes)
        self._check_sizes()
        self.restored = self._info(manifest.entries[0])[3] == 1
        self._check_infos()

    def __len__(self) -> int:
        return len(self.manifest.entries)

    def __iter__(self) -> Iterator[Batch]:
        nothing = np.zeros((1, 0, 4), np.float32)
        for entry in self.manifest.entries:
            original = np.array([entry.original_size], np.int32)
            resized = np.array([entry.resized_size], np.float32)
            # Restored boxes have no way to go: the network's frame is the picture's own.
            frame = original.astype(np.float32) if self.restored else resized
            yield Batch(
                images=np.zeros((1, 3, 0, 0), np.float32),
                image_sizes=frame,
                padded_size=np.array(entry.resized_size, np.int32),
                gt_boxes=nothing,
                gt_classes=np.zeros((1, 0), np.int32),
                gt_valid=np.zeros((1, 0), bool),
                image_ids=[entry.image_id],
                file_names=[entry.file_name],
                original_sizes=original,
            )

    def __call__(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (P, K, 4) float32, scores (P, K + 1) float32 and valid (P,) bool of a picture."""
        entry = self._entries[batch.image_ids[0]]
        boxes, scores, valid = (self._output(entry, i)[0] for i in range(3))
        return boxes, scores, valid > 0

    def _path(self, entry: Entry, index: int) -> Path:
        return self.folder / f"{entry.stem}_{index}.bin"

    def _output(self, entry: Entry, index: int) -> np.ndarray:
        name = list(_DTYPES)[index]
        dtype = np.dtype(_DTYPES[name]).newbyteorder("<")
        values = np.fromfile(self._path(entry, index), dtype)
        return values.astype(_DTYPES[name], copy=False).reshape(self._shapes[index])

    def _info(self, entry: Entry) -> np.ndarray:
        return np.asarray(self._output(entry, 3)[0])

    def _check_sizes(self) -> None:
        """Every file is there and of the right size; all that are not are counted."""
        sizes = {
            self._path(entry, index): 4 * math.prod(shape)
            for entry in self.manifest.entries
            for index, shape in enumerate(self._shapes)
        }
        wrong = [
            path.name
            for path, size in sizes.items()
            if not path.is_file() or path.stat().st_size != size
        ]
        if wrong:
            raise InputError(
                f"{self.folder}: {len(wrong)} result files are missing or cut short "
                f"({listing(wrong, 3)}); {_AGAIN}"
            )

    def _check_infos(self) -> None:
        """The results are of these pictures, and suppression was complete in each."""
        unsettled = []
        for entry in self.manifest.entries:
            number, _, undecided, restored = (int(value) for value in self._info(entry))
            if number != entry.number or restored != int(self.restored):
                raise InputError(
                    f"{self._path(entry, 3)} is of image {number}, the manifest has "
                    f"{entry.number} there ({entry.file_name}); {_AGAIN} on "
                    f"{self.manifest.path.parent}"
                )
            if undecided:
                unsettled.append(entry.file_name)
        if unsettled:
            raise InputError(
                f"{self.folder}: suppression of proposals was not complete in {len(unsettled)} "
                f"pictures ({listing(unsettled, 3)}); lower model.rpn.pre_nms_topk_test and export "
                "again, or evaluate with eval.py"
            )


def _read(folder: Path, name: str, missing: str) -> Mapping[str, Any]:
    path = folder / name
    if not path.is_file():
        raise InputError(f"{folder} has no {name}: {missing}; {_AGAIN}")
    content = read_json(path, _AGAIN)
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged (no object); {_AGAIN}")
    return content


def _check_stems(folder: Path, done: Mapping[str, Any], manifest: Manifest) -> None:
    stems = done.get("stems")
    known = {entry.stem for entry in manifest.entries}
    if not isinstance(stems, list):
        raise InputError(f"{folder / DONE} does not list the pictures (stems); {_AGAIN}")
    missing = sorted(known - set(map(str, stems)))
    other = sorted(set(map(str, stems)) - known)
    if missing:
        raise InputError(
            f"{folder}: the results lack {len(missing)} of {len(known)} pictures "
            f"({listing(missing, 3)}) of {manifest.path}; {_AGAIN} on that folder"
        )
    if other or not known:
        raise InputError(
            f"{folder}: the results are of other pictures than {manifest.path} lists "
            f"({listing(other, 3)}); {_AGAIN} on that folder"
        )


def _output_shapes(folder: Path, num_classes: int) -> list[tuple[int, ...]]:
    """Shapes of boxes, scores, valid, info, checked against each other."""
    content = _read(folder, OUTPUTS, "the inference program did not finish")
    try:
        listed = sorted(content["outputs"], key=lambda one: int(one["index"]))
        shapes = [tuple(int(side) for side in one["shape"]) for one in listed]
        dtypes = [str(one["dtype"]) for one in listed]
        count = shapes[0][1]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{folder / OUTPUTS} is damaged ({error!r}); {_AGAIN}") from error
    wanted = [(1, count, num_classes, 4), (1, count, num_classes + 1), (1, count), (1, 4)]
    if shapes != wanted or dtypes != list(_DTYPES.values()):
        found = ", ".join(f"{dtype} {list(shape)}" for dtype, shape in zip(dtypes, shapes))
        raise InputError(
            f"{folder / OUTPUTS}: the outputs ({found}) are not those of a detector of "
            f"{num_classes} classes; use the network that export.py made for data.test"
        )
    return shapes
