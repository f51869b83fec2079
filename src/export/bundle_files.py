# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A bundle as files: written whole or not at all, found whole or refused by name.

It is a folder NAME with `bundle.json`, which lists all other files with bytes and SHA-256, and
`bundle.sha256`, which has that of `bundle.json` as sha256sum writes it; or NAME.tar, an
uncompressed tar file of that folder. What the files are is in `bundle.py`.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.export.json_node import JsonNode
from src.model_utils.errors import InputError
from src.model_utils.paths import require_path
from src.util import (
    atomic_path,
    listing,
    read_regular,
    sha256_file,
    umask,
    write_json,
    write_text,
    writing,
)

FORMAT, FORMAT_VERSION = "defrcn-bundle", 1
CONTENT, CONTENT_SUM = "bundle.json", "bundle.sha256"
AGAIN = "copy the bundle again, or write it again with export.py --bundle=NAME"
_MOST_JSON = 1 << 24  # bytes; of a thousand classes it has a hundred kilobytes
_MOST_SUM = 1 << 10
_CHUNK = 1 << 20


@dataclass(frozen=True)
class BundleFiles:
    """The checked files of a bundle.

    Attributes:
        source: what was given, for messages.
        folder: where the files lie.
        content: of `bundle.json`.
        names: of the other files.
    """

    source: Path
    folder: Path
    content: JsonNode
    names: tuple[str, ...]


@contextlib.contextmanager
def open_files(path: str | os.PathLike[str]) -> Iterator[BundleFiles]:
    """Check a bundle's files; a tar file is unpacked for the time of the block.

    Args:
        path: the folder, or the tar file.

    Raises:
        InputError: it is missing, of another version, not whole, or changed; the message names
            the file.
    """
    source = require_path("--bundle", path, "give the folder that export.py wrote, or its .tar")
    if source.is_dir():
        yield _checked(source, source)
        return
    with tempfile.TemporaryDirectory(prefix="defrcn_bundle_") as name:
        folder = Path(name)
        with writing(folder):
            _unpack(source, folder)
        yield _checked(folder, source)


def bundle_place(name: str) -> Path:
    """The folder that a bundle is to be written to.

    Args:
        name: of the folder, or of the tar file beside it.

    Raises:
        InputError: something else lies there, or where the tar file goes.
    """
    place = Path(name.removesuffix(".tar"))
    if not plain_name(place.name):
        raise InputError(f"bundle: {name} names no folder; give one, such as --bundle=detector")
    for path in (place, tar_of(place)):
        problem = _in_the_way(path, folder=path == place)
        if problem:
            raise InputError(
                f"bundle: {path} {problem} and would be replaced; move it, or give another name"
            )
    return place


def _in_the_way(path: Path, *, folder: bool) -> str:
    """What keeps a new bundle from a path, in words; "" if nothing or an earlier bundle does."""
    if not os.path.lexists(path):
        return ""
    names = sorted(os.listdir(path)) if path.is_dir() else None
    if names == [] and not path.is_symlink():
        return ""
    if path.is_symlink() or (names is not None) != folder or not is_bundle(path):
        return "is no bundle"
    listed = {CONTENT, CONTENT_SUM, *_files(_content(path / CONTENT, path), path)} if folder else {}
    others = [name for name in names or () if name not in listed]
    return f"holds other files ({listing(others, 3)})" if others else ""


def tar_of(place: Path) -> Path:
    """NAME.tar beside the folder NAME."""
    return place.with_name(f"{place.name}.tar")


