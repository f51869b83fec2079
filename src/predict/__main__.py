# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Detect on a picture, a folder of pictures or a video, with any checkpoint.

    python -m src.predict --config_path=FILE --eval_checkpoint_path=CKPT --input_path=PATH \
        [--result_path=DIR] [--score_threshold=0.5] [--frame_step=1] [--key=value ...]

Writes DIR/detections.json and the drawn pictures (a video: DIR/NAME.mp4). Pictures are brought to
the network exactly as in evaluation, and the calibration block runs if test.pcb.enable is set. The
classes are those that the checkpoint was trained on; its data set need not be here. A picture that
cannot be read is named and left out: the others are done, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.assembly import evaluation as assembly_eval
from src.assembly import training as assembly
from src.assembly.calibration import make_calibrator
from src.assembly.data import read_sets
from src.data.batching import Batch, Preprocessing, parse_shapes
from src.data.transforms import to_bgr
from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.data_types import DatasetInfo
from src.engine.inference import detect
from src.model_utils.config import Config, config_from_arguments, require_path
from src.model_utils.device_adapter import Runtime
from src.model_utils.errors import InputError
from src.predict.inputs import (
    Inputs,
    VideoReader,
    VideoWriter,
    find_inputs,
    make_batch,
    read_image,
)
from src.predict.output import Predictions
from src.util import run_main, set_up_logging

logger = logging.getLogger(__name__)

FOUND, UNKNOWN = "of the data set", "class index + 1: the data set of data.test is not known here"


@dataclass(frozen=True)
class Detector:
    """A network that is ready, and how pictures are brought to it.

    Attributes:
        config: the configuration.
        eval_step: compiled inference.
        info: classes, their ids, base and novel.
        calibrator: the calibration block, or None.
        settings: of the preprocessing.
    """

    config: Config
    eval_step: Callable
    info: DatasetInfo
    calibrator: Any
    settings: Preprocessing

    def batch(self, image: Image.Image, name: str) -> Batch:
        """See `prediction_input.make_batch`."""
        return make_batch(image, name, self.config.input.min_size_test, self.settings)

    def run(self, source: Any, see: Callable[..., np.ndarray], threshold: float) -> None:  # noqa: ANN401
        """Detect on all batches of a source; `see` gets each picture's detections.

        Without calibration no score changes afterwards, so weaker detections are not even made.
        """
        test = self.config.test
        lowest = test.score_threshold
        if self.calibrator is None:
            # what scores exactly the threshold is still shown
            lowest = max(lowest, float(np.nextafter(np.float32(threshold), np.float32(-1))))
        detect(
            self.eval_step,
            source,
            self.info.category_ids,
            score_threshold=lowest,
            nms_threshold=test.nms_threshold,
            max_detections=test.detections_per_image,
            idle_wait=self.config.device_target == "CPU",
            calibrate=see,
        )


class Pictures:
    """The pictures of a folder one by one; what cannot be read is recorded and left out.

    Attributes:
        current: the picture that was given last: its name, path, pixels and oddities.
    """

    def __init__(self, inputs: Inputs, detector: Detector, found: Predictions) -> None:
        self.inputs, self.detector, self.found = inputs, detector, found
        self.current: tuple[str, Path, Image.Image, list[str]]

    def __len__(self) -> int:
        return len(self.inputs.images)

    def __iter__(self) -> Iterator[Batch]:
        for path in self.inputs.images:
            name = path.relative_to(self.inputs.root).as_posix()
            try:
                image, notes = read_image(path, self.detector.settings.max_pixels)
                batch = self.detector.batch(image, str(path))
            except InputError as error:
                logger.warning("left out: %s", error)
                self.found.problem(name, str(error))
                continue
            for note in notes:
                logger.info("%s: %s", path, note)
            self.current = (name, path, image, notes)
            yield batch

    def see(
        self, file_name: str, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray
    ) -> np.ndarray:
        """Calibrate, draw and record the detections of the current picture."""
        name, _, image, notes = self.current
        if self.detector.calibrator is not None:
            try:
                scores = self.detector.calibrator(file_name, boxes, scores, classes)
            except InputError as error:
                logger.warning("left out: %s", error)
                self.found.problem(name, str(error))
                return scores
        rows = self.found.rows(boxes, scores, classes)
        picture = self.found.draw_picture(name, to_bgr(image), rows)
        place = {"file": name, "picture": picture, **({"notes": notes} if notes else {})}
        self.found.add(place, (image.height, image.width), rows)
        return scores


