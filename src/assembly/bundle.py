# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the configuration to a bundle: detector, calibration block and settings in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from src.assembly.calibration import make_calibrator, read_support
from src.assembly.classes import describe_classes
from src.assembly.encoder_files import encoder_key, encoder_path, onnx_of
from src.assembly.export import checkpoint_file, input_shape, load_network
from src.defrcn.data_types import DatasetInfo
from src.defrcn.pcb import Calibrator
from src.defrcn.pcb_encoder import loaded_resnet
from src.export import encoder, network
from src.export.bundle import STRIDE, SUFFIXES, Graph, detector_values, encoder_values
from src.export.bundle_files import new_bundle, write_content
from src.export.graph_file import exported
from src.model_utils.config import Config
from src.model_utils.errors import InputError
from src.util import sha256_file
from src.weights.checkpoint import load_weights
from src.weights.note import class_names_of


def check_bundle(config: Config) -> None:
    """Refuse what no bundle can hold; before anything is loaded.

    Raises:
        InputError: naming the key.
    """
    input_shape(config)
    checkpoint_file(config)
    if config.export_file_format not in SUFFIXES:
        raise InputError(
            f"export_file_format {config.export_file_format} has no place in a bundle; give "
            f"{' or '.join(SUFFIXES)}"
        )
    if config.test.pcb.enable:
        path, key = encoder_path(config), encoder_key(config)
        if onnx_of(path, key) is not None:
            raise InputError(
                f"{key}: {path} is an ONNX encoder, which no bundle can hold; name the .ckpt of a "
                "ResNet, or export with --test.pcb.enable=false"
            )


def canvas(config: Config) -> tuple[int, int]:
    """Height and width of the encoder's input: whole cells."""
    height, width = input_shape(config)
    sides = (config.encoder_height or height, config.encoder_width or width)
    return -(-sides[0] // STRIDE) * STRIDE, -(-sides[1] // STRIDE) * STRIDE


def write_bundle(config: Config, place: Path) -> dict[str, Any]:
    """Write a bundle of `export_ckpt_file`, with the calibration block if `test.pcb.enable`.

    Args:
        config: the configuration.
        place: see `bundle_files.bundle_place`.

    Returns:
        What `bundle.json` says, but for its list of files.

    Raises:
        InputError: see `load_network` and `make_calibrator`.
    """
    check_bundle(config)
    info, _ = describe_classes(config, class_names_of(checkpoint_file(config)))
    # Boxes are scaled after suppression, as in evaluation.
    config = config.model_copy(update={"restore_bbox": False})
    cell, names, source = load_network(config)
    assert names == info.class_names
    # Before the graphs, which take longer: the support set may be another one.
    calibrator = make_calibrator(config, info, source)
    height, width = input_shape(config)
    test, pixels = config.test, config.input
    mindir = config.export_file_format == "MINDIR"
    with new_bundle(place) as folder:
        graph = Graph(
            folder / f"detector{SUFFIXES[config.export_file_format]}",
            *detector_values(height, width, cell.num_proposals, len(names)),
        )
        _write_graph(config, cell, network.example_inputs(height, width), graph.path)
        content = {
            "mindspore": ms.__version__,
            "graph_format": config.export_file_format,
            "mindir_version": config.mindir_version if mindir else None,
            "classes": _classes(info),
            "input": {
                "height": height,
                "width": width,
                "min_size": pixels.min_size_test,
                "max_size": pixels.max_size_test,
                "max_pixels": config.data.max_image_pixels,
            },
            "detection": {
                "score_threshold": test.score_threshold,
                "nms_threshold": test.nms_threshold,
                "detections_per_image": test.detections_per_image,
            },
            "detector": _described(graph),
            "calibration": _write_calibration(config, calibrator, folder) if calibrator else None,
            "checkpoint": {"file": source.name, "sha256": sha256_file(source)},
            "support_set": _support_set(config) if calibrator else None,
        }
        write_content(folder, content)
    return content


def _write_graph(config: Config, cell: ms.nn.Cell, inputs: tuple, path: Path) -> None:
    content = exported(
        cell,
        inputs,
        file_format=config.export_file_format,
        mindir_version=config.mindir_version,
        name=path.name,
    )
    path.write_bytes(content)


def _write_calibration(config: Config, calibrator: Calibrator, folder: Path) -> dict[str, Any]:
    """Write the encoder and the arrays; return what is said of them."""
    height, width = canvas(config)
    path = encoder_path(config)
    net = loaded_resnet(load_weights(path, mindcv=True), path, masked=True)
    weight, bias = net.fc.weight.asnumpy(), net.fc.bias.asnumpy()
    cell = encoder.EncoderForExport(
        net, height=height, width=width, oblong=config.mindir_version == 1
    )
    graph = Graph(
        folder / f"encoder{SUFFIXES[config.export_file_format]}",
        *encoder_values(height, width, weight.shape[1]),
    )
    _write_graph(config, cell, encoder.example_inputs(height, width), graph.path)
    arrays = {
        "projection_weight": weight,
        "projection_bias": bias,
        "prototypes": calibrator.prototypes.vectors,
    }
    for name, array in arrays.items():
        np.ascontiguousarray(array, "<f4").tofile(folder / f"{name}.f32")
    described = _described(graph)
    pcb = config.test.pcb
    return {
        "encoder": {**described, "height": height, "width": width, "stride": STRIDE},
        **{
            name: {"file": f"{name}.f32", "shape": list(array.shape)}
            for name, array in arrays.items()
        },
        "calibrated": calibrator.changes.tolist(),
        "alpha": pcb.alpha,
        "lower": pcb.lower,
        "upper": pcb.upper,
    }


def _described(graph: Graph) -> dict[str, Any]:
    """A graph as `bundle.json` has it."""
    sides = {"inputs": graph.inputs, "outputs": graph.outputs}
    return {
        "file": graph.path.name,
        **{
            side: [
                {"name": one.name, "dtype": one.dtype, "shape": list(one.shape)} for one in values
            ]
            for side, values in sides.items()
        },
    }


def _classes(info: DatasetInfo) -> list[dict[str, Any]]:
    return [
        {"label": name, "category_id": identity, "novel": name in info.novel_classes}
        for name, identity in zip(info.class_names, info.category_ids)
    ]


def _support_set(config: Config) -> dict[str, str]:
    support = read_support(config)
    return {"dataset": support.dataset, "sha256": support.sha256}
