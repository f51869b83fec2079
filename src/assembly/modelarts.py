# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What the entry points share on ModelArts: paths on the machine's disk, copies in and out."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from src.model_utils.config import Config
from src.model_utils.errors import InputError
from src.model_utils.moxing_adapter import Source, Transfer, modelarts_run

_WEIGHTS = (
    "backbone_pretrained_path",
    "model_pretrained_path",
    "pcb_modelpath",
    "eval_checkpoint_path",
    "export_ckpt_file",
)
_RESULTS = ("save_checkpoint_path", "result_path", "export_file_name", "bundle")
_REMADE = ("train_mindrecord_dir", "test_mindrecord_dir")


def on_this_machine(config: Config) -> Config:
    """Put relative paths below the machine's disk if the run is on ModelArts.

    With C for `modelarts.cache_dir`: `datasets_root` becomes C/data, which gets what is in
    `data_url`; weights and `test.report_before` are looked for below C/checkpoint, which gets what
    is in `checkpoint_url`; results are written below C/train, which goes to `train_url`. MindRecord
    folders stay in C. Absolute paths stay as they are.

    Args:
        config: the configuration; returned as it is without `enable_modelarts`.

    Raises:
        InputError: results would be written outside of C/train, and so lost.
    """
    if not config.enable_modelarts:
        return config
    cache = Path(config.modelarts.cache_dir)
    changes: dict[str, Any] = {}
    if config.data_url:
        changes["datasets_root"] = str(cache / "data")
    below = [(key, "checkpoint") for key in _WEIGHTS] if config.checkpoint_url else []
    below += [(key, "train") for key in _RESULTS] + [(key, "") for key in _REMADE]
    for key, folder in below:
        value = getattr(config, key)
        if value:
            changes[key] = str(cache / folder / value)
    changes |= _of_test(config, cache / "checkpoint")
    for key in _RESULTS:
        _check_kept(key, changes.get(key, ""), cache / "train")
    for section in ("watch", "profile"):
        part = getattr(config, section)
        if part.dir:
            place = str(cache / "train" / part.dir)
            _check_kept(f"{section}.dir", place, cache / "train")
            changes[section] = part.model_copy(update={"dir": place})
    return config.model_copy(update=changes)


def _of_test(config: Config, checkpoints: Path) -> dict[str, Any]:
    """The section `test` with what is copied in with the weights, if it names any of that."""
    if not config.checkpoint_url:
        return {}
    moved: dict[str, Any] = {}
    if config.test.report_before:
        moved["report_before"] = str(checkpoints / config.test.report_before)
    if config.test.pcb.encoder:
        path = str(checkpoints / config.test.pcb.encoder)
        moved["pcb"] = config.test.pcb.model_copy(update={"encoder": path})
    return {"test": config.test.model_copy(update=moved)} if moved else {}


def copies(config: Config, rank: int = 0, local_rank: int = 0) -> AbstractContextManager[None]:
    """Copy in before the block and out after it; nothing without `enable_modelarts`.

    Args:
        config: what `on_this_machine` returned.
        rank: number of this process.
        local_rank: its number among those of its machine.

    Raises:
        InputError: see `moxing_adapter.modelarts_run`.
    """
    if not config.enable_modelarts:
        return contextlib.nullcontext()
    cache = Path(config.modelarts.cache_dir)
    sources = [
        Source("data_url", config.data_url, cache / "data"),
        Source("checkpoint_url", config.checkpoint_url, cache / "checkpoint"),
    ]
    if config.resume:
        train = Source("train_url", config.train_url, cache / "train", may_be_empty=True)
        sources.append(train)
    return modelarts_run(
        Transfer(
            sources=tuple(source for source in sources if source.url),
            results=cache / "train",
            results_url=config.train_url,
            state=cache / ".copies",
            rank=rank,
            first_machine=rank == local_rank,
            copy_seconds=config.modelarts.copy_seconds,
            leave_seconds=config.modelarts.leave_seconds,
        )
    )


def _check_kept(key: str, path: str, kept: Path) -> None:
    """Check that a path of results lies below the folder that is copied out."""
    inside = os.path.normpath(path).startswith(os.path.join(os.path.normpath(kept), ""))
    if path and not inside:
        raise InputError(
            f"{key}: {path} is not below {kept}, and only that is copied to train_url; give a "
            "relative path"
        )
