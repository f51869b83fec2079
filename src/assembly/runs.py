# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A training's folder, from the configuration: held, cleared if asked for, with the log in it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from src.engine.parallel import Group
from src.engine.run_folder import run_folder
from src.engine.trainer import CHECKPOINTS
from src.model_utils.config import Config
from src.model_utils.errors import InputError
from src.util import set_up_logging

logger = logging.getLogger(__name__)

_STARTS = ("model_pretrained_path", "backbone_pretrained_path")
_DATA = ("datasets_root", "coco_root", "train_mindrecord_dir", "test_mindrecord_dir")


@contextlib.contextmanager
def hold_run_folder(config: Config, group: Group) -> Iterator[None]:
    """Have the run's folder for oneself within the block, with the log in it.

    Raises:
        InputError: see `run_folder`; or weights that are asked for would be moved away.
    """
    folder = Path(config.save_checkpoint_path)
    if config.overwrite:
        _check_starts_stay(config, folder)
    with run_folder(
        folder, group, resume=config.resume, overwrite=config.overwrite, kept=_needed(config)
    ) as notes:
        set_up_logging(group.rank, folder / f"log_{group.rank}.txt")
        for note in notes:
            logger.warning("%s", note)
        yield


def _check_starts_stay(config: Config, folder: Path) -> None:
    for key in _STARTS:
        path = getattr(config, key)
        if path and Path(path).resolve().is_relative_to((folder / CHECKPOINTS).resolve()):
            raise InputError(
                f"{key}: {path} is of the run that --overwrite=true would move away; name another "
                "save_checkpoint_path"
            )


def _needed(config: Config) -> list[Path]:
    """What a new run uses and may lie in its folder: data, words of the command, its output."""
    found = [getattr(config, key) for key in (*_DATA, *_STARTS, "pcb_modelpath")]
    found.append(config.test.pcb.encoder)
    found += [word.rpartition("=")[2] for word in sys.argv[1:]]
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [Path.cwd(), *(Path(path) for path in found if path and os.path.lexists(path))]
