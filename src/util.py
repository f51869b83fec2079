# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Host helpers that several modules need: atomic files, checksums, logging, exit codes."""

from __future__ import annotations

import contextlib
import csv
import difflib
import errno
import hashlib
import io
import json
import logging
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from src.model_utils.errors import InputError
from src.model_utils.interruption import Interrupted, StopRequests

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_LARGEST_NUMBER = 100_000
_CUT_NAME = 40  # characters of a file's name that its temporary name has
_LONGEST_NAME = 120  # characters of a name that `listing` shows
# What the system says of a disk or of rights, and what to do about it.
_DISK_ADVICE = {
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG): (
        "make room, or name another folder, and start again; whole files stay as they were"
    ),
    (errno.EACCES, errno.EPERM, errno.EROFS): (
        "give this user the right to use it, or name another folder"
    ),
    (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST): "name another folder",
    (errno.EIO,): "the disk or its connection is faulty",
}


def disk_problem(error: OSError, path: str | os.PathLike[str] | None = None) -> InputError | None:
    """One sentence for a failure that the disk or its rights caused; None for any other.

    Args:
        error: what the system said.
        path: what was to be written; None for the file that the error names.
    """
    name = error.filename if path is None else os.fspath(path)
    where = "a file" if name is None else name
    advice = next((text for numbers, text in _DISK_ADVICE.items() if error.errno in numbers), None)
    if advice is None:
        return None
    other = error.filename is not None and str(error.filename) != str(where)
    detail = f" ({error.filename})" if other else ""
    return InputError(f"{where} cannot be written or read: {error.strerror}{detail}; {advice}")


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Name `path` if the disk is full, read-only or closed to this user inside the block.

    Raises:
        InputError: that, in one sentence.
    """
    try:
        yield
    except OSError as error:
        problem = disk_problem(error, path)
        if problem is None:
            raise
        raise problem from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it to `path` when the block succeeds.

    The temporary file is flushed to disk before the rename and removed after a failure, so a
    reader sees the old file, the whole new file, or none.

    Raises:
        InputError: the disk is full, read-only or closed to this user.
    """
    target = Path(path)
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            # cut, so that a name of nearly the longest that the system takes can be written too
            dir=target.parent,
            prefix=f".{target.name[:_CUT_NAME]}.",
            suffix=target.suffix or ".tmp",
        )
        os.close(descriptor)
        partial = Path(name)
        try:
            yield partial
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            partial.chmod(0o666 & ~umask())
            os.replace(partial, target)
            _sync_folder(target.parent)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def umask() -> int:
    """The process's mask for new files (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Have the system write down the names in a folder, where it can: for a loss of power."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file atomically (UTF-8)."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 2) -> None:  # noqa: ANN401
    """Write a JSON file atomically."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def read_json(path: str | os.PathLike[str], advice: str) -> Any:  # noqa: ANN401
    """Read a JSON file.

    Raises:
        InputError: it is missing, cannot be read or is damaged; `advice` is the sentence's end.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged or cannot be read ({error}); {advice}") from error


def pipe_table(
    rows: Sequence[Sequence[object]],
    headers: Sequence[str],
    columns: Sequence[str] | None = None,
) -> str:
    """A table with bars, as Markdown has it; `columns` says "left" or "right" of each."""
    # the launchers import this module where nothing is installed yet
    from tabulate import tabulate  # type: ignore[import-untyped]

    text = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=columns)
    return str(text)


def csv_text(header: Iterable[object], lines: Iterable[Iterable[object]]) -> str:
    """Lines as CSV below a head line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file that is one for reading: a pipe or a device may never end.

    Raises:
        OSError: it is missing, cannot be read, or is no regular file.
    """
    # without O_NONBLOCK opening a pipe waits for somebody who writes
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return open(descriptor, "rb")


def read_regular(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Read a whole file; see `open_regular`.

    Args:
        path: the file; links are followed.
        most: bytes that it may have at most; None for any number.

    Raises:
        OSError: it is missing, cannot be read, is no regular file, or too large.
    """
    with open_regular(path) as handle:
        size = os.fstat(handle.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"{size} bytes are more than {most}", os.fspath(path))
        return handle.read()


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested dictionaries; an empty one is a value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class _LogFile(logging.FileHandler):
    """A log file that says once, in one line, that it cannot be written, and not at every line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.setLevel(logging.CRITICAL + 1)
        stream, self.stream = self.stream, None  # type: ignore[assignment]
        with contextlib.suppress(OSError):
            stream.close()  # what it still holds has no place either
        sys.stderr.write(f"warning: {self.baseFilename} is not continued: {error.strerror}\n")


def set_up_logging(rank: int = 0, log_file: str | os.PathLike[str] | None = None) -> None:
    """Send log records to standard output on rank 0 (warnings only elsewhere) and to a file."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    handlers[0].setLevel(logging.INFO if rank == 0 else logging.WARNING)
    if log_file is not None:
        with writing(log_file):
            Path(log_file).parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_LogFile(log_file, encoding="utf-8"))
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers,
        force=True,
    )


@contextlib.contextmanager
def idle_thread(enabled: bool) -> Iterator[None]:
    """Give the calling thread the lowest priority inside the block, where the system can.

    MindSpore's calling thread spins while CPU kernels run; on two cores that takes half a core
    from them. With this a step is 20 to 40 % faster. Threads started inside are not affected.
    """
    before = None
    if enabled and hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            before = os.sched_getscheduler(0), os.sched_getparam(0)
            policy = os.SCHED_IDLE | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(0, policy, os.sched_param(0))
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, *before)


def run_main(main: Callable[[], int | None]) -> None:
    """Run an entry point; one clear sentence and exit code 1 for an `InputError`.

    So it is for a disk that is full, read-only or closed to this user. SIGINT, SIGTERM and SIGHUP
    end the program by an exception, which removes temporary files on its way, with the
    conventional code.
    """
    try:
        with StopRequests():
            code = main() or 0
    except (InputError, OSError) as error:
        problem = error if isinstance(error, InputError) else disk_problem(error)
        if problem is None:
            raise
        sys.stderr.write(f"error: {problem}\n")
        code = 1
    except Interrupted as event:
        sys.stderr.write(f"ended by {event}\n")
        code = event.code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = 130
    sys.exit(code)


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """Return ' (did you mean X?)' for the candidate closest to a misspelt word, or ''."""
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listing(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """The first few of some names, as one line that is not too long."""
    shown = [name if name.isprintable() else ascii(name) for name in names[:most]]
    # both ends: of a path, the last part tells most
    half = _LONGEST_NAME // 2
    shown = [n if len(n) <= _LONGEST_NAME else f"{n[:half]}...{n[-half:]}" for n in shown]
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return separator.join([*shown, *more])


def first_free(paths: Iterable[Path]) -> Path:
    """The first of some paths that nothing has yet."""
    return next(path for path in paths if not os.path.lexists(path))


def numbers(text: str, flag: str) -> tuple[int, ...]:
    """Read "1,2,5" or "0-9" or both, in the order given.

    Raises:
        InputError: it is neither, or names a number twice.
    """
    found: list[int] = []
    for part in text.replace(" ", ",").split(","):
        if not part:
            continue
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last > _LARGEST_NUMBER:
            raise InputError(f"{flag} {text!r}: write numbers such as 1,2,5 or a range such as 0-9")
        found += range(first, last + 1)
    if not found or len(set(found)) < len(found):
        raise InputError(f"{flag} {text!r} names no number, or one twice")
    return tuple(found)
