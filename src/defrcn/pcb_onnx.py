# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Encoders of the calibration block that are ONNX files, run by onnxruntime on the CPU.

`OnnxMaps` takes a map of the whole picture and pools each box from it, `OnnxCrops` a vector of each
box's own crop. What the graph is fed and gives is said by a YAML file (`OnnxSettings`), and tried
when the encoder is made. Pictures are (H, W, 3) uint8 BGR as OpenCV reads them; boxes are float32
(x1, y1, x2, y2) pixels of the image frame.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.defrcn.onnx_session import OnnxSession
from src.defrcn.pcb_pooling import MapEncoder
from src.model_utils.errors import InputError
from src.model_utils.onnx_settings import OnnxSettings
from src.util import listing

Region = tuple[float, float, float, float]
_TRIED = 224  # about the side of the first input of a graph for any size, pixels
_BATCH = 16  # crops at once


class Graph:
    """An ONNX file with one picture input, ready to run.

    Args:
        path: the ONNX file.
        settings: what it is fed and gives.
        source: the settings' file, for messages.

    Attributes:
        size: height and width of the input, pixels; None for any.
        largest_batch: pictures that it takes at once.

    Raises:
        InputError: onnxruntime is missing or refuses the file, or the settings do not fit it.
    """

    def __init__(self, path: Path, settings: OnnxSettings, source: object) -> None:
        self.path, self.source = path, source
        self._session = OnnxSession(path, source)
        self._input = self._only_input()
        batch, *sides = self._input.shape[0:1] + self._input.shape[2:]
        self.largest_batch = self._batch(batch)
        self.size = self._fixed_size(sides, settings.size)
        self.output = self._chosen_output(settings.output)
        self._mean = np.array(settings.mean, np.float32)
        self._std = np.array(settings.std, np.float32)
        self._turned = settings.channels == "rgb"

    def _only_input(self) -> Any:  # noqa: ANN401
        given = self._session.inputs
        if len(given) != 1 or given[0].type != "tensor(float)" or len(given[0].shape) != 4:
            found = listing([f"{one.name} {one.type} {list(one.shape)}" for one in given])
            raise InputError(
                f"{self.source}: model: {self.path} wants {found}, not one float32 input (N, 3, "
                "height, width); export the image encoder alone, in float32"
            )
        return given[0]

    def _batch(self, axis: object) -> int:
        if isinstance(axis, int) and axis != 1:
            raise InputError(
                f"{self.source}: model: {self.path} takes {axis} pictures at once only; export it "
                "with a first axis that is 1 or dynamic"
            )
        return 1 if isinstance(axis, int) else _BATCH

    def _fixed_size(
        self, sides: list[object], wanted: tuple[int, int] | None
    ) -> tuple[int, int] | None:
        names = [str(wanted[place] if wanted else side) for place, side in enumerate(sides)]
        for place, side in enumerate(sides):
            if isinstance(side, int) and (wanted is None or wanted[place] != side):
                names[place] = str(side)
                raise InputError(
                    f"{self.source}: size is {list(wanted) if wanted else 'null'}, but "
                    f"{self.path} takes [{', '.join(names)}] (height, width) only; write that size"
                )
        return wanted

    def _chosen_output(self, name: str) -> str:
        names = [one.name for one in self._session.outputs]
        if name in names or (not name and len(names) == 1):
            return name or str(names[0])
        problem = f"{name} is not among" if name else "is empty, but there are several of"
        raise InputError(
            f"{self.source}: output {problem} the outputs of {self.path} ({listing(names, 20)}); "
            "name one of these"
        )

    def feed(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 in the graph's order of channels -> (3, H, W) float32, normalised."""
        values = (pixels.astype(np.float32) / np.float32(255) - self._mean) / self._std
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    def ordered(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR -> the same in the graph's order of channels."""
        return np.ascontiguousarray(pixels[..., ::-1]) if self._turned else pixels

    def run(self, images: np.ndarray) -> np.ndarray:
        """(N, 3, H, W) float32 -> the output, (N, ...) float32.

        Raises:
            InputError: onnxruntime refuses it, or the output is no finite features.
        """
        try:
            (found,) = self._session.run([self.output], {self._input.name: images})
        except ValueError as error:
            raise InputError(
                f"{self.source}: {self.path} fails on a picture of {images.shape[2]} x "
                f"{images.shape[3]} pixels ({error}); name the size or patch it was "
                "exported for"
            ) from error
        found, floating = np.asarray(found), np.issubdtype(found.dtype, np.floating)
        if not floating or found.ndim < 2 or len(found) != len(images):
            raise InputError(
                f"{self.source}: output {self.output} of {self.path} is {found.dtype} "
                f"{list(found.shape)} for {len(images)} pictures, no features; name another output"
            )
        with np.errstate(over="ignore"):  # told below
            features = np.asarray(found, np.float32)
        if not np.isfinite(features).all():
            raise InputError(
                f"{self.source}: output {self.output} of {self.path} holds NaN or infinity; name "
                "another output, or export the encoder again, in float32"
            )
        return features


class OnnxMaps(MapEncoder):
    """Maps (1, C, h, w), or tokens (1, N, C), of whole pictures.

    A graph for any size gets the picture at its own, filled up at the right and below to whole
    cells with the mean colour; one above `max_pixels` is made smaller. A graph for one size gets
    the picture as large as fits into it, its sides' ratio kept, and filled up as well.

    Args:
        path: the ONNX file.
        settings: what it is fed and gives.
        identity: what tells this encoder from others.
        source: the settings' file, for messages.

    Raises:
        InputError: see `Graph`; or the output is no such map.
    """

    def __init__(
        self, path: Path, settings: OnnxSettings, *, identity: str, source: object
    ) -> None:
        self.identity = identity
        self.graph = Graph(path, settings, source)
        self.settings = settings
        patch = settings.patch or 1
        side = -(-_TRIED // patch) * patch
        height, width = self.graph.size or (side, side)
        found = self.graph.run(np.zeros((1, 3, height, width), np.float32))
        rows, columns = self._cells(found.shape, height, width)
        square = height % rows == width % columns == 0 and height // rows == width // columns
        if not square or rows * columns == 1:
            raise self._no_map(found.shape, height, width)
        self.stride = height // rows

    def _cells(self, shape: tuple[int, ...], height: int, width: int) -> tuple[int, int]:
        """Rows and columns of an output for an input of so many pixels."""
        patch, prefix = self.settings.patch, self.settings.prefix_tokens
        if len(shape) == 4 and min(shape) and prefix == 0:
            if patch and shape[2:] != (height // patch, width // patch):
                raise self._no_map(shape, height, width)
            return shape[2], shape[3]
        if len(shape) == 3 and patch:
            cells = (height // patch, width // patch)
            if shape[1] == prefix + cells[0] * cells[1] and min(shape):
                return cells
        raise self._no_map(shape, height, width)

    def _no_map(self, shape: tuple[int, ...], height: int, width: int) -> InputError:
        return InputError(
            f"{self.graph.source}: output {self.graph.output} is {list(shape)} for an input of "
            f"{height} x {width}, which is no map (1, C, h, w) of square cells, nor "
            f"{self.settings.prefix_tokens} prefix_tokens and those of patches of "
            f"{self.settings.patch} pixels; correct output, patch or prefix_tokens"
        )

    def _fitted(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that a picture gets in the encoder's frame, pixels."""
        if self.graph.size:
            factor = min(self.graph.size[0] / height, self.graph.size[1] / width)
        else:
            factor = min(1.0, math.sqrt(self.settings.max_pixels / (height * width)))
        return max(round(height * factor), 1), max(round(width * factor), 1)

    def map_shape(self, height: int, width: int) -> tuple[int, int]:
        """See `MapEncoder`."""
        rows, columns = self.graph.size or self._fitted(height, width)
        return -(-rows // self.stride), -(-columns // self.stride)

    def scale(self, height: int, width: int) -> tuple[float, float]:
        """See `MapEncoder`."""
        fitted = self._fitted(height, width)
        return fitted[0] / height, fitted[1] / width

    def feature_map(self, pixels: np.ndarray) -> np.ndarray:
        """See `MapEncoder`."""
        height, width = pixels.shape[:2]
        fitted = self._fitted(height, width)
        picture = self.graph.feed(_resized(self.graph.ordered(pixels), fitted))
        rows, columns = self.map_shape(height, width)
        shape = (rows * self.stride, columns * self.stride)
        image = np.zeros((1, 3, *shape), np.float32)  # 0 is the mean colour
        image[0, :, : fitted[0], : fitted[1]] = picture
        found = self.graph.run(image)
        if self._cells(found.shape, *shape) != (rows, columns):
            raise self._no_map(found.shape, *shape)
        if found.ndim == 3:
            return found[0, self.settings.prefix_tokens :].reshape(rows, columns, -1)
        return np.ascontiguousarray(found[0].transpose(1, 2, 0))


class OnnxCrops:
    """A vector (D) for each box, from its own crop; see `pcb.Encoder`.

    A crop is the box, larger by `context` about its centre and cut at the picture's edges, brought
    to the graph's size whatever the ratio of its sides.

    Args:
        path: the ONNX file.
        settings: what it is fed and gives.
        identity: what tells this encoder from others.
        source: the settings' file, for messages.

    Raises:
        InputError: see `Graph`; or there is no size, or the output is no vector.
    """

    def __init__(
        self, path: Path, settings: OnnxSettings, *, identity: str, source: object
    ) -> None:
        self.identity = identity
        self.context = settings.context
        self.graph = Graph(path, settings, source)
        if self.graph.size is None:
            raise InputError(
                f"{source}: size is null, but features crop brings every box to one size; write "
                "the [height, width] that the encoder was trained with"
            )
        self.size = self.graph.size
        self.length = self._vectors(np.zeros((1, 3, *self.size), np.float32)).shape[1]

    def _vectors(self, images: np.ndarray) -> np.ndarray:
        found = self.graph.run(images)
        vectors = found.reshape(len(found), -1)
        if vectors.shape[1] != found.shape[1] or not vectors.size:
            raise InputError(
                f"{self.graph.source}: output {self.graph.output} is {list(found.shape)}, no "
                "vector (N, D) for each crop; name another output, or write features: map"
            )
        return vectors

    def box_vectors(self, pixels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """See `pcb.Encoder`."""
        picture = self.graph.ordered(pixels)
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        vectors = np.empty((len(boxes), self.length), np.float32)
        for first in range(0, len(boxes), self.graph.largest_batch):
            part = boxes[first : first + self.graph.largest_batch]
            regions = (self._region(box, *pixels.shape[:2]) for box in part)
            crops = [self.graph.feed(_resized(picture, self.size, one)) for one in regions]
            vectors[first : first + len(part)] = self._vectors(np.stack(crops))
        return vectors

    def _region(self, box: np.ndarray, height: int, width: int) -> Region:
        """Left, top, right, bottom of the crop in the picture; a pixel wide and high at least."""
        found = []
        for low, high, length in ((box[0], box[2], width), (box[1], box[3], height)):
            centre, half = (low + high) / 2, max((high - low) * self.context, 1.0) / 2
            start = min(max(centre - half, 0.0), length - 1.0)
            found.append((start, min(max(centre + half, start + 1.0), float(length))))
        (left, right), (top, bottom) = found
        return left, top, right, bottom


def _resized(pixels: np.ndarray, size: tuple[int, int], region: Region | None = None) -> np.ndarray:
    """Bring a picture, or a region (left, top, right, bottom) of it, to a height and width.

    Bicubic, as the published encoders are fed; averaged where it becomes smaller.
    """
    if region is None and pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC, box=region))
