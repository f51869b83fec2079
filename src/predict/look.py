# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What is done with pictures and videos, whatever detects on them: a checkpoint or a bundle.

No MindSpore and no configuration here: a bundle is run where neither is.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Protocol

import numpy as np
from PIL import Image

from src.data.batching import Batch
from src.defrcn.pcb import Calibrator
from src.engine.claims import alone_in
from src.engine.inference import Detections
from src.evaluation.result_folder import NewResults, new_results
from src.model_utils.errors import InputError
from src.model_utils.paths import require_path
from src.predict.inputs import (
    Inputs,
    VideoReader,
    VideoWriter,
    find_inputs,
    is_text,
    read_image,
)
from src.predict.output import Predictions
from src.util import listing

logger = logging.getLogger(__name__)

# What the system says if a name is too long, or is that of a folder among the results.
NO_PLACE = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


@dataclass
class Shown(Batch):
    """A batch of one picture or frame, with what is drawn on and what is said of it.

    Attributes:
        name: of the picture in the results; a frame's number.
        pixels: (H, W, 3) uint8, blue first.
        notes: what is unusual about it, in words.
        problem: why its detections do not count, in words; a detector writes it.
    """

    name: str = ""
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    notes: list[str] = field(default_factory=list)
    problem: str = ""


class Detector(Protocol):
    """A network that is ready, with its calibration block, and how pictures are brought to it."""

    @property
    def class_names(self) -> Sequence[str]:
        """By class index."""

    @property
    def category_ids(self) -> Sequence[int]:
        """By class index."""

    @property
    def head(self) -> Mapping[str, Any]:
        """What the JSON file says of the detector."""

    @property
    def score_threshold(self) -> float:
        """Detections that score less before calibration are not made."""

    @property
    def calibrator(self) -> Calibrator | None:
        """The calibration block."""

    @property
    def max_pixels(self) -> int:
        """Larger pictures are refused."""

    def shown(self, image: Image.Image, source: str, name: str, notes: list[str]) -> Shown:
        """Bring a decoded picture to the network; InputError if it cannot be."""

    def detections(
        self, source: Iterator[Shown], total: int, threshold: float
    ) -> Iterator[Detections[Shown]]:
        """Detections on each picture of a source, before calibration."""


