# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Detect on a picture, a folder of pictures or a video, with any checkpoint.

python -m src.predict --config_path=FILE --eval_checkpoint_path=CKPT --input_path=PATH \
        [--result_path=DIR] [--score_threshold=0.5] [--frame_step=1] [--key=value ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from src.assembly.calibration import make_calibrator
from src.assembly.classes import describe_classes
from src.assembly.data import preprocessing
from src.assembly.device import start_device
from src.assembly.evaluation import (
    detections,
    evaluation_checkpoint,
    load_for_evaluation,
    make_inference,
)
from src.assembly.training import make_detector
from src.data.transforms import to_bgr
from src.engine.inference import Detections
from src.model_utils.config import Config, config_from_arguments
from src.predict.inputs import make_batch
from src.predict.look import Shown, Wanted, add_flags, check_flags, lowest_score, run
from src.util import set_up_logging
from src.weights.note import class_names_of

FOUND, UNKNOWN = "of the data set", "class index + 1: the data set of data.test is not known here"


class Detector:
    """A checkpoint as a `look.Detector`.

    Args:
        config: the configuration.
        checkpoint: file or folder of the weights.
    """

    def __init__(self, config: Config, checkpoint: Path) -> None:
        self.config = config
        info, own_ids = describe_classes(config, class_names_of(checkpoint))
        net = make_detector(config, info.class_names)
        source = load_for_evaluation(net, checkpoint, info.class_names)
        self.outputs_of = make_inference(config, net)
        self.calibrator = make_calibrator(config, info, source)
        self.settings = preprocessing(config, config.input.max_size_test)
        self.max_pixels = self.settings.max_pixels
        self.score_threshold = config.test.score_threshold
        self.class_names, self.category_ids = info.class_names, info.category_ids
        self.head = {
            "checkpoint": str(checkpoint),
            "category_ids": FOUND if own_ids else UNKNOWN,
            "calibrated": self.calibrator is not None,
        }

    def shown(self, image: Image.Image, source: str, name: str, notes: list[str]) -> Shown:
        """See `inputs.make_batch`."""
        batch = make_batch(image, source, self.config.input.min_size_test, self.settings)
        return Shown(**vars(batch), name=name, pixels=to_bgr(image), notes=notes)

    def detections(
        self, source: Iterator[Shown], total: int, threshold: float
    ) -> Iterator[Detections[Shown]]:
        """See `look.Detector`."""
        lowest = lowest_score(self.score_threshold, threshold, self.calibrator is not None)
        return detections(self.config, self.outputs_of, source, total, above=lowest)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Read the command line: two flags of its own, and the configuration's."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_flags(parser)
    options, words = parser.parse_known_args(argv)
    description = (
        f"{__doc__}\n--score_threshold=0.5 leaves weaker detections out, in JSON and pictures; "
        "--frame_step=N takes every N-th frame of a video; --bundle=NAME instead of a "
        "configuration runs what export.py --bundle=NAME wrote."
    )
    config = config_from_arguments(words, description)
    check_flags(options)
    return options, config


def main(argv: Sequence[str] | None = None) -> int:
    """Detect with the checkpoint that the configuration names."""
    options, config = parse(argv)
    set_up_logging()

    def make() -> Detector:
        checkpoint = evaluation_checkpoint(config)
        start_device(config, alone=True)
        return Detector(config, checkpoint)

    folder = Path(config.result_path or Path(config.save_checkpoint_path) / "predict")
    wanted = Wanted(config.input_path, folder, options.score_threshold, options.frame_step)
    return run(wanted, make)
