# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""One writer a folder: a lock of the operating system, which ends with the process that has it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from src.model_utils.errors import InputError

LOCK = ".defrcn.lock"
# Of results, which may go to the folder of a training that still runs.
RESULTS_LOCK = ".results.lock"
# A process that only looks whether a folder is free has its lock for a moment.
_ATTEMPTS = 10
_PAUSE_SECONDS = 0.1
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)


class FolderLock:
    """Keeps other processes from writing into a folder, until `release` or this process's end.

    The file in the folder stays; what counts is the system's lock on it, so that what a killed
    process left behind keeps nobody out. Forked children do not hold it.

    Args:
        folder: the folder; links lead to the same lock as the folder itself.
        program: what this process is called in the message that others get.
        name: of a file or folder in it, if only that is to be kept from others.
        lock: the lock's file where no name is given.

    Attributes:
        problem: why the folder cannot be locked, though nobody else has it; "" if it can.
    """

    def __init__(self, folder: Path, program: str, name: str = "", lock: str = LOCK) -> None:
        self.folder = folder
        self.path = folder / (f".{name}.lock" if name else lock)
        self.subject = folder / name
        self.program = program
        self.problem = ""
        self._descriptor: int | None = None
        os.register_at_fork(after_in_child=self.release)

    @property
    def held(self) -> bool:
        """Whether `take` has found or made the file of the lock."""
        return self._descriptor is not None

    def take(self, *, make: bool = True) -> None:
        """Take the lock; nothing if this process has it already.

        Args:
            make: make folder and file where they are missing, and write down who has it; else
                nothing is written, and without a file nothing happens.

        Raises:
            InputError: another process has it.
            OSError: the file cannot be made.
        """
        if self._descriptor is None:
            if make:
                self.folder.mkdir(parents=True, exist_ok=True)
            try:
                flags = os.O_RDWR | (os.O_CREAT if make else 0)
                self._descriptor = os.open(self.path, flags, 0o666)
            except OSError as error:
                if not make and error.errno in _NO_SUCH_FILE:
                    return
                raise
            if not self._locked(self._descriptor):
                owner = self._owner()
                self.release()
                raise InputError(
                    f"{self.subject} is in use by {owner}; wait for its end, or name another folder"
                )
        if make:
            self._sign(self._descriptor)

    def release(self) -> None:
        """Give the lock back; also what a forked child does with its copy."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _locked(self, descriptor: int) -> bool:
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if attempt < _ATTEMPTS - 1:
                    time.sleep(_PAUSE_SECONDS)
            except OSError as error:
                if error.errno not in _NO_LOCKS_HERE:
                    raise
                self.problem = f"{self.subject} cannot be locked ({error.strerror})"
                return True
        return False

    def _sign(self, descriptor: int) -> None:
        owner = {
            "program": self.program,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)

    def _owner(self) -> str:
        """Who has the lock, in words."""
        try:
            owner = json.loads(self.path.read_text(encoding="utf-8"))
            return (
                f"{owner['program']}, process {owner['pid']} on {owner['host']} since "
                f"{owner['since']}"
            )
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
