# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A Cell as the bytes of an exported file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn

from src.export.mindir_rewrite import to_version_1
from src.model_utils.errors import InputError

SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}


def exported(
    cell: nn.Cell, inputs: Sequence[Tensor], *, file_format: str, mindir_version: int, name: str
) -> bytes:
    """Export a Cell.

    Args:
        cell: what is exported.
        inputs: of the right shapes and dtypes, for tracing.
        file_format: a key of `SUFFIXES`.
        mindir_version: 1 or, as MindSpore writes it and for the other formats, 3.
        name: of the file, for messages.

    Raises:
        InputError: MindSpore cannot, or see `to_version_1`.
    """
    with tempfile.TemporaryDirectory(prefix="defrcn_export_") as folder:
        made = Path(folder) / f"network{SUFFIXES[file_format]}"
        try:
            ms.export(cell, *inputs, file_name=str(made), file_format=file_format)
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(
                f"MindSpore cannot export this network as {file_format}: {reason}"
            ) from error
        content = made.read_bytes()
    return to_version_1(content, name) if mindir_version == 1 else content
