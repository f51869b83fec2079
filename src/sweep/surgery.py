# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Model surgery as the first part of a sweep: once for a base checkpoint and a method."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.model_surgery import ENDINGS
from src.model_utils.errors import InputError
from src.model_utils.paths import checkpoints_in
from src.model_utils.processes import Command, Supervisor, last_lines, project_environment
from src.sweep.runs import locked, read_if_there
from src.util import sha256_file, write_json
from src.weights.checkpoint import find_latest

logger = logging.getLogger(__name__)

METHODS: Mapping[str, str] = {"fsod": "remove", "gfsod": "randinit"}
COMMAND = (sys.executable, "-m", "src.model_surgery")
_NAME = "model_reset"


def reset_file(folder: Path, method: str) -> Path:
    """Where `src.model_surgery` puts a method's checkpoint."""
    return folder / f"{_NAME}_{ENDINGS[method]}.ckpt"


def checkpoint_file(path: Path) -> Path:
    """A checkpoint's `.ckpt`, where a folder stands for the newest in it or in its `ckpt_0`.

    Raises:
        InputError: the folder holds none.
    """
    if not path.is_dir():
        return path
    manifest = find_latest(checkpoints_in(path))
    if manifest is None:
        raise InputError(f"--base_checkpoint: there is no checkpoint in {path}")
    return manifest.with_suffix(".ckpt")


def operate(
    supervisor: Supervisor,
    base: Path,
    *,
    dataset: str,
    method: str,
    folder: Path,
    flags: Sequence[str] = (),
    redo_changed: bool = False,
) -> Path:
    """Run `python -m src.model_surgery`, unless its result for the same base is there.

    Args:
        supervisor: runs processes.
        base: the base detector's checkpoint.
        dataset: "coco", "voc" or a configuration file.
        method: "remove" or "randinit".
        folder: gets the result, and a note of what it was made of.
        flags: for the configuration file, if `dataset` is one.
        redo_changed: replace a result of another base checkpoint instead of refusing.

    Returns:
        The checkpoint to fine-tune.

    Raises:
        InputError: surgery failed, or the folder holds a file of other origin.
    """
    target = reset_file(folder, method)
    note = folder / f"{target.stem}.made_of.json"
    made_of = {"base_sha256": sha256_file(base), "dataset": dataset, "method": method}
    with locked(folder) as lock:
        old = read_if_there(note)
        if old is None and target.exists():
            raise InputError(f"{target} was not made by a sweep; name another --output")
        file_sum = old.pop("sha256", None) if old else None
        if old is not None and old != made_of and not redo_changed:
            raise InputError(
                f"{target} was made of another base checkpoint or data set; name another --output, "
                "or give --redo_changed to make it anew"
            )
        if old == made_of and target.exists() and file_sum == sha256_file(target):
            return target
        write_json(note, made_of)
        output = folder / f"{target.stem}.txt"
        words = [*COMMAND, f"--dataset={dataset}", f"--method={method}"]
        words += [f"--src-path={base}", f"--save-dir={folder}", f"--tar-name={_NAME}", *flags]
        logger.info("surgery: %s of %s", method, base)
        code = supervisor.run([Command(words, project_environment(), output, (lock,))])
        supervisor.check()
        if code != 0 or not target.exists():
            shown = "\n  ".join(last_lines(output, 10))
            raise InputError(f"surgery of {base} failed (exit code {code}); it says:\n  {shown}")
        write_json(note, {**made_of, "sha256": sha256_file(target)})
    return target
