# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Pictures and videos of one's own: found, decoded, brought to the network as in evaluation."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.data.batching import Batch, Preprocessing, assemble
from src.data.mindrecord_io import Row
from src.data.transforms import check_pixels, decode, is_deep, resized_shape
from src.defrcn.picture_file import DECODE_ERRORS, SUFFIXES
from src.model_utils.errors import InputError
from src.util import atomic_path, read_regular

logger = logging.getLogger(__name__)

VIDEOS = ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .ts".split()
DEFAULT_FPS = 25.0
# Frames that a file may hold less than it announces: containers count roughly.
_MISSING_SHARE = 0.01


@dataclass(frozen=True)
class Inputs:
    """What there is to look at.

    Attributes:
        root: names of pictures in the results are relative to it.
        images: picture files in order.
        video: or a video file.
        skipped: files of the folder that are neither.
    """

    root: Path
    images: tuple[Path, ...] = ()
    video: Path | None = None
    skipped: tuple[Path, ...] = ()


def is_text(path: Path) -> bool:
    """Whether a path is UTF-8: others can be neither shown nor given to OpenCV."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def find_inputs(path: Path, leave_out: Path) -> Inputs:
    """Find what to detect on.

    Args:
        path: a picture, a video, or a folder of pictures with its subfolders, linked ones too.
        leave_out: the folder of the results, which may lie inside.

    Raises:
        InputError: there is nothing that can be read as a picture or a video.
    """
    if path.is_dir():
        return _in_folder(path, leave_out.resolve())
    kind = path.suffix.lower()
    if kind in VIDEOS:
        return Inputs(path.parent, video=path)
    if kind in SUFFIXES:
        return Inputs(path.parent, (path,))
    raise InputError(
        f"input_path: {path} has no known type; give a picture ({' '.join(SUFFIXES)}), a video "
        f"({' '.join(VIDEOS)}) or a folder of pictures"
    )


def _in_folder(folder: Path, leave_out: Path) -> Inputs:
    images: list[Path] = []
    skipped: list[Path] = []
    # each folder once, wherever links lead, by its own name if it lies inside; the results' not
    root = folder.resolve()
    seen = {root, leave_out}
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        others = []
        # sorted here, so that they are gone through in order; hidden ones are nobody's pictures
        for name in sorted(folders):
            path = Path(place) / name
            real = path.resolve()
            inside = path.is_symlink() and root in real.parents
            if not (name.startswith(".") or inside or real in seen):
                seen.add(real)
                others.append(name)
        folders[:] = others
        for name in sorted(files):
            if not name.startswith("."):
                file = Path(place) / name
                (images if file.suffix.lower() in SUFFIXES else skipped).append(file)
    if not images:
        videos = [file for file in skipped if file.suffix.lower() in VIDEOS]
        hint = f"; give the video {videos[0]} itself" if videos else ""
        raise InputError(
            f"input_path: the folder {folder} holds no picture ({' '.join(SUFFIXES)}){hint}"
        )
    return Inputs(folder, tuple(images), skipped=tuple(skipped))


def _refuse(error: OSError) -> None:
    raise InputError(
        f"input_path: the folder {error.filename} cannot be read ({error.strerror})"
    ) from error


def read_image(path: Path, max_pixels: int) -> tuple[Image.Image, list[str]]:
    """Read a picture as evaluation does: EXIF orientation applied, RGB.

    Args:
        path: the file.
        max_pixels: larger pictures are refused from their header.

    Returns:
        The picture, and what is unusual about it, in words.

    Raises:
        InputError: it cannot be read or decoded, or has 32 bits a pixel and channel.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    notes = []
    # what is wrong with a picture is said by `decode`
    with contextlib.suppress(Image.DecompressionBombError, *DECODE_ERRORS):
        header = Image.open(io.BytesIO(content))
        if (frames := getattr(header, "n_frames", 1)) > 1:
            notes.append(f"first of {frames} frames")
        if is_deep(header):
            notes.append("16 bits a pixel, brought to 8")
    return decode(content, str(path), max_pixels), notes


def make_batch(image: Image.Image, name: str, min_size: int, settings: Preprocessing) -> Batch:
    """Bring one decoded picture to the network's input, as `batching.collate` does in evaluation.

    Args:
        image: RGB.
        name: for messages.
        min_size: short edge in the model frame.
        settings: the others.

    Returns:
        A batch of one, without ground truth.

    Raises:
        InputError: the picture is too large, or fits into no fixed shape.
    """
    check_pixels(image, name, settings.max_pixels)
    size = (image.height, image.width)
    row = Row(b"", np.zeros((0, 4), np.float32), np.zeros(0, np.int32), *size, name, name)
    resized = resized_shape(*size, min_size, settings.max_size)
    try:
        return assemble([image], [(row, resized, False)], settings)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


class VideoReader:
    """The frames of a video by OpenCV.

    Attributes:
        fps: frames a second.
        num_frames: that the file announces; 0 if it does not say.
        num_read: frames read so far, those left out included.

    Raises:
        InputError: the file cannot be opened as a video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # whole: what stands before a colon would be taken for a protocol
        self._capture = cv2.VideoCapture(os.path.abspath(path))
        if not self._capture.isOpened():
            raise InputError(f"{path}: not a readable video (damaged, or of a kind unknown here)")
        self.fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        if not (math.isfinite(self.fps) and 0 < self.fps <= 1000):  # noqa: PLR2004
            logger.warning("%s does not say how fast it is; %g frames/s", path, DEFAULT_FPS)
            self.fps = DEFAULT_FPS
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames = max(int(count), 0) if math.isfinite(count) else 0
        self.num_read = 0

    def frames(self, step: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Every `step`-th frame with its number from 0: (H, W, 3) uint8, blue first."""
        while True:
            wanted = self.num_read % step == 0
            if wanted:
                good, frame = self._capture.read()
            else:
                good, frame = self._capture.grab(), None
            if not good:
                return
            self.num_read += 1
            if frame is not None:
                yield self.num_read - 1, frame

    def problem(self) -> str:
        """What is wrong after the last frame; empty if nothing is."""
        if self.num_read == 0:
            return "holds no frame that can be decoded"
        if self.num_frames - self.num_read > max(2.0, _MISSING_SHARE * self.num_frames):
            return f"ends after {self.num_read} of {self.num_frames} frames; it may be damaged"
        return ""

    def close(self) -> None:
        """Free the file."""
        self._capture.release()


class VideoWriter(contextlib.ExitStack):
    """Writes frames to an MPEG-4 file that appears when the block ends well, if a frame came.

    Args:
        path: ends in .mp4.
        fps: frames a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__()
        self._path, self._fps = path, fps
        self._size = (0, 0)
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8, blue first.

        MPEG-4 has even sides; an odd one gets its last row or column twice.

        Raises:
            InputError: this OpenCV cannot write such files.
        """
        height, width = frame.shape[:2]
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._writer is None:
            self._size = (frame.shape[1], frame.shape[0])
            self._writer = self._open()
        if self._size != (frame.shape[1], frame.shape[0]):
            frame = cv2.resize(frame, self._size)  # OpenCV would leave it out without a word
        self._writer.write(frame)

    def _open(self) -> cv2.VideoWriter:
        partial = str(self.enter_context(atomic_path(self._path)))
        fourcc = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
        writer = cv2.VideoWriter(partial, fourcc, self._fps, self._size)
        self.callback(writer.release)  # before the file gets its name
        if not writer.isOpened():
            raise InputError(f"{self._path}: OpenCV cannot write MPEG-4 video of {self._size} here")
        return writer
