# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Detect on a picture, a folder of pictures or a video, with any checkpoint.

    python -m src.predict --config_path=FILE --eval_checkpoint_path=CKPT --input_path=PATH \
        [--result_path=DIR] [--score_threshold=0.5] [--frame_step=1] [--key=value ...]

Writes DIR/detections.json and the drawn pictures (a video: DIR/NAME.mp4); of pictures also what
labelling tools read: DIR/coco_results.json with coco_images.json, DIR/label_studio.json with
label_studio.xml, DIR/yolo/labels with data.yaml. Pictures are brought to the network exactly as in
evaluation, and the calibration block runs if test.pcb.enable is set. The classes are those that
the checkpoint was trained on; its data set need not be here. A picture that cannot be read is named
and left out: the others are done, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from src.assembly.calibration import make_calibrator
from src.assembly.data import describe_set, preprocessing
from src.assembly.device import start_device
from src.assembly.evaluation import (
    detections,
    evaluation_checkpoint,
    load_for_evaluation,
    make_inference,
)
from src.assembly.training import make_detector
from src.data.batching import Batch
from src.data.transforms import to_bgr
from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.data_types import DatasetInfo
from src.engine.inference import Detections
from src.engine.run_folder import alone_in
from src.evaluation.result_folder import NewResults, new_results
from src.model_utils.config import Config, config_from_arguments, require_path
from src.model_utils.errors import InputError
from src.model_utils.set_names import parse_name
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
from src.weights.note import class_names_of

logger = logging.getLogger(__name__)

FOUND, UNKNOWN = "of the data set", "class index + 1: the data set of data.test is not known here"


@dataclass
class Shown(Batch):
    """A batch of one picture or frame, with what is drawn on and what is said of it.

    Attributes:
        name: of the picture in the results; a frame's number.
        pixels: (H, W, 3) uint8, blue first.
        notes: what is unusual about it, in words.
    """

    name: str = ""
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))
    notes: list[str] = field(default_factory=list)


class Detector:
    """A network that is ready, with its calibration block, and how pictures are brought to it.

    Args:
        config: the configuration.
        checkpoint: file or folder of the weights.

    Attributes:
        info: classes, their ids, base and novel.
        own_ids: whether the ids are a data set's own.
        calibrator: the calibration block, or None.
    """

    def __init__(self, config: Config, checkpoint: Path) -> None:
        self.config = config
        self.info, self.own_ids = describe_classes(config, class_names_of(checkpoint))
        net = make_detector(config, self.info.class_names)
        source = load_for_evaluation(net, checkpoint, self.info.class_names)
        self.outputs_of = make_inference(config, net)
        self.calibrator = make_calibrator(config, self.info, source)
        self.settings = preprocessing(config, config.input.max_size_test)

    def shown(self, image: Image.Image, source: str, name: str, notes: list[str]) -> Shown:
        """See `inputs.make_batch`."""
        batch = make_batch(image, source, self.config.input.min_size_test, self.settings)
        return Shown(**vars(batch), name=name, pixels=to_bgr(image), notes=notes)

    def detections(
        self, source: Iterator[Shown], total: int, threshold: float
    ) -> Iterator[Detections[Shown]]:
        """Detections on each picture of a source, before calibration.

        Without calibration no score changes afterwards, so weaker detections are not even made.
        """
        lowest = self.config.test.score_threshold
        if self.calibrator is None:
            # what scores exactly the threshold is still shown
            lowest = max(lowest, float(np.nextafter(np.float32(threshold), np.float32(-1))))
        return detections(self.config, self.outputs_of, source, total, above=lowest)


def pictures(inputs: Inputs, detector: Detector, found: Predictions) -> Iterator[Shown]:
    """The pictures of a folder one by one; what cannot be read is recorded and left out."""
    for path in inputs.images:
        name = path.relative_to(inputs.root).as_posix()
        try:
            image, notes = read_image(path, detector.settings.max_pixels)
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
        return _without_files(config, trained), False
    if trained in ((), info.class_names):
        return info, True
    logger.info("the checkpoint has other classes than %s; its own are taken", info.name)
    known = dict(zip(info.class_names, info.category_ids))
    complete = all(label in known for label in trained)
    ids = [known[label] for label in trained] if complete else range(1, len(trained) + 1)
    return replace(info, class_names=trained, category_ids=tuple(ids)), complete


