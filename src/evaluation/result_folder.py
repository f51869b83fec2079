# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A folder of results holds those of one evaluation or prediction, beside what the user put there.

New results are collected in a hidden folder inside and take the place of the earlier ones when they
are whole. The index `.results.json` lists them, so that nothing else is ever removed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from src.util import atomic_path, write_json, writing

logger = logging.getLogger(__name__)

INDEX = ".results.json"
_UNDER_WAY = ".writing-"
_SUMMARIES = ("detections.json", "metrics.json", "index.html")


class NewResults:
    """Results on their way into a folder.

    Args:
        place: where they shall be.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """Where they are written meanwhile; made when it is first asked for."""
        if self._folder is None:
            with writing(self.place):
                self.place.mkdir(parents=True, exist_ok=True)
                for left in self.place.glob(f"{_UNDER_WAY}*"):  # by a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
                self._folder = Path(tempfile.mkdtemp(prefix=_UNDER_WAY, dir=self.place))
        return self._folder

    def publish(self) -> None:
        """Put what was written in the place of the earlier results; figures appear last.

        If this is broken off the index lists both, so that the next results replace all of it.
        """
        source = self.folder
        files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
        new = sorted(files, key=lambda path: (path.suffix == ".json", -len(path.parts), path))
        old = set(_listed(self.place)) - set(new)
        with writing(self.place):
            _write_index(self.place, {*old, *new})
            for path in old:
                _remove(self.place, path)
            for folder in sorted(
                {parent for path in old for parent in list(path.parents)[:-1]}, reverse=True
            ):
                with contextlib.suppress(OSError):  # not empty, or a link
                    (self.place / folder).rmdir()
            for path in new:
                (self.place / path).parent.mkdir(parents=True, exist_ok=True)
                _move(source / path, self.place / path)
            _write_index(self.place, new)

    def discard(self) -> None:
        """Remove what was not published."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def new_results(place: Path) -> Iterator[NewResults]:
    """Collect results for a folder within the block; only `publish` puts them there."""
    results = NewResults(place)
    try:
        yield results
    finally:
        results.discard()


def _remove(place: Path, name: Path) -> None:
    """Remove a listed file, unless a link leads out of the folder to it."""
    path, folder = place / name, place.resolve() / name.parent
    if folder.resolve() != folder:
        logger.warning("%s lies behind a link and stays, though it is of earlier results", path)
    elif path.is_file() and not path.is_symlink():
        path.unlink()


def _move(source: Path, target: Path) -> None:
    """Give a file its name; a user's link may lead to another disk, where it is written anew."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_path(target) as partial:
            shutil.copyfile(source, partial)


def _write_index(place: Path, files: Iterable[Path]) -> None:
    write_json(place / INDEX, {"files": sorted(path.as_posix() for path in files)}, indent=1)


def _listed(place: Path) -> list[Path]:
    """The earlier results, as their index has them."""
    try:
        names = json.loads((place / INDEX).read_text(encoding="utf-8"))["files"]
        paths = [PurePosixPath(name) for name in names]
    except FileNotFoundError:
        if any((place / name).exists() for name in _SUMMARIES):
            logger.warning(
                "%s holds results of a version that did not list its files: those that have other "
                "names than the new ones stay",
                place,
            )
        return []
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("%s cannot be read: what earlier results left stays", place / INDEX)
        return []
    return [Path(path) for path in paths if path.parts and not {"..", "/"} & set(path.parts)]
