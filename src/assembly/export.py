# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the configuration to an exported network, its inputs, and the judgement of its outputs."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import mindspore as ms

from src.assembly.data import describe_set, read_sets
from src.assembly.evaluation import TestSet, evaluate_sets, load_for_evaluation, open_test_sets
from src.assembly.training import make_detector
from src.export.graph_file import SUFFIXES, exported
from src.export.manifest import INPUTS, Manifest, write_inputs
from src.export.manifest import read_manifest as read_inputs
from src.export.network import OUTPUT_NAMES, DetectorForExport, example_inputs
from src.export.results import StoredResults
from src.model_utils.config import Config, require_path
from src.model_utils.errors import InputError
from src.util import atomic_path, sha256_file, write_json, write_text
from src.weights.note import class_names_of

LEFT_OUT = (
    "score threshold, suppression within each class and limit of detections (postprocess.py)",
    "prototypical calibration block (postprocess.py, if test.pcb.enable)",
)


def input_shape(config: Config) -> tuple[int, int]:
    """Height and width of the exported network's input.

    Raises:
        InputError: they are not given, or only one of them is.
    """
    height, width, shapes = config.img_height, config.img_width, config.input.input_shapes
    if height is not None and width is not None:
        return height, width
    if height is None and width is None and shapes != "exact" and len(shapes) == 1:
        return shapes[0][0], shapes[0][1]
    raise InputError(
        "an exported network has one input shape: give --img_height and --img_width (pixels after "
        f"resizing to input.min_size_test {config.input.min_size_test} and max_size_test "
        f"{config.input.max_size_test}, the largest of each over all pictures)"
    )


def for_export(config: Config) -> Config:
    """The configuration of evaluation with the one input shape, in float32.

    In evaluation batch normalisation uses gathered statistics: the frozen kind, which, unlike the
    other, is the same inside a larger input.

    Raises:
        InputError: see `input_shape`.
    """
    backbone = config.model.backbone
    backbone = backbone.model_copy(update={"norm": "FrozenBN"})
    shapes = config.input.model_copy(update={"input_shapes": (input_shape(config),)})
    model = config.model.model_copy(update={"backbone": backbone})
    return config.model_copy(update={"model": model, "input": shapes, "amp_level": "O0"})


