# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Where project and checkpoints lie, and one check of the disk for every path that is given."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from src.model_utils.errors import InputError

CHECKPOINTS = "ckpt_0"
"""The folder of a run's checkpoints, below the run's."""


def checkpoints_in(folder: Path) -> Path:
    """The folder of checkpoints that a run's folder has, else that folder itself."""
    inner = folder / CHECKPOINTS
    return inner if inner.is_dir() else folder


def project_folder() -> Path:
    """The folder that holds train.py and src, wherever this file lies below it.

    Raises:
        InputError: there is none, as when only some of the files were copied.
    """
    for folder in Path(__file__).resolve().parents:
        if (folder / "train.py").is_file() and (folder / "src").is_dir():
            return folder
    raise InputError(
        f"{Path(__file__).resolve()}: no folder above it holds train.py and src; keep the "
        "project's files together"
    )


def require_path(
    config_key: str, path: str | os.PathLike[str], what_to_do: str, *, kind: str = "any"
) -> Path:
    """Return `path` if it exists, else say which key is wrong and what to do.

    Args:
        config_key: The configuration key or flag that named the path, such as "coco_root".
        path: The path, absolute or relative to the working directory.
        what_to_do: The end of the sentence: "convert R-101.pkl with src/pkl2ckpt.py".
        kind: "file", "folder" or "any".

    Raises:
        InputError: If the path is empty, missing, or of the other kind.
    """
    if not os.fspath(path):
        raise InputError(f"{config_key} is empty; {what_to_do}")
    found = Path(path)
    if not found.exists():
        raise InputError(f"{config_key}: {found} does not exist{_nearest(found)}; {what_to_do}")
    if (kind == "file" and not found.is_file()) or (kind == "folder" and not found.is_dir()):
        raise InputError(f"{config_key}: {found} is not a {kind}; {what_to_do}")
    return found


def _nearest(missing: Path) -> str:
    """Return " (did you mean …?)" for the name in the same folder that looks most alike."""
    try:
        names = os.listdir(missing.parent)
    except OSError:
        return ""
    close = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.7)
    return f" (did you mean {missing.parent / close[0]}?)" if close else ""
