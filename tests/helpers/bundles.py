# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Bundles written by hand, for the program that reads them: format version 1, MINDIR graphs."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def tensor(name, shape, dtype="float32"):
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def detector_part(height, width, proposals, classes):
    """What bundle.json says of a detector that export.py wrote."""
    inputs = [tensor("image", (1, 3, height, width)), tensor("image_id", (1,), "int32")]
    outputs = [tensor("boxes", (1, proposals, classes, 4))]
    outputs += [
        tensor("scores", (1, proposals, classes + 1)),
        tensor("valid", (1, proposals), "int32"),
    ]
    return {
        "file": "detector.mindir",
        "inputs": [*inputs, tensor("image_meta", (1, 4))],
        "outputs": [*outputs, tensor("info", (1, 4), "int32")],
    }


def calibration_part(folder, canvas, features, arrays, calibrated, limits):
    """Write the block's arrays; return what bundle.json says of it.

    Args:
        folder: of the bundle.
        canvas: height and width of the encoder's input.
        features: shape of its output, after the 1.
        arrays: projection_weight, projection_bias, prototypes.
        calibrated: bool by class.
        limits: alpha, lower, upper.
    """
    part = {
        "encoder": {
            "file": "encoder.mindir",
            "height": canvas[0],
            "width": canvas[1],
            "stride": 32,
            "inputs": [tensor("image", (1, 3, *canvas)), tensor("size", (1, 2))],
            "outputs": [tensor("features", (1, *features))],
        },
        "calibrated": [bool(one) for one in calibrated],
        **dict(zip(("alpha", "lower", "upper"), limits)),
    }
    for name, array in zip(("projection_weight", "projection_bias", "prototypes"), arrays):
        np.asarray(array, "<f4").tofile(folder / f"{name}.f32")
        part[name] = {"file": f"{name}.f32", "shape": list(array.shape)}
    return part


def write_sum(folder):
    """Write bundle.sha256, as sha256sum does."""
    digest = hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
    (folder / "bundle.sha256").write_text(f"{digest}  bundle.json\n")


def write_bundle(folder, detector, sizes, *, calibration=None, classes=None, **detection):
    """Write bundle.json beside the files that are there.

    Args:
        folder: with the graphs, and the arrays that `calibration_part` wrote.
        detector: see `detector_part`.
        sizes: min_size and max_size of the model frame.
        calibration: see `calibration_part`.
        classes: entries of the list; None for a, b, c... with ids 11, 12, 13...
        detection: other rules than the usual ones.
    """
    height, width = detector["inputs"][0]["shape"][2:]
    count = detector["outputs"][0]["shape"][2]
    files = {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.iterdir())
        if path.name not in ("bundle.json", "bundle.sha256")
    }
    rules = {"score_threshold": 0.05, "nms_threshold": 0.5, "detections_per_image": 100}
    content = {
        "format": "defrcn-bundle",
        "format_version": 1,
        "mindspore": "2.8.0",
        "graph_format": "MINDIR",
        "mindir_version": 1,
        "files": files,
        "classes": classes
        or [{"label": chr(97 + i), "category_id": 11 + i, "novel": i == 0} for i in range(count)],
        "input": {
            "height": height,
            "width": width,
            "min_size": sizes[0],
            "max_size": sizes[1],
            "max_pixels": 178956970,
        },
        "detection": {**rules, **detection},
        "detector": detector,
        "calibration": calibration,
        "checkpoint": {"file": "by hand", "sha256": "0" * 64},
        "support_set": None,
    }
    (folder / "bundle.json").write_text(json.dumps(content))
    write_sum(folder)
    return folder
