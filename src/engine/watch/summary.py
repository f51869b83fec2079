# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""MindSpore's own summary files, which MindInsight shows."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.model_utils.errors import InputError


class SummaryWriter:
    """Writes MindSpore summary and lineage files, through processes of MindSpore's own.

    Make it before the network is compiled: the processes are forked. One of them looks for work
    without a pause as long as the writer is open (MindSpore 2.8.0), which costs a core.

    Args:
        folder: gets the files.

    Raises:
        InputError: this MindSpore has no `SummaryRecord`, or it cannot be used here.
    """

    name = "MindSpore's summary"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        import mindspore as ms

        record = getattr(ms, "SummaryRecord", None)
        if record is None:
            raise InputError(
                f"watch.summary: MindSpore {ms.__version__} has no SummaryRecord; leave it false "
                "and set watch.tensorboard"
            )
        self._tensor = ms.Tensor
        try:
            self._record = record(str(folder), num_process=1)
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"watch.summary: MindSpore cannot write a summary in {folder}: {error}"
            ) from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of a step by name."""
        for name, value in values.items():
            self._record.add_value("scalar", name, self._tensor(np.float32(value)))
        self._write(step)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Write a picture of a step."""
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32)
        # MindSpore stretches contrast unless all is within 0 and 1, then multiplies and truncates.
        pixels = np.minimum((pixels + 0.25) / 255, 1)
        self._record.add_value("image", name, self._tensor(pixels.transpose(2, 0, 1)[None]))
        self._write(step)

    def settings(self, values: Mapping[str, str], text: str) -> None:
        """Write the configuration by key, as the run's lineage."""
        from mindspore.train.lineage_pb2 import UserDefinedInfo

        del text
        info = UserDefinedInfo()
        for key, value in values.items():
            entries = info.user_info.add().map_str
            if hasattr(entries, "add"):  # MindSpore's old description, read by a new protobuf
                entries.add(key=key, value=value)
            else:
                entries[key] = value
        self._record.add_value("custom_lineage_data", "configuration", info)
        self._write(0)

    def close(self) -> None:
        """Write what is left; without it the process would not end."""
        self._check_alive()
        self._record.close()

    def _check_alive(self) -> None:
        """Fail if MindSpore's process is gone (killed, or its disk full).

        Its queue would be full soon, and this process wait for ever, at its end too.
        """
        process: Any = getattr(self._record, "_event_writer", None)
        if process is None or process.is_alive():
            return
        atexit.unregister(self._record.close)
        queue = getattr(process, "_queue", None)
        if queue is not None:
            queue.cancel_join_thread()
        raise OSError("the process that writes it has ended")

    def _write(self, step: int) -> None:
        self._check_alive()
        self._record.record(step)
        self._record.flush()
