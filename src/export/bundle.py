# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A bundle: all that detection needs in one folder, or in that folder as a tar file.

    NAME/bundle.json               what the other files are, with bytes and SHA-256
    NAME/bundle.sha256             that of bundle.json; written last
    NAME/detector.mindir           the detector (.onnx: as ONNX), boxes in the model frame
    NAME/encoder.mindir            with calibration: the encoder on a canvas of one size,
    NAME/projection_weight.f32     the layer after it, (D, C),
    NAME/projection_bias.f32       and its bias, (D,),
    NAME/prototypes.f32            and a vector for each class, (K, D)

Arrays are float32, little-endian, without any header. docs/deployment.md has the whole format. No
MindSpore here. Letters: K classes, P proposals, H x W the detector's input, h x w the canvas, C
channels of the encoder's map, D numbers of a vector.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.export.bundle_files import BundleFiles, open_files
from src.export.json_node import JsonNode

STRIDE = 32
"""Pixels a cell of the encoder's map."""
SUFFIXES = {"MINDIR": ".mindir", "ONNX": ".onnx"}
_MOST_SIDE = 1 << 20


@dataclass(frozen=True)
class Values:
    """An input or output of a graph: dtype is "float32" or "int32"."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A graph's file, and what goes in and comes out."""

    path: Path
    inputs: tuple[Values, ...]
    outputs: tuple[Values, ...]


@dataclass(frozen=True)
class Calibration:
    """The calibration block.

    Attributes:
        encoder: its graph.
        canvas: height and width that a picture must fit into.
        weight: (D, C) float32, of the layer after pooling.
        bias: (D,) float32.
        prototypes: (K, D) float32.
        calibrated: (K,) bool, whose scores change.
        alpha: share of the score in the mix.
        lower: scores up to this stay.
        upper: scores above this stay.
    """

    encoder: Graph
    canvas: tuple[int, int]
    weight: np.ndarray
    bias: np.ndarray
    prototypes: np.ndarray
    calibrated: np.ndarray
    alpha: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and found whole.

    Attributes:
        source: folder or tar file.
        mindspore: version that wrote the graphs.
        graph_format: "MINDIR" or "ONNX".
        class_names: by class index.
        category_ids: likewise.
        shape: H, W.
        min_size: short edge in the model frame.
        max_size: limit of the long edge.
        max_pixels: larger pictures are refused.
        score_threshold: a score must be above it.
        nms_threshold: IoU above which the weaker detection of a class is dropped.
        max_detections: of a picture.
        detector: the graph.
        calibration: None for a detector by itself.
        checkpoint: name of the file that it was made of.
    """

    source: Path
    mindspore: str
    graph_format: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    shape: tuple[int, int]
    min_size: int
    max_size: int
    max_pixels: int
    score_threshold: float
    nms_threshold: float
    max_detections: int
    detector: Graph
    calibration: Calibration | None
    checkpoint: str


def detector_values(
    height: int, width: int, num_proposals: int, num_classes: int
) -> tuple[tuple[Values, ...], tuple[Values, ...]]:
    """Inputs and outputs of a detector's graph; see `network.DetectorForExport`."""
    return (
        (
            Values("image", "float32", (1, 3, height, width)),
            Values("image_id", "int32", (1,)),
            Values("image_meta", "float32", (1, 4)),
        ),
        (
            Values("boxes", "float32", (1, num_proposals, num_classes, 4)),
            Values("scores", "float32", (1, num_proposals, num_classes + 1)),
            Values("valid", "int32", (1, num_proposals)),
            Values("info", "int32", (1, 4)),
        ),
    )


