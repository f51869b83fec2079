# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A folder that one program writes into at a time: claimed by one process, refused on all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from src.model_utils.errors import InputError
from src.model_utils.folder_lock import RESULTS_LOCK, FolderLock
from src.util import writing

if TYPE_CHECKING:
    from src.engine.parallel import Group

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def alone_in(
    folder: Path, program: str, key: str, *, name: str = "", group: Group | None = None
) -> Iterator[None]:
    """Have a folder of results, or one name in it, for oneself within the block.

    A training that runs in the folder does not count: its checkpoints may be judged there.

    Args:
        folder: the folder; made if it is missing.
        program: what others are told of this process.
        key: the configuration key that names the folder.
        name: of a file or folder in it; others may then write other names.
        group: the processes that share it; None for this one alone.

    Raises:
        InputError: another process writes there; on every process.
    """
    lock = FolderLock(folder, program, name, RESULTS_LOCK)
    try:
        first_claims(group, folder, lock.take, key)
        if lock.problem:
            logger.warning("%s: see to it that nothing else writes there", lock.problem)
        yield
    finally:
        lock.release()


def first_claims(
    group: Group | None, folder: Path, claim: Callable[[], list[str] | None], key: str
) -> list[str]:
    """Let the first process claim a folder; all raise what it is refused with.

    Args:
        group: the processes; None for this one alone.
        folder: the folder.
        claim: what the first one does; its sentences are returned.
        key: the configuration key that names the folder.
    """
    notes: list[str] = []
    refusal = ""
    if group is None or group.leads:
        try:
            with writing(folder):
                notes = claim() or []
        except InputError as error:
            refusal = f"{key}: {error}"
    if group is not None:
        refusal = group.gather_bytes(refusal.encode())[0].decode()
    if refusal:
        raise InputError(refusal)
    return notes
