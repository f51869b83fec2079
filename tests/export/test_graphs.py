# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The same small graph by MindSpore and by onnxruntime, and graphs that are others."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor, nn

from src.export.bundle import Graph, Values
from src.export.graph_file import SUFFIXES, exported
from src.export.graphs import ENGINES, CanvasEncoder, opener
from src.model_utils.errors import InputError

INPUTS = (Values("first", "float32", (1, 3)), Values("second", "float32", (1, 3)))
OUTPUTS = (Values("sum", "float32", (1, 3)), Values("product", "float32", (1, 3)))


class Two(nn.Cell):
    """Sum and product."""

    def construct(self, first, second):
        return first + second, first * second


def graph(folder, file_format, **changes):
    path = folder / f"two{SUFFIXES[file_format]}"
    zeros = Tensor(np.zeros((1, 3), np.float32))
    path.write_bytes(
        exported(Two(), (zeros, zeros), file_format=file_format, mindir_version=3, name="two")
    )
    return Graph(**{"path": path, "inputs": INPUTS, "outputs": OUTPUTS, **changes})


def bundle(file_format):
    return SimpleNamespace(source=Path("b"), graph_format=file_format, mindspore="2.8.0")


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines(tmp_path, engine):
    kind = ENGINES[engine]
    for name in ("", engine):
        run = opener(bundle(kind), name, "CPU")(graph(tmp_path, kind))
        first, second = np.array([[1, 2, 3]], np.float32), np.array([[5, 0, -1]], np.float32)
        for _ in range(2):
            found = run(first, second)
            assert [one.tolist() for one in found] == [[[6, 2, 2]], [[5, 0, -3]]]
    with pytest.raises(InputError, match=f"--engine {engine} reads {kind}, but b holds"):
        opener(bundle({"MINDIR": "ONNX", "ONNX": "MINDIR"}[kind]), engine, "CPU")


@pytest.mark.parametrize("engine", ENGINES)
def test_graphs_that_are_others(tmp_path, engine):
    kind = ENGINES[engine]
    other = (*OUTPUTS[:1], Values("product", "float32", (1, 4)))
    run = opener(bundle(kind), "", "CPU")(graph(tmp_path, kind, outputs=other))
    with pytest.raises(InputError, match=r"b: two\.\w+ is not the graph that bundle.json"):
        run(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))
    damaged = graph(tmp_path, kind)
    damaged.path.write_bytes(damaged.path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"^b: ") as caught:
        opener(bundle(kind), "", "CPU")(damaged)
    assert "\n" not in str(caught.value) and damaged.path.name in str(caught.value)


def test_inputs_that_are_others(tmp_path):
    wide = (*INPUTS[:1], Values("second", "float32", (1, 4)))
    with pytest.raises(InputError, match="is not the graph that bundle.json"):
        opener(bundle("ONNX"), "", "CPU")(graph(tmp_path, "ONNX", inputs=wide))


def test_the_encoder_sees_the_picture_top_left():
    """Blue first, zeros beyond; of the map only the picture's cells count."""
    seen = []

    def run(image, size):
        seen.append((image, size))
        return (np.arange(1 * 2 * 3 * 1, dtype=np.float32).reshape(1, 2, 3, 1),)

    part = SimpleNamespace(
        canvas=(64, 96),
        weight=np.array([[2], [3]], np.float32),
        bias=np.array([0, 1], np.float32),
    )
    encoder = CanvasEncoder(part, run, Path("b"))
    pixels = np.arange(2 * 40 * 3, dtype=np.uint8).reshape(2, 40, 3)
    features = encoder.feature_map(pixels)
    assert features[..., 0].tolist() == [[0, 1]]
    ((image, size),) = seen
    assert size.tolist() == [[2, 40]] and size.dtype == image.dtype == np.float32
    assert image.shape == (1, 3, 64, 96) and image[0, 2, 1, 5] == pixels[1, 5, 2]
    assert image[:, :, 2:].max() == image[..., 40:].max() == 0
    assert encoder.project(np.array([[10]], np.float32)).tolist() == [[20, 31]]
    with pytest.raises(InputError, match=r"65 x 4 pixels .* of b takes up to 64 x 96"):
        encoder.feature_map(np.zeros((65, 4, 3), np.uint8))
