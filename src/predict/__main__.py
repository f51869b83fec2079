# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Detect on a picture, a folder of pictures or a video, with any checkpoint or with a bundle.

    python -m src.predict --config_path=FILE --eval_checkpoint_path=CKPT --input_path=PATH \
        [--result_path=DIR] [--score_threshold=0.5] [--frame_step=1] [--key=value ...]
    python -m src.predict --bundle=NAME --input_path=PATH [--result_path=DIR] \
        [--score_threshold=0.5] [--frame_step=1] [--engine=onnxruntime] [--device_target=CPU]

Writes DIR/detections.json and the drawn pictures (a video: DIR/NAME.mp4); of pictures also what
labelling tools read: DIR/coco_results.json with coco_images.json, DIR/label_studio.json with
label_studio.xml, DIR/yolo/labels with data.yaml. Pictures are brought to the network exactly as in
evaluation, and the calibration block runs if test.pcb.enable is set. The classes are those that
the checkpoint was trained on; its data set need not be here. A picture that cannot be read is named
and left out: the others are done, and the exit code is 1.

The second form needs neither a configuration nor data: all is in the bundle, which export.py wrote.
One of ONNX graphs needs onnxruntime, NumPy, OpenCV and Pillow only (requirements-onnxruntime.txt).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from src.util import run_main

BUNDLE = "--bundle"


def main(argv: Sequence[str] | None = None) -> int:
    """Detect, draw, write; 1 if something could not be read."""
    words = sys.argv[1:] if argv is None else list(argv)
    # Either side is imported only here: a bundle runs where a checkpoint's libraries are missing.
    if any(word.partition("=")[0] == BUNDLE for word in words):
        from src.predict.bundle import main as of_bundle

        return of_bundle(words)
    from src.predict.checkpoint import main as of_checkpoint

    return of_checkpoint(words)


if __name__ == "__main__":
    run_main(main)