@contextlib.contextmanager
def new_bundle(place: Path) -> Iterator[Path]:
    """Yield a folder; when the block ends well it becomes the bundle `place`, and a tar file.

    Whatever fails, an earlier bundle stays as it was. `write_content` ends the block's work.

    Args:
        place: see `bundle_place`; only one process may write it at a time.
    """
    old = place.with_name(f".{place.name}.old")
    under_way = f".{place.name}.writing-"
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        if old.is_dir() and not place.exists():  # killed between the two renames
            os.rename(old, place)
        for left in (old, *place.parent.glob(f"{glob.escape(under_way)}*")):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=under_way, dir=place.parent))
        try:
            yield folder
            folder.chmod(0o777 & ~umask())
            with atomic_path(tar_of(place)) as partial:
                _write_tar(folder, place.name, partial)
                _replace(place, folder, old)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_content(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `bundle.json`: the values given, with format, version and the files that there are."""
    paths = sorted(folder.iterdir())
    files = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in paths}
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    for path in paths:
        path.chmod(0o666 & ~umask())  # MindSpore's are read only
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    write_json(folder / CONTENT, {**head, **content, "files": files})
    write_sum(folder)


def write_sum(folder: Path) -> None:
    """Write `bundle.sha256`; the folder is a bundle by it."""
    write_text(folder / CONTENT_SUM, f"{sha256_file(folder / CONTENT)}  {CONTENT}\n")


def _replace(place: Path, folder: Path, old: Path) -> None:
    """Give a folder its name, which another may have."""
    if place.exists():
        os.rename(place, old)
    try:
        os.rename(folder, place)
    except OSError:
        if old.is_dir():
            os.rename(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_tar(folder: Path, name: str, path: Path) -> None:
    """An uncompressed tar file of a bundle's folder, `bundle.json` and its sum last."""
    last = (CONTENT, CONTENT_SUM)
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.iterdir(), key=lambda file: (file.name in last, file.name)):
            info = archive.gettarinfo(file, f"{name}/{file.name}")
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = int(info.mtime)
            with file.open("rb") as handle:
                archive.addfile(info, handle)


def is_bundle(path: Path) -> bool:
    """Whether a folder or tar file is a bundle, of whatever version, whole or not."""
    try:
        if path.is_dir():
            node = _content((path / CONTENT), path)
        else:
            with _tar(path) as archive, tempfile.TemporaryDirectory() as name:
                member = _members(archive, path).get(CONTENT)
                if member is None or member.size > _MOST_JSON:
                    return False
                _extract(archive, member, Path(name) / CONTENT)
                node = _content(Path(name) / CONTENT, path)
        return bool(node.at("format").value == FORMAT)
    except (InputError, OSError, tarfile.TarError):
        return False


def plain_name(name: str) -> bool:
    """Whether a name is one of a file in the bundle's folder itself."""
    outside = {"/", "\\", "\0"} & set(name) or any("\ud800" <= one <= "\udfff" for one in name)
    return not outside and name not in ("", ".", "..", CONTENT, CONTENT_SUM)