@dataclass(frozen=True)
class Wanted:
    """What a user asks for.

    Attributes:
        input_path: a picture, a folder of pictures or a video, as it was given.
        folder: of the results.
        threshold: detections with a lower score are left out.
        frame_step: every so many-th frame of a video.
    """

    input_path: str
    folder: Path
    threshold: float
    frame_step: int


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that belong to no configuration."""
    parser.add_argument("--score_threshold", type=float, default=0.5, help="lowest score shown")
    parser.add_argument("--frame_step", type=int, default=1, help="of a video every N-th frame")


def check_flags(options: argparse.Namespace) -> None:
    """Refuse values of `add_flags` that make no sense.

    Raises:
        InputError: naming the flag.
    """
    if not 0 <= options.score_threshold <= 1:
        raise InputError(f"--score_threshold {options.score_threshold:g} must lie within 0 and 1")
    if options.frame_step < 1:
        raise InputError(f"--frame_step {options.frame_step} must be 1 or more")


def lowest_score(own: float, threshold: float, calibrated: bool) -> float:
    """Above which score detections are made at all.

    Without calibration no score changes afterwards, so weaker detections are not even made.

    Args:
        own: the detector's score threshold.
        threshold: what scores less is not shown; what scores exactly this is.
        calibrated: whether there is a calibration block.
    """
    if calibrated:
        return own
    return max(own, float(np.nextafter(np.float32(threshold), np.float32(-1))))


def pictures(inputs: Inputs, detector: Detector, found: Predictions) -> Iterator[Shown]:
    """The pictures of a folder one by one; what cannot be read is recorded and left out."""
    for path in inputs.images:
        name = path.relative_to(inputs.root).as_posix()
        if not is_text(path):
            name = listing([name])
            found.leave_out(name, f"{name}: this name is not UTF-8; rename it")
            continue
        try:
            image, notes = read_image(path, detector.max_pixels)
            shown = detector.shown(image, str(path), name, notes)
        except InputError as error:
            found.leave_out(name, str(error))
            continue
        for note in notes:
            logger.info("%s: %s", path, note)
        yield shown


def frames(reader: VideoReader, detector: Detector, step: int) -> Iterator[Shown]:
    """Every `step`-th frame of a video."""
    for number, frame in reader.frames(step):
        image = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
        yield detector.shown(image, f"{reader.path}, frame {number}", str(number), [])


def watch(detector: Detector, video: Path, found: Predictions, step: int) -> Path:
    """Detect on a video, and write it with its detections; the frames' rate is kept."""
    reader = VideoReader(video)
    target = found.folder / f"{video.stem}.mp4"
    found.head = {**found.head, "fps": reader.fps, "frame_step": step}
    total = -(-reader.num_frames // step)
    left_out: dict[str, list[str]] = {}  # of all frames the reason may be the same
    try:
        with VideoWriter(target, reader.fps / step) as writer:
            source = frames(reader, detector, step)
            for one in detector.detections(source, total, found.threshold):
                frame, scores = one.image, one.scores
                try:
                    if frame.problem:
                        raise InputError(frame.problem)
                    if detector.calibrator is not None:
                        scores = detector.calibrator.on_pixels(
                            frame.pixels, one.boxes, scores, one.classes
                        )
                except InputError as error:
                    left_out.setdefault(str(error), []).append(frame.name)
                    writer.write(frame.pixels)
                    continue
                rows = found.rows(one.boxes, scores, one.classes)
                writer.write(found.draw(frame.pixels, rows, resized=False))
                number = int(frame.name)
                found.add({"frame": number, "seconds": number / reader.fps}, frame.pixels, rows)
    finally:
        reader.close()
        for reason, numbers in left_out.items():
            found.leave_out(video.name, f"frames left out: {listing(numbers, 3)}: {reason}")
    problem = reader.problem()
    if problem:
        found.problem(video.name, problem)
        logger.warning("%s %s", video, problem)
    return target


def look(detector: Detector, inputs: Inputs, found: Predictions) -> Path:
    """Detect on pictures; return the folder of the drawn ones."""
    for path in inputs.skipped:
        logger.warning("%s is no picture and left out", listing([str(path)]))
    source = pictures(inputs, detector, found)
    for one in detector.detections(source, len(inputs.images), found.threshold):
        image, scores = one.image, one.scores
        try:
            if image.problem:
                raise InputError(image.problem)
            if detector.calibrator is not None:
                scores = detector.calibrator(image.file_names[0], one.boxes, scores, one.classes)
        except InputError as error:
            found.leave_out(image.name, str(error))
            continue
        rows = found.rows(one.boxes, scores, one.classes)
        try:
            drawn = found.draw_picture(image.name, image.pixels, rows)
        except InputError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in NO_PLACE:
                raise
            reason = f"its drawn picture has no place ({cause.strerror}); rename it"
            found.leave_out(image.name, f"{image.name}: {reason}")
            continue
        place = {"file": image.name, "picture": drawn}
        found.add({**place, **({"notes": image.notes} if image.notes else {})}, image.pixels, rows)
    return found.folder / "pictures"


def run(wanted: Wanted, make_detector: Callable[[], Detector]) -> int:
    """Detect, draw, write, print; 1 if something could not be read.

    Args:
        wanted: see there.
        make_detector: called once the flags are known to be right.

    Raises:
        InputError: there is nothing to look at, or the results have no place.
    """
    folder = wanted.folder
    what = "give a picture, a folder of pictures, or a video"
    path = require_path("input_path", wanted.input_path, what)
    for key, one in (("input_path", path), ("result_path", folder)):
        if not is_text(one.absolute()):
            raise InputError(f"{key}: {listing([str(one)])} is not UTF-8; rename it")
    if path.is_dir() and folder.resolve() == path.resolve():
        raise InputError("result_path is the folder of the pictures; name another one")
    inputs = find_inputs(path, folder)
    if inputs.video and (folder / f"{inputs.video.stem}.mp4").resolve() == inputs.video.resolve():
        raise InputError(f"result_path: {inputs.video} would be replaced; name another folder")
    drawn, sheet = (folder / "pictures").resolve(), (folder / "sheet.png").resolve()
    for one in inputs.images:
        if one.resolve() == sheet or drawn in one.resolve().parents:
            raise InputError(
                f"result_path: {one} lies where drawn pictures go; name another folder"
            )
    with alone_in(folder, "src.predict", "result_path"), new_results(folder) as results:
        return predict(wanted, make_detector(), inputs, results)


def predict(wanted: Wanted, detector: Detector, inputs: Inputs, results: NewResults) -> int:
    """The work of `run`; what was done before an interruption or a failure is kept.

    If that is nothing, the earlier results stay.
    """
    lowest = detector.score_threshold
    if wanted.threshold < lowest:
        logger.warning(
            "--score_threshold %g is below %g, under which the detector finds nothing: lower "
            "test.score_threshold too (of a bundle when it is exported)",
            wanted.threshold,
            lowest,
        )
    found = Predictions(
        results.folder,
        detector.class_names,
        detector.category_ids,
        wanted.threshold,
        Path(os.path.abspath(inputs.root)).name,
        {"input": wanted.input_path, **detector.head, "detector_score_threshold": lowest},
    )
    kind = "frames" if inputs.video else "images"
    try:
        if inputs.video:
            drawn = watch(detector, inputs.video, found, wanted.frame_step)
        else:
            drawn = look(detector, inputs, found)
    except BaseException:
        if found.entries:
            found.write(kind, complete=False)
            results.publish()
        raise
    written = found.write(kind, complete=True)
    results.publish()
    drawn, written = (results.place / one.relative_to(results.folder) for one in (drawn, written))
    count = f"{len(found.entries)} {kind}" if len(found.entries) != 1 else f"1 {kind[:-1]}"
    sys.stdout.write(f"{count}\n{found.table()}\ndrawn: {drawn}\nas JSON: {written}\n")
    for problem in found.problems:
        sys.stderr.write(f"error: {problem['file']}: {problem['reason']}\n")
    return 1 if found.problems else 0