def _test_set(config: Config, trained: tuple[str, ...]) -> DatasetInfo:
    """The first test set; where a built-in one lacks classes of the checkpoint, all its classes."""
    name = config.data.test[0]
    info, parsed = describe_set(config, name), parse_name(name, config.data.custom)
    if parsed and not parsed.own and not set(trained) <= set(info.class_names):
        return resolve_dataset(replace(parsed, split="all").full)
    return info


def _without_files(config: Config, trained: tuple[str, ...]) -> DatasetInfo:
    """A checkpoint's classes; those are novel that the configuration of the test set names."""
    name = config.data.test[0]
    parsed = parse_name(name, config.data.custom)
    novel = config.data.custom[parsed.family].novel_classes if parsed and parsed.own else ()
    return DatasetInfo(
        name=name,
        format="coco",
        annotations=Path(),
        image_root=Path(),
        image_list=None,
        class_names=trained,
        category_ids=tuple(range(1, len(trained) + 1)),
        base_classes=tuple(label for label in trained if label not in novel) if novel else (),
        novel_classes=novel,
    )


def watch(detector: Detector, video: Path, found: Predictions, step: int) -> Path:
    """Detect on a video, and write it with its detections; the frames' rate is kept."""
    reader = VideoReader(video)
    target = found.folder / f"{video.stem}.mp4"
    found.head = {**found.head, "fps": reader.fps, "frame_step": step}
    total = -(-reader.num_frames // step)
    try:
        with VideoWriter(target, reader.fps / step) as writer:
            source = frames(reader, detector, step)
            for one in detector.detections(source, total, found.threshold):
                frame, scores = one.image, one.scores
                if detector.calibrator is not None:
                    scores = detector.calibrator.on_pixels(
                        frame.pixels, one.boxes, scores, one.classes
                    )
                rows = found.rows(one.boxes, scores, one.classes)
                writer.write(found.draw(frame.pixels, rows, resized=False))
                number = int(frame.name)
                found.add({"frame": number, "seconds": number / reader.fps}, frame.pixels, rows)
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
    source = pictures(inputs, detector, found)
    for one in detector.detections(source, len(inputs.images), found.threshold):
        image, scores = one.image, one.scores
        if detector.calibrator is not None:
            try:
                scores = detector.calibrator(image.file_names[0], one.boxes, scores, one.classes)
            except InputError as error:
                found.leave_out(image.name, str(error))
                continue
        rows = found.rows(one.boxes, scores, one.classes)
        place = {"file": image.name, "picture": found.draw_picture(image.name, image.pixels, rows)}
        found.add({**place, **({"notes": image.notes} if image.notes else {})}, image.pixels, rows)
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
    if inputs.video and (folder / f"{inputs.video.stem}.mp4").resolve() == inputs.video.resolve():
        raise InputError(f"result_path: {inputs.video} would be replaced; name another folder")
    with alone_in(folder, "src.predict", "result_path"), new_results(folder) as results:
        return predict(options, config, inputs, results)


def predict(
    options: argparse.Namespace, config: Config, inputs: Inputs, results: NewResults
) -> int:
    """The work of `main`; what was done before an interruption or a failure is kept.

    If that is nothing, the earlier results stay.
    """
    checkpoint = evaluation_checkpoint(config)
    start_device(config, alone=True)
    detector = Detector(config, checkpoint)
    info = detector.info
    found = Predictions(
        results.folder,
        info.class_names,
        info.category_ids,
        options.score_threshold,
        Path(os.path.abspath(inputs.root)).name,
        {
            "input": config.input_path,
            "checkpoint": str(checkpoint),
            "category_ids": FOUND if detector.own_ids else UNKNOWN,
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


if __name__ == "__main__":
    run_main(main)