def _content(path: Path, source: Path) -> JsonNode:
    """The JSON file, parsed."""
    try:
        value = json.loads(read_regular(path, _MOST_JSON).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{source} is no bundle: it has no {CONTENT}; {AGAIN}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{source}: {CONTENT} is damaged ({error}); {AGAIN}") from error
    return JsonNode(value, f"{source}: {CONTENT}", AGAIN)


def _checked_content(folder: Path, source: Path) -> JsonNode:
    """The JSON file of a bundle that this program can read."""
    content = _content(folder / CONTENT, source)
    found = content.at("format").value
    if found != FORMAT:
        raise InputError(f"{source} is no bundle: its format is {found!r:.60}, not {FORMAT}")
    version = content.at("format_version").value
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise InputError(
            f"{source} is a bundle of format version {version!r:.60}, and this program reads "
            f"version {FORMAT_VERSION}; export it again, or use the program that belongs to it"
        )
    return content


def _files(content: JsonNode, source: Path) -> dict[str, tuple[int, str]]:
    """Bytes and SHA-256 of every file by name."""
    found = {}
    for name, node in content.at("files").fields():
        if not plain_name(name):
            raise InputError(
                f"{source}: {CONTENT} lists the file {ascii(name)}, which is none in the bundle's "
                f"own folder; {AGAIN}"
            )
        found[name] = (node.at("bytes").whole(0), node.at("sha256").text())
    return found


def _tar(path: Path) -> tarfile.TarFile:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is neither a folder nor a file; {AGAIN}")
        return tarfile.open(path, "r:")  # noqa: SIM115 - the caller closes it
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{path} is no whole tar file ({error}); {AGAIN}") from error


def _members(archive: tarfile.TarFile, source: Path) -> dict[str, tarfile.TarInfo]:
    """The files of a bundle in a tar file, by name; all lie in one folder."""
    found: dict[str, tarfile.TarInfo] = {}
    tops = set()
    for member in archive:
        top, slash, name = member.name.partition("/")
        inside = bool(slash) and (plain_name(name) or name in (CONTENT, CONTENT_SUM))
        folder = member.isdir() and not slash
        if not plain_name(top) or not (folder or (inside and member.isreg())):
            raise InputError(
                f"{source}: the entry {ascii(member.name)} is no file in the bundle's own folder; "
                f"{AGAIN}"
            )
        tops.add(top)
        if inside:
            if name in found:
                raise InputError(f"{source} holds {name} twice; {AGAIN}")
            found[name] = member
    if len(tops) > 1:
        raise InputError(f"{source} holds several folders ({', '.join(sorted(tops))}); {AGAIN}")
    return found


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = archive.extractfile(member)
    assert source is not None
    with source, path.open("wb") as target:
        shutil.copyfileobj(source, target, _CHUNK)


def _unpack(source: Path, folder: Path) -> None:
    """Unpack the files that the bundle lists; nothing else is written."""
    with _tar(source) as archive:
        try:
            members = _members(archive, source)
            if CONTENT not in members:
                raise InputError(f"{source} is no bundle: it has no {CONTENT}; {AGAIN}")
            if members[CONTENT].size > _MOST_JSON:
                raise InputError(f"{source}: {CONTENT} is too large; {AGAIN}")
            _extract(archive, members[CONTENT], folder / CONTENT)
            if CONTENT_SUM in members and members[CONTENT_SUM].size <= _MOST_SUM:
                _extract(archive, members[CONTENT_SUM], folder / CONTENT_SUM)
            for name, (size, _) in _files(_checked_content(folder, source), source).items():
                if name in members:
                    _check_size(name, members[name].size, size, source)
                    _extract(archive, members[name], folder / name)
        except (tarfile.TarError, EOFError) as error:
            raise InputError(f"{source} is no whole tar file ({error}); {AGAIN}") from error


def _check_size(name: str, found: int, wanted: int, source: Path) -> None:
    if found != wanted:
        raise InputError(
            f"{source}: {name} has {found} bytes, but {CONTENT} says {wanted}; {AGAIN}"
        )


def _check_files(folder: Path, source: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Every file is there as it was written."""
    for name, (size, sha256) in files.items():
        path = folder / name
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"{source} lacks {name} ({error.strerror}); {AGAIN}") from error
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{source}: {name} is no regular file; {AGAIN}")
        _check_size(name, status.st_size, size, source)
        if sha256_file(path) != sha256:
            raise InputError(
                f"{source}: {name} was changed: its SHA-256 is not the one in {CONTENT}; {AGAIN}"
            )


def _check_content(folder: Path, source: Path) -> None:
    """`bundle.json` itself is as it was written."""
    try:
        words = read_regular(folder / CONTENT_SUM, _MOST_SUM).split()
    except OSError as error:
        raise InputError(f"{source} lacks {CONTENT_SUM} ({error.strerror}); {AGAIN}") from error
    if words[:1] != [sha256_file(folder / CONTENT).encode()]:
        raise InputError(
            f"{source}: {CONTENT} was changed: its SHA-256 is not the one in {CONTENT_SUM}; {AGAIN}"
        )


def _checked(folder: Path, source: Path) -> BundleFiles:
    content = _checked_content(folder, source)
    _check_content(folder, source)
    files = _files(content, source)
    _check_files(folder, source, files)
    return BundleFiles(source, folder, content, tuple(files))