def config_digest(config: Config) -> str:
    """SHA-256 of the settings that the inputs of the exported network depend on."""
    values = {
        "data.test": list(config.data.test),
        "input.min_size_test": config.input.min_size_test,
        "input.max_size_test": config.input.max_size_test,
        "input_shape": list(input_shape(config)),
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def exported_classes(config: Config, path: Path) -> tuple[str, ...]:
    """The classes of a checkpoint; of the test set where the checkpoint does not say."""
    names = class_names_of(path)
    return names or describe_set(config, config.data.test[0]).class_names


def checkpoint_file(config: Config) -> Path:
    """The path in `export_ckpt_file`.

    Raises:
        InputError: there is none.
    """
    return require_path(
        "export_ckpt_file", config.export_ckpt_file, "give a detector's .ckpt file or its folder"
    )


def load_network(config: Config) -> tuple[DetectorForExport, tuple[str, ...], Path]:
    """Build the exported network with the weights of `export_ckpt_file`.

    Returns:
        The network, its classes, and the file that was loaded.
    """
    path = checkpoint_file(config)
    names = exported_classes(config, path)
    fixed = for_export(config)
    height, width = input_shape(config)
    net = make_detector(fixed, names, kernels=False)
    source = load_for_evaluation(net, path, names, "export_ckpt_file")
    network = DetectorForExport(
        net,
        height=height,
        width=width,
        pixel_mean=config.input.pixel_mean,
        pixel_std=config.input.pixel_std,
        restore_boxes=config.restore_bbox,
        # Version 1 is for Lite 2.0.0 on CPU, which would take Winograd's.
        oblong=config.mindir_version == 1,
    )
    return network, names, source.with_suffix(".ckpt")


def check_format(config: Config) -> Path:
    """Where the exported file goes; before anything is loaded.

    Raises:
        InputError: this machine cannot write the format, or keys do not go together.
    """
    kind, target = config.export_file_format, config.device_target
    if kind == "AIR" and target != "Ascend":
        raise InputError(
            f"export_file_format AIR can be written on a machine with Ascend only (device_target "
            f"is {target}); use MINDIR, which current MindSpore Lite reads on Ascend 310 and 310P"
        )
    if kind != "MINDIR" and config.mindir_version != 3:
        raise InputError(
            f"mindir_version {config.mindir_version} is for MINDIR files, but export_file_format "
            f"is {kind}; leave one of the two out"
        )
    suffix = SUFFIXES[kind]
    name = config.export_file_name
    return Path(name if name.endswith(suffix) else f"{name}{suffix}")


def write_network(
    config: Config, network: DetectorForExport, names: tuple[str, ...], source: Path, path: Path
) -> dict[str, Any]:
    """Export a network, and write beside it what a reader has to know.

    Args:
        config: the configuration.
        network: see `load_network`.
        names: its classes.
        source: the checkpoint's file.
        path: of the file to write; `path` + ".json" describes it.

    Returns:
        The description.
    """
    height, width = input_shape(config)
    content = exported(
        network,
        example_inputs(height, width),
        file_format=config.export_file_format,
        mindir_version=config.mindir_version,
        name=str(path),
    )
    description = Path(f"{path}.json")
    # Both are written before one of the earlier two is touched; the description appears last.
    with atomic_path(description) as text, atomic_path(path) as partial:
        partial.write_bytes(content)
        values = describe(config, network, names, source, path, sha256_file(partial))
        write_json(text, values)
        description.unlink(missing_ok=True)  # it was for another file
    return values


def describe(
    config: Config,
    network: DetectorForExport,
    names: tuple[str, ...],
    source: Path,
    path: Path,
    digest: str,
) -> dict[str, Any]:
    """What `path` + ".json" says about an exported file with that SHA-256."""
    height, width = input_shape(config)
    count, classes = network.num_proposals, len(names)
    shapes = {
        "image": [1, 3, height, width],
        "image_id": [1],
        "image_meta": [1, 4],
        "boxes": [1, count, classes, 4],
        "scores": [1, count, classes + 1],
        "valid": [1, count],
        "info": [1, 4],
    }
    dtypes = {"image_id": "int32", "valid": "int32", "info": "int32"}

    def tensor(name: str) -> dict[str, Any]:
        return {"name": name, "dtype": dtypes.get(name, "float32"), "shape": shapes[name]}

    return {
        "format": "defrcn-exported",
        "format_version": 1,
        "file": path.name,
        "file_format": config.export_file_format,
        "mindir_version": config.mindir_version if config.export_file_format == "MINDIR" else None,
        "sha256": digest,
        "mindspore": ms.__version__,
        "input_shape": [height, width],
        "inputs": [tensor(name) for name, _, _ in INPUTS],
        "outputs": [{"index": i, **tensor(name)} for i, name in enumerate(OUTPUT_NAMES)],
        "restore_bbox": config.restore_bbox,
        "class_names": list(names),
        "left_out": list(LEFT_OUT),
        "checkpoint": {"file": os.fspath(source.name), "sha256": sha256_file(source)},
    }


def prepare_inputs(config: Config, folder: Path) -> Manifest:
    """Write the pictures of the test set as the exported network takes them.

    Raises:
        InputError: there are several test sets, or a picture does not fit the input shape.
    """
    name = only_test_set(config)
    fixed = for_export(config)
    # Off and on again: normalisation is part of the exported network.
    pixels = fixed.input.model_copy(
        update={"pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (1.0, 1.0, 1.0)}
    )
    test = fixed.test.model_copy(
        update={"pcb": fixed.test.pcb.model_copy(update={"enable": False})}
    )
    (one,) = open_test_sets(fixed.model_copy(update={"input": pixels, "test": test}))
    return write_inputs(
        folder,
        one.loader,
        num_images=len(one.loader),
        dataset=name,
        input_shape=input_shape(config),
        config_digest=config_digest(config),
    )


def only_test_set(config: Config) -> str:
    """The one test set.

    Raises:
        InputError: there are several.
    """
    if len(config.data.test) != 1:
        raise InputError(
            f"data.test names {len(config.data.test)} sets, but files are for one; give one of "
            f"them, such as --data.test=[{config.data.test[0]}]"
        )
    return config.data.test[0]


def judge_results(config: Config, inputs: Path, results: Path) -> str:
    """Evaluate what an exported network gave, as eval.py does with what it computes itself.

    Args:
        config: the configuration; `export_ckpt_file` is asked for with the calibration block only.
        inputs: folder of preprocess.py.
        results: folder of the inference program; `evaluation` and `acc.log` go there too.

    Returns:
        The report as text.

    Raises:
        InputError: a folder is not whole, or was made with another configuration.
    """
    manifest = read_inputs(inputs)
    name = only_test_set(config)
    if (manifest.dataset, manifest.config_digest) != (name, config_digest(config)):
        raise InputError(
            f"{manifest.path} is for {manifest.dataset} and {manifest.input_shape[0]} x "
            f"{manifest.input_shape[1]}, the configuration is not: data.test {name}, "
            f"input.min_size_test {config.input.min_size_test}, max_size_test "
            f"{config.input.max_size_test}, shape {input_shape(config)}; give the same flags, or "
            "run preprocess.py again"
        )
    info, records = read_sets(config, (name,))
    if [record.image_id for record in records] != [one.image_id for one in manifest.entries]:
        raise InputError(
            f"{manifest.path} lists other pictures than {name} has now; run preprocess.py again"
        )
    stored = StoredResults(results, manifest, len(info.class_names))
    checkpoint = checkpoint_file(config) if config.test.pcb.enable else None
    one = TestSet(info, records, stored)
    text, _ = evaluate_sets(config, stored, [one], results / "evaluation", checkpoint=checkpoint)
    write_text(results / "acc.log", text + "\n")
    return text
