# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What the calibration block keeps on disk: arrays that are verified before they are believed.

An entry is an `.npz` with a description: format, version, the key that its content was computed
for, and type, shape and SHA-256 of every array. An entry that is damaged, of another key or of
another version is named in a warning and computed again. Entries appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.util import atomic_path

logger = logging.getLogger(__name__)

FORMAT = "defrcn-pcb"
VERSION = 1
_DESCRIPTION = "description"
# What numpy raises on a damaged archive, depending on where the damage is.
_DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OSError,
    EOFError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    zipfile.BadZipFile,
)

Key = Mapping[str, Any]


def write_entry(path: Path, key: Key, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an entry.

    Args:
        path: ends in `.npz`.
        key: JSON values that say what the arrays were computed from.
        arrays: by name.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "key": dict(key),
        "arrays": {name: _describe(array) for name, array in arrays.items()},
    }
    text = np.frombuffer(json.dumps(content, sort_keys=True).encode(), np.uint8)
    with atomic_path(path) as partial:
        np.savez(partial, **{_DESCRIPTION: text}, **arrays)


def read_entry(path: Path, key: Key) -> dict[str, np.ndarray] | None:
    """Read an entry, None if there is none to be believed (a warning says why).

    Args:
        path: of the entry.
        key: what the content must have been computed from.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = json.loads(archive[_DESCRIPTION].tobytes())
            wanted = {"format": FORMAT, "version": VERSION, "key": json.loads(json.dumps(key))}
            if {name: content[name] for name in wanted} == wanted:
                arrays = {name: archive[name] for name in content["arrays"]}
                described = {name: _describe(array) for name, array in arrays.items()}
                if described == content["arrays"]:
                    return arrays
                problem = "is damaged (its checksum differs)"
            else:
                problem = "belongs to something else"
    except _DAMAGE as error:
        problem = f"is damaged ({error})"
    logger.warning("%s %s; computed again", path, problem)
    return None


def _describe(array: np.ndarray) -> list[Any]:
    data = np.ascontiguousarray(array)
    return [data.dtype.str, list(data.shape), hashlib.sha256(data.tobytes()).hexdigest()]


class FeatureCache:
    """Feature maps of pictures, in a folder of limited size.

    A sweep goes through the same pictures over and over, so what is there stays: a full folder
    takes no more, where dropping the oldest would drop each map just before it is needed again.

    Args:
        folder: where maps are kept.
        identity: the encoder's, see `pcb.Encoder`.
        max_bytes: limit for all maps in the folder, whichever encoder's.
    """

    def __init__(self, folder: Path, identity: str, max_bytes: int) -> None:
        self.folder = folder
        self.identity = identity
        self.max_bytes = max_bytes
        self.used = sum(path.stat().st_size for path in folder.rglob("*.npz"))
        self._full = False

    def get(self, picture: str, shape: tuple[int, int]) -> np.ndarray | None:
        """Look up a map.

        Args:
            picture: SHA-256 of the picture's file.
            shape: rows and columns that the map must have.

        Returns:
            (rows, columns, C) float32, or None.
        """
        path, key = self._entry(picture)
        found = (read_entry(path, key) or {}).get("features")
        if found is None:
            return None
        if found.dtype != np.float32 or found.ndim != 3 or found.shape[:2] != shape:
            logger.warning("%s does not fit its picture; computed again", path)
            return None
        return found

    def put(self, picture: str, features: np.ndarray) -> None:
        """Keep a map, if there is room."""
        if self.used + features.nbytes > self.max_bytes:
            if not self._full:
                logger.warning(
                    "%s holds %.1f GB of features and takes no more (test.pcb.cache_gigabytes)",
                    self.folder,
                    self.used / 1e9,
                )
            self._full = True
            return
        path, key = self._entry(picture)
        before = path.stat().st_size if path.exists() else 0
        write_entry(path, key, {"features": features})
        self.used += path.stat().st_size - before

    def _entry(self, picture: str) -> tuple[Path, dict[str, str]]:
        place = self.folder / self.identity[:16] / picture[:2] / f"{picture}.npz"
        return place, {"encoder": self.identity, "picture": picture}
