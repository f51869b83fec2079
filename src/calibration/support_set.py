# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The K boxes of each class that a network was fine-tuned on, with a hash to know them again.

Training writes them beside its checkpoints; the calibration block compares them with the boxes
that it is about to make prototypes of.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from src.defrcn.data_types import Record
from src.model_utils.errors import InputError

FILE_NAME = "support_set.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class SupportSet:
    """The boxes of a K-shot set.

    Attributes:
        dataset: name of the set, or names joined with "+".
        class_names: the position is the class index.
        records: images with the K boxes of each class, in whatever order.
    """

    dataset: str
    class_names: tuple[str, ...]
    records: tuple[Record, ...]

    @cached_property
    def sha256(self) -> str:
        """Hash of classes, file names, image sizes and boxes.

        It depends neither on the folder that the images lie in, nor on the data set's name, nor
        on the order of records and boxes, nor on how they are grouped into records.
        """
        entries = sorted(
            [
                re.split(r"[/\\]", record.file_name)[-1],
                record.height,
                record.width,
                entry.category_id,
                entry.bbox_mode,
                *map(float, entry.bbox),
            ]
            for record in self.records
            for entry in record.annotations
        )
        content = json.dumps([FORMAT_VERSION, list(self.class_names), entries])
        return hashlib.sha256(content.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and tuples, which `from_json` reads back to an equal set as JSON."""
        return {
            "version": FORMAT_VERSION,
            "dataset": self.dataset,
            "sha256": self.sha256,
            "class_names": self.class_names,
            "records": [asdict(record) for record in self.records],
        }

    @classmethod
    def from_json(cls, content: object, source: str = FILE_NAME) -> SupportSet:
        """Read what `to_json` made, and check that it still has its hash.

        Args:
            content: parsed JSON.
            source: the file, for messages.

        Raises:
            InputError: it is no support set, or was changed.
        """
        if not isinstance(content, dict) or content.get("version") != FORMAT_VERSION:
            raise InputError(f"{source} is no support set of this version; write it by training")
        try:
            stored, support = content["sha256"], _CONTENT.validate_python(content)
        except KeyError as error:
            raise InputError(f"{source} is no whole support set: it lacks {error}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, problem["loc"]))
            raise InputError(
                f"{source} is no whole support set: {place}: {problem['msg']}"
            ) from error
        count = len(support.class_names)
        for record in support.records:
            if any(not 0 <= entry.category_id < count for entry in record.annotations):
                raise InputError(f"{source}: {record.file_name} has a box of an unlisted class")
        if stored != support.sha256:
            raise InputError(f"{source} was changed after it was written: its hash does not fit")
        return support


_CONTENT = TypeAdapter(SupportSet)


def read_support_set(path: Path) -> SupportSet:
    """Read a support set's file.

    Raises:
        InputError: it is missing, is no support set, or was changed.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"support set {path} cannot be read: {error}") from error
    return SupportSet.from_json(content, str(path))
