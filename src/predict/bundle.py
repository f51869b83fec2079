# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Detect with a bundle: one folder or tar file that export.py wrote; nothing else is read.

One of ONNX graphs needs onnxruntime, NumPy, OpenCV and Pillow, one of MINDIR MindSpore too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.calibration.pictures import reader
from src.data.batching import Batch, Preprocessing
from src.data.transforms import resized_shape, to_bgr
from src.defrcn.pcb import Calibrator, Prototypes
from src.engine.inference import Detections, detect
from src.export.bundle import Bundle, Graph, open_bundle
from src.export.graphs import ENGINES, CanvasEncoder, Runner, opener
from src.model_utils.command_line import command_parser
from src.model_utils.errors import InputError
from src.predict.inputs import make_batch
from src.predict.look import Shown, Wanted, add_flags, check_flags, lowest_score, run
from src.util import listing, set_up_logging

FLAGS: dict[str, dict[str, Any]] = {
    "--bundle": dict(required=True, help="the folder that export.py wrote, or its .tar"),
    "--input_path": dict(default="", help="a picture, a folder of pictures, or a video"),
    "--result_path": dict(default="predictions", help="folder of the results"),
    "--engine": dict(
        default="", choices=["", *ENGINES], help="default: the one that reads the bundle"
    ),
    "--device_target": dict(
        default="CPU", choices=["CPU", "GPU", "Ascend"], help="of --engine=mindspore"
    ),
}


class Detector:
    """A bundle as a `look.Detector`.

    Args:
        bundle: see there.
        open_graph: makes its graphs ready.
    """

    def __init__(self, bundle: Bundle, open_graph: Callable[[Graph], Runner]) -> None:
        self.bundle, self.max_pixels = bundle, bundle.max_pixels
        self.score_threshold = bundle.score_threshold
        self.class_names, self.category_ids = bundle.class_names, bundle.category_ids
        self.settings = Preprocessing(
            max_size=bundle.max_size,
            # the graph takes its mean off
            pixel_mean=(0.0, 0.0, 0.0),
            pixel_std=(1.0, 1.0, 1.0),
            shapes=(bundle.shape,),
            max_pixels=bundle.max_pixels,
        )
        self._run = open_graph(bundle.detector)
        self.calibrator = _calibrator(bundle, open_graph)
        self.head = {
            "bundle": str(bundle.source),
            "checkpoint": bundle.checkpoint,
            "category_ids": "as the bundle has them",
            "calibrated": self.calibrator is not None,
        }

    def shown(self, image: Image.Image, source: str, name: str, notes: list[str]) -> Shown:
        """See `look.Detector`.

        Raises:
            InputError: the picture is too large for the graph's input.
        """
        bundle, (height, width) = self.bundle, self.bundle.shape
        size = resized_shape(image.height, image.width, bundle.min_size, bundle.max_size)
        if size[0] > height or size[1] > width:
            raise InputError(
                f"{source}: {image.height} x {image.width} pixels become {size[0]} x {size[1]} "
                f"(height x width), and the input of {bundle.source} is {height} x {width}; export "
                "with larger --img_height and --img_width"
            )
        batch = make_batch(image, source, bundle.min_size, self.settings)
        return Shown(**vars(batch), name=name, pixels=to_bgr(image), notes=notes)

    def outputs_of(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `inference.OutputsOf`; what the graph could not decide is written into the batch."""
        meta = np.concatenate((batch.image_sizes, batch.original_sizes), 1).astype(np.float32)
        boxes, scores, valid, info = self._run(batch.images, np.zeros(1, np.int32), meta)
        undecided = int(info[0, 2])
        if undecided and isinstance(batch, Shown):
            batch.problem = (
                f"{batch.file_names[0]}: suppression of proposals was not complete ({undecided} "
                "undecided); export with a lower model.rpn.pre_nms_topk_test"
            )
        return boxes[0], scores[0], valid[0] > 0

    def detections(
        self, source: Iterator[Shown], total: int, threshold: float
    ) -> Iterator[Detections[Shown]]:
        """See `look.Detector`."""
        bundle = self.bundle
        return detect(
            self.outputs_of,
            source,
            total,
            score_threshold=lowest_score(
                self.score_threshold, threshold, self.calibrator is not None
            ),
            nms_threshold=bundle.nms_threshold,
            max_detections=bundle.max_detections,
        )


def _calibrator(bundle: Bundle, open_graph: Callable[[Graph], Runner]) -> Calibrator | None:
    part = bundle.calibration
    if part is None:
        return None
    return Calibrator(
        CanvasEncoder(part, open_graph(part.encoder), bundle.source),
        Prototypes(part.prototypes, part.calibrated.astype(np.int64)),
        excluded=(),
        alpha=part.alpha,
        lower=part.lower,
        upper=part.upper,
        read=reader(bundle.max_pixels),
    )


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: a flag is wrong, or one of a configuration.
    """
    parser = command_parser(FLAGS, description=__doc__, program="python -m src.predict")
    add_flags(parser)
    options, others = parser.parse_known_args(words)
    if others:
        raise InputError(
            f"{listing(others, 3)}: not together with --bundle, which has its own settings; leave "
            "that out"
        )
    check_flags(options)
    return options


def main(words: Sequence[str]) -> int:
    """Detect with the bundle that the command line names."""
    options = parse(words)
    set_up_logging()
    with open_bundle(options.bundle) as bundle:

        def make() -> Detector:
            return Detector(bundle, opener(bundle, options.engine, options.device_target))

        folder, step = Path(options.result_path), options.frame_step
        return run(Wanted(options.input_path, folder, options.score_threshold, step), make)