def encoder_values(
    height: int, width: int, channels: int
) -> tuple[tuple[Values, ...], tuple[Values, ...]]:
    """Inputs and outputs of an encoder's graph; see `encoder.EncoderForExport`."""
    cells = (1, -(-height // STRIDE), -(-width // STRIDE), channels)
    return (
        (Values("image", "float32", (1, 3, height, width)), Values("size", "float32", (1, 2))),
        (Values("features", "float32", cells),),
    )


@contextlib.contextmanager
def open_bundle(path: str | os.PathLike[str]) -> Iterator[Bundle]:
    """Read a bundle and check all of it; a tar file is unpacked for the time of the block.

    Args:
        path: the folder, or the tar file.

    Raises:
        InputError: it is missing, of another version, not whole, or changed; the message names
            the file.
    """
    with open_files(path) as files:
        yield _read(files)


class _Reader:
    """Reads the parts of a bundle whose files were checked."""

    def __init__(self, files: BundleFiles) -> None:
        self.folder, self.content, self.names = files.folder, files.content, files.names

    def file(self, node: JsonNode) -> Path:
        """The path of a file that a value names."""
        name = node.at("file").text()
        if name not in self.names:
            node.at("file").refuse(f"is {ascii(name)}, which files does not list")
        return self.folder / name

    def array(self, key: str, *sides: int | None) -> np.ndarray:
        """An array of the calibration block."""
        node = self.content.at("calibration").at(key)
        shape = node.at("shape").shape(*sides)
        path = self.file(node)
        wanted = 4 * int(np.prod(shape, dtype=object))
        if path.stat().st_size != wanted:
            node.at("shape").refuse(
                f"is {list(shape)}, {wanted} bytes, but {path.name} has {path.stat().st_size}"
            )
        values = np.fromfile(path, "<f4").astype(np.float32, copy=False).reshape(shape)
        if not np.isfinite(values).all():
            node.refuse(f"holds numbers that are not finite ({path.name})")
        return values

    def graph(self, node: JsonNode, inputs: Sequence[Values], outputs: Sequence[Values]) -> Graph:
        """A graph, which must have these inputs and outputs."""
        for key, wanted in (("inputs", inputs), ("outputs", outputs)):
            found = node.at(key).items()
            if len(found) != len(wanted):
                node.at(key).refuse(f"are {len(found)}, not {len(wanted)}")
            for one, values in zip(found, wanted):
                one.at("name").text((values.name,))
                one.at("dtype").text((values.dtype,))
                one.at("shape").shape(*values.shape)
        return Graph(self.file(node), tuple(inputs), tuple(outputs))

    def calibration(self, num_classes: int) -> Calibration | None:
        """The calibration block, if there is one."""
        if self.content.at("calibration").value is None:
            return None
        node = self.content.at("calibration")
        encoder = node.at("encoder")
        height, width = _sides(encoder, "height", "width")
        if encoder.at("stride").whole() != STRIDE or height % STRIDE or width % STRIDE:
            encoder.refuse(f"has no stride of {STRIDE} that divides its height and width")
        (features,) = encoder.at("outputs").items()[:1]
        *_, channels = features.at("shape").shape(1, height // STRIDE, width // STRIDE, None)
        weight = self.array("projection_weight", None, channels)
        flags = [one.flag() for one in node.at("calibrated").items()]
        if len(flags) != num_classes:
            node.at("calibrated").refuse(f"has {len(flags)} values for {num_classes} classes")
        return Calibration(
            self.graph(encoder, *encoder_values(height, width, channels)),
            (height, width),
            weight,
            self.array("projection_bias", len(weight)),
            self.array("prototypes", num_classes, len(weight)),
            np.array(flags, bool),
            node.at("alpha").number(0, 1),
            node.at("lower").number(0, 1),
            node.at("upper").number(0, 1),
        )


def _sides(node: JsonNode, *keys: str) -> list[int]:
    return [node.at(key).whole(1, _MOST_SIDE) for key in keys]


def _read(files: BundleFiles) -> Bundle:
    reader, content = _Reader(files), files.content
    classes = content.at("classes").items()
    ids = tuple(one.at("category_id").whole(-(2**63), 2**63) for one in classes)
    if len(set(ids)) < len(ids):
        content.at("classes").refuse("has a category_id twice")
    pixels, rules = content.at("input"), content.at("detection")
    height, width, min_size, max_size = _sides(pixels, "height", "width", "min_size", "max_size")
    detector = content.at("detector")
    (boxes,) = detector.at("outputs").items()[:1]
    num_proposals = boxes.at("shape").shape(1, None, len(classes), 4)[1]
    return Bundle(
        source=files.source,
        mindspore=content.at("mindspore").text(),
        graph_format=content.at("graph_format").text(tuple(SUFFIXES)),
        class_names=tuple(one.at("label").text() for one in classes),
        category_ids=ids,
        shape=(height, width),
        min_size=min_size,
        max_size=max_size,
        max_pixels=pixels.at("max_pixels").whole(),
        score_threshold=rules.at("score_threshold").number(0, 1),
        nms_threshold=rules.at("nms_threshold").number(0, 1),
        max_detections=rules.at("detections_per_image").whole(),
        detector=reader.graph(
            detector, *detector_values(height, width, num_proposals, len(classes))
        ),
        calibration=reader.calibration(len(classes)),
        checkpoint=content.at("checkpoint").at("file").text(),
    )