class Frames:
    """Every `step`-th frame of a video; drawn ones go to a writer."""

    def __init__(
        self,
        reader: VideoReader,
        writer: VideoWriter,
        detector: Detector,
        found: Predictions,
        step: int,
    ) -> None:
        self.reader, self.writer = reader, writer
        self.detector, self.found, self.step = detector, found, step
        self.current: tuple[int, np.ndarray]

    def __len__(self) -> int:
        return -(-self.reader.info.num_frames // self.step)

    def __iter__(self) -> Iterator[Batch]:
        for number, frame in self.reader.frames(self.step):
            self.current = (number, frame)
            image = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
            yield self.detector.batch(image, f"{self.reader.path}, frame {number}")

    def see(
        self, file_name: str, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray
    ) -> np.ndarray:
        """Calibrate, draw and record the detections of the current frame."""
        del file_name
        number, frame = self.current
        if self.detector.calibrator is not None:
            scores = self.detector.calibrator.on_pixels(frame, boxes, scores, classes)
        rows = self.found.rows(boxes, scores, classes)
        self.writer.write(self.found.draw(frame, rows, resized=False))
        place = {"frame": number, "seconds": number / self.reader.info.fps}
        self.found.add(place, (frame.shape[0], frame.shape[1]), rows)
        return scores


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Read the command line: two flags of its own, and the configuration's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--score_threshold", type=float, default=0.5)
    parser.add_argument("--frame_step", type=int, default=1)
    options, words = parser.parse_known_args(argv)
    description = (
        f"{__doc__}\n--score_threshold=0.5 leaves weaker detections out, in JSON and pictures; "
        "--frame_step=N takes every N-th frame of a video."
    )
    config = config_from_arguments(words, description)
    if not 0 <= options.score_threshold <= 1:
        raise InputError(f"--score_threshold {options.score_threshold:g} must lie within 0 and 1")
    if options.frame_step < 1:
        raise InputError(f"--frame_step {options.frame_step} must be 1 or more")
    return options, config


def describe_classes(config: Config, trained: tuple[str, ...]) -> tuple[DatasetInfo, bool]:
    """Classes with ids, base and novel: of the test set, unless the checkpoint has others.

    Args:
        config: the first set of `data.test` gives ids, and the names where `trained` has none.
        trained: names of the checkpoint's classes, or ().

    Returns:
        The description, and whether its ids are a data set's own.

    Raises:
        InputError: the checkpoint has no names, and the test set is not here either.
    """
    try:
        info = _test_set(config, trained)
    except InputError as error:
        if not trained:
            raise
        logger.info("the names of the classes are the checkpoint's: %s", error)
        novel = _declared_novel(config)
        base = tuple(label for label in trained if label not in novel) if novel else ()
        return _description(config, trained, range(1, len(trained) + 1), base, novel), False
    if trained in ((), info.class_names):
        return info, True
    logger.info("the checkpoint has other classes than %s; its own are taken", info.name)
    known = dict(zip(info.class_names, info.category_ids))
    complete = all(label in known for label in trained)
    ids = [known[label] for label in trained] if complete else range(1, len(trained) + 1)
    described = _description(config, trained, ids, info.base_classes, info.novel_classes)
    return described, complete


def _test_set(config: Config, trained: tuple[str, ...]) -> DatasetInfo:
    """The first test set; where a built-in one lacks classes of the checkpoint, all its classes."""
    name = config.data.test[0]
    if any(name.startswith(f"{key}_test_") for key in config.data.custom):
        return read_sets(config, (name,))[0]
    info = resolve_dataset(name)
    if trained and not set(trained) <= set(info.class_names):
        return resolve_dataset(re.sub(r"_(base|novel)(?=\d*$)", "_all", name))
    return info


def _declared_novel(config: Config) -> tuple[str, ...]:
    """Novel classes of the test set's data as the configuration has them."""
    name = config.data.test[0]
    own = [key for key in config.data.custom if name.startswith(f"{key}_test_")]
    return config.data.custom[max(own, key=len)].novel_classes if own else ()


def _description(
    config: Config,
    names: tuple[str, ...],
    ids: Sequence[int],
    base: tuple[str, ...],
    novel: tuple[str, ...],
) -> DatasetInfo:
    """Classes without files."""
    return DatasetInfo(
        name=config.data.test[0],
        format="coco",
        annotations=Path(),
        image_root=Path(),
        image_list=None,
        class_names=names,
        category_ids=tuple(ids),
        base_classes=base,
        novel_classes=novel,
    )


def make_detector(config: Config, path: Path) -> tuple[Detector, bool]:
    """Build network and calibration block for a checkpoint.

    Returns:
        The detector, and whether its category ids are a data set's own.
    """
    info, own_ids = describe_classes(config, assembly_eval.trained_classes(path))
    net = assembly.make_detector(config, info.class_names)
    source = assembly_eval.load_for_evaluation(net, path, info.class_names)
    settings = Preprocessing(
        max_size=config.input.max_size_test,
        pixel_mean=config.input.pixel_mean,
        pixel_std=config.input.pixel_std,
        shapes=parse_shapes(config.input.input_shapes),
        num_slots=1,
        max_pixels=config.data.max_image_pixels,
    )
    step = assembly_eval.make_eval_step(config, net)
    return Detector(config, step, info, make_calibrator(config, info, source), settings), own_ids


def watch(detector: Detector, video: Path, found: Predictions, step: int) -> Path:
    """Detect on a video, and write it with its detections; the frames' rate is kept."""
    reader = VideoReader(video)
    target = found.folder / f"{video.stem}.mp4"
    if target.resolve() == video.resolve():
        raise InputError(f"result_path: {target} would replace the video itself; name another one")
    found.head = {**found.head, "fps": reader.info.fps, "frame_step": step}
    try:
        with VideoWriter(target, reader.info.fps / step) as writer:
            frames = Frames(reader, writer, detector, found, step)
            detector.run(frames, frames.see, found.threshold)
    finally:
        reader.close()
    problem = reader.problem()
    if problem:
        found.problem(video.name, problem)
        logger.warning("%s %s", video, problem)
    return target


def look(detector: Detector, inputs: Inputs, found: Predictions) -> Path:
    """Detect on pictures; return the folder of the drawn ones."""
    for path in inputs.skipped:
        logger.warning("%s is no picture and left out", path)
    pictures = Pictures(inputs, detector, found)
    detector.run(pictures, pictures.see, found.threshold)
    return found.folder / "pictures"


def main(argv: Sequence[str] | None = None) -> int:
    """Detect, draw, write; 1 if something could not be read."""
    options, config = parse(argv)
    set_up_logging()
    folder = Path(config.result_path or Path(config.save_checkpoint_path) / "predict")
    what = "give a picture, a folder of pictures, or a video"
    path = require_path("input_path", config.input_path, what)
    if path.is_dir() and folder.resolve() == path.resolve():
        raise InputError("result_path is the folder of the pictures; name another one")
    inputs = find_inputs(path, folder)
    checkpoint = assembly_eval.evaluation_checkpoint(config)
    Runtime.start(config.device_target, device_id=config.device_id)
    detector, own_ids = make_detector(config, checkpoint)
    info = detector.info
    found = Predictions(
        folder,
        info.class_names,
        info.category_ids,
        options.score_threshold,
        {
            "input": str(path),
            "checkpoint": str(checkpoint),
            "category_ids": FOUND if own_ids else UNKNOWN,
            "calibrated": detector.calibrator is not None,
        },
    )
    kind = "frames" if inputs.video else "images"
    try:
        if inputs.video:
            drawn = watch(detector, inputs.video, found, options.frame_step)
        else:
            drawn = look(detector, inputs, found)
    except BaseException:
        found.write(kind, complete=False)
        raise
    written = found.write(kind, complete=True)
    count = f"{len(found.entries)} {kind}" if len(found.entries) != 1 else f"1 {kind[:-1]}"
    sys.stdout.write(f"{count}\n{found.table()}\ndrawn: {drawn}\nas JSON: {written}\n")
    for problem in found.problems:
        sys.stderr.write(f"error: {problem['file']}: {problem['reason']}\n")
    return 1 if found.problems else 0


if __name__ == "__main__":
    run_main(main)
