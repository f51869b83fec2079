# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""TensorBoard event files, written with tensorboardX (no PyTorch, no TensorFlow).

MindSpore has to be imported before anything that uses protobuf, as here: it chooses protobuf's
implementation, and cannot be imported when another one is loaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import mindspore  # noqa: F401 - see above
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from src.engine.watch.profile import ProfileWindow
from src.engine.watch.watch import Watch

logger = logging.getLogger(__name__)

_PNG = b"\x89PNG\r\n\x1a\n"
_RGB = 3


class TensorBoardWatch(Watch):
    """Writes one event file, in the calling thread: an error of the disk comes to the caller.

    (tensorboardX's own `SummaryWriter` writes in a thread; when that fails, the training would
    wait for it for ever.) After such an error, here with a warning, the run goes on without: a
    training does not end because the disk of its curves is full.

    Args:
        folder: gets the file; viewers show all files of a folder as one run.
        first_step: of a resumed run: what earlier files say of this step and later is hidden.
        window: told of the steps.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        first_step: int = 0,
        window: ProfileWindow | None = None,
    ) -> None:
        super().__init__(window)
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        # The name holds seconds only, and a file of that name would be written over.
        self._file: EventsWriter | None = EventsWriter(str(place / "events"), f".{os.getpid()}")
        if first_step:
            self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of a step by name."""
        entries = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=entries)))

    def picture(self, step: int, name: str, path: Path) -> None:
        """Write a PNG file of a step, as it is."""
        content = path.read_bytes()
        if content[:8] != _PNG:
            raise ValueError(f"{path} is not a PNG file")
        width, height = struct.unpack(">II", content[16:24])
        image = Summary.Image(
            height=height, width=width, colorspace=_RGB, encoded_image_string=content
        )
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def settings(self, text: str) -> None:
        """Write the configuration as text; indented, it is code to the viewer."""
        block = "\n".join(f"    {line}" for line in text.splitlines())
        self._write(Event(summary=summary.text("configuration", block)))

    def close(self) -> None:
        """Close the window and the file."""
        super().close()
        if self._file is not None:
            with contextlib.suppress(OSError):  # each event has been flushed
                self._file.close()
            self._file = None

    def _write(self, event: Event) -> None:
        if self._file is None:
            return
        event.wall_time = time.time()
        try:
            self._file.write_event(event)
            self._file.flush()
        except OSError as error:
            self._file = None
            logger.warning(
                "TensorBoard's event file cannot be written, going on without: %s", error
            )
