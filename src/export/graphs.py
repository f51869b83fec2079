# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The graphs of a bundle, run by onnxruntime or MindSpore, whichever reads them.

Neither is imported before a graph of its own is opened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np

from src.defrcn.onnx_session import OnnxSession
from src.defrcn.pcb_pooling import MapEncoder
from src.export.bundle import STRIDE, Bundle, Calibration, Graph
from src.model_utils.errors import InputError

ENGINES = {"mindspore": "MINDIR", "onnxruntime": "ONNX"}
"""Which format each engine reads."""
_OTHER = "is not the graph that bundle.json describes; export the bundle again"


class Runner(ABC):
    """A graph that is ready to run.

    Args:
        graph: its description.
        source: the bundle, for messages.
    """

    def __init__(self, graph: Graph, source: Path) -> None:
        self.graph, self.source = graph, source

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """The outputs for some inputs, in the description's order.

        Raises:
            InputError: they are not as described.
        """
        outputs = self.run(arrays)
        found = [(str(one.dtype), one.shape) for one in outputs]
        if found != [(values.dtype, values.shape) for values in self.graph.outputs]:
            raise InputError(f"{self.source}: {self.graph.path.name} {_OTHER}")
        return outputs

    @abstractmethod
    def run(self, arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        """The outputs, unchecked."""


class OnnxRunner(Runner):
    """By onnxruntime.

    Raises:
        InputError: it is not installed, or cannot read the file, or the inputs differ.
    """

    def __init__(self, graph: Graph, source: Path) -> None:
        super().__init__(graph, source)
        self.session = OnnxSession(graph.path, source)
        self.names = [one.name for one in self.session.inputs]
        shapes = [tuple(one.shape) for one in self.session.inputs]
        if shapes != [values.shape for values in graph.inputs]:
            raise InputError(f"{source}: {graph.path.name} {_OTHER}")

    def run(self, arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        """See `Runner`."""
        try:
            return self.session.run(None, dict(zip(self.names, arrays)))
        except ValueError as error:
            raise InputError(f"{self.source}: {self.graph.path.name} fails ({error})") from error


def opener(bundle: Bundle, engine: str, device_target: str) -> Callable[[Graph], Runner]:
    """What opens the graphs of a bundle.

    Args:
        bundle: see there.
        engine: a key of `ENGINES`; "" for the one that reads the bundle's format.
        device_target: of MindSpore.

    Raises:
        InputError: the engine does not read this bundle, or is not installed.
    """
    of_format = {kind: name for name, kind in ENGINES.items()}
    wanted = of_format[bundle.graph_format]
    if engine not in ("", wanted):
        other = ENGINES[engine]
        raise InputError(
            f"--engine {engine} reads {other}, but {bundle.source} holds {bundle.graph_format}; "
            f"leave --engine out, or export with --export_file_format={other}"
        )
    if wanted == "mindspore":
        return _of_mindspore(bundle, device_target)
    if device_target != "CPU":
        raise InputError(
            f"--device_target {device_target}: {bundle.source} holds ONNX, which onnxruntime runs "
            "on the CPU; leave the flag out"
        )
    return lambda graph: OnnxRunner(graph, bundle.source)


def _of_mindspore(bundle: Bundle, device_target: str) -> Callable[[Graph], Runner]:
    try:
        from src.export.mindir_graph import MindirRunner, start
    except ImportError as error:
        raise InputError(
            f"{bundle.source} holds MINDIR, for which MindSpore is missing here ({error}); pip "
            f"install mindspore=={bundle.mindspore}, or export with --export_file_format=ONNX"
        ) from error
    start(device_target)
    return lambda graph: MindirRunner(
        graph, bundle.source, mindspore=bundle.mindspore, idle_wait=device_target == "CPU"
    )


class CanvasEncoder(MapEncoder):
    """The encoder of a bundle.

    Args:
        part: the calibration block.
        run: its graph.
        source: the bundle, for messages.
    """

    stride = STRIDE

    def __init__(self, part: Calibration, run: Runner, source: Path) -> None:
        self.part, self.run, self.source = part, run, source
        self.identity = str(source)

    def feature_map(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR -> (H / 32, W / 32, C) float32, sizes rounded up.

        Raises:
            InputError: the picture does not fit the canvas.
        """
        size, canvas = pixels.shape[:2], self.part.canvas
        if size[0] > canvas[0] or size[1] > canvas[1]:
            raise InputError(
                f"the picture is {size[0]} x {size[1]} pixels (height x width), and the encoder of "
                f"{self.source} takes up to {canvas[0]} x {canvas[1]}; export with larger "
                "--encoder_height and --encoder_width"
            )
        image = np.zeros((1, 3, *canvas), np.float32)
        image[0, :, : size[0], : size[1]] = pixels.transpose(2, 0, 1)
        (features,) = self.run(image, np.array([size], np.float32))
        rows, columns = self.map_shape(*size)
        return features[0, :rows, :columns]

    def project(self, pooled: np.ndarray) -> np.ndarray:
        """See `MapEncoder`."""
        return np.asarray(pooled @ self.part.weight.T + self.part.bias, np.float32)
