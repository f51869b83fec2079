# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Convert PyTorch weights into a MindSpore checkpoint, and back with `--to-pth`.

    python src/pth2ckpt.py --input resnet101-5d3b4d8f.pth --output res101_ms.ckpt
    python src/pth2ckpt.py --input model_final.pth --output model_final.ckpt
    python src/pth2ckpt.py --to-pth --input defrcn-110000.ckpt --output model_final.pth

The input is torchvision's ResNet (for the calibration block, PCB) or an official DeFRCN detector
(`model_final.pth`, `model_reset_*.pth`); which one is seen from its names. Without flags it reads
../torchvision/resnet101-5d3b4d8f.pth and writes res101_ms.ckpt, both seen from the current
folder, so that a copy of this file in ImageNetPretrained/pth_convert may be run there.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# A copy in another folder, or a run by path, finds the project above itself or above the current
# folder; an installed or PYTHONPATH-given project is found without.
for _folder in (*Path(__file__).resolve().parents, *Path.cwd().resolve().parents, Path.cwd()):
    if (_folder / "src" / "weights" / "restricted_pickle.py").is_file():
        sys.path.insert(0, str(_folder))
        break
try:
    from src.model_utils.errors import InputError
    from src.util import run_main, set_up_logging, sha256_file
    from src.weights.checkpoint import load_weights, write_weights
    from src.weights.parameter_rules import FULL, shapes_of
    from src.weights.restricted_pickle import named_arrays
    from src.weights.torch_file import load_torch, save_torch
    from src.weights.weight_shapes import detector_shapes, torchvision_shapes
except ModuleNotFoundError as _error:
    if _error.name is None or _error.name.partition(".")[0] != "src":
        raise
    sys.exit(
        f"error: {__file__} needs the rest of the project: keep the copy somewhere below the "
        "project's folder, run it from there, or name the project's folder in PYTHONPATH"
    )

logger = logging.getLogger(__name__)

DETECTOR, PCB = "detector", "pcb"
_DETECTOR_NAME = re.compile(r"(backbone|proposal_generator|roi_heads|affine_rpn|affine_rcnn)\.")
_PCB_NAME = re.compile(r"(conv1|bn1|layer[1-4]|fc)\.")
# Buffers without weights: anchors follow from the settings, the counter only drives training.
_DROPPED = {
    DETECTOR: re.compile(r"proposal_generator\.anchor_generator\.cell_anchors\.\d+"),
    PCB: re.compile(r".*\.num_batches_tracked"),
}


def kind_of(names: Sequence[str], source: object = "the input") -> str:
    """Tell a detector from torchvision's ResNet by all of the names.

    Raises:
        InputError: the names are of neither, or of both.
    """
    for kind, pattern in ((DETECTOR, _DETECTOR_NAME), (PCB, _PCB_NAME)):
        strangers = [name for name in names if not pattern.match(name)]
        if not strangers:
            return kind
        if len(strangers) < len(names):
            raise InputError(
                f"{source} looks like a {kind} but also has {', '.join(sorted(strangers)[:20])}"
            )
    raise InputError(
        f"{source} has parameters neither of a DeFRCN detector nor of torchvision's ResNet, but "
        f"{', '.join(sorted(names)[:5])}"
    )


def convert(
    params: Mapping[str, np.ndarray], kind: str, source: object = "the input"
) -> dict[str, np.ndarray]:
    """Keep names and numbers, drop the buffers that are no weights, and check the rest.

    The checkpoints of this project use the official names, so the same function serves both
    directions.

    Args:
        params: arrays by official name.
        kind: `detector` or `pcb`.
        source: the file, for messages.

    Returns:
        float32 arrays in C order.

    Raises:
        InputError: a parameter is missing, unexpected, of another shape, or not of floats.
    """
    dropped = sorted(name for name in params if _DROPPED[kind].fullmatch(name))
    kept = {name: array for name, array in params.items() if name not in set(dropped)}
    if dropped:
        kinds = sorted({name.rpartition(".")[2] for name in dropped})
        shown = dropped if len(dropped) <= 5 else [f"*.{kind}" for kind in kinds]
        logger.info("%s: %d buffers left out: %s", source, len(dropped), ", ".join(shown))
    shapes = detector_shapes if kind == DETECTOR else torchvision_shapes
    FULL.check(shapes_of(kept), shapes(kept, source), source)
    integers = [name for name, array in kept.items() if array.dtype.kind != "f"]
    if integers:
        raise InputError(f"{source}: not floating-point numbers: {', '.join(integers)}")
    return {name: np.array(array, np.float32, order="C") for name, array in kept.items()}


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Read the parameters of a torchvision file or of the `model` entry of a DeFRCN file.

    Raises:
        InputError: the file is missing, damaged, or holds anything but tensors and containers.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give the .pth with --input")
    content = load_torch(path)
    if isinstance(content, dict) and "model" in content:
        others = sorted(str(key) for key in content if key != "model")
        if others:
            logger.info("%s: entries not converted: %s", path, ", ".join(others))
        content = content["model"]
    return named_arrays(content, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, help="default: see above")
    parser.add_argument("--output", type=Path, help="default: see above, or the input's name")
    parser.add_argument("--kind", choices=("auto", DETECTOR, PCB), default="auto")
    parser.add_argument("--to-pth", action="store_true", help="from .ckpt to .pth")
    options = parser.parse_args(argv)
    set_up_logging()
    if options.to_pth and options.input is None:
        raise InputError("--to-pth needs --input, the .ckpt to convert")
    source = options.input or Path("../torchvision/resnet101-5d3b4d8f.pth")
    output = options.output or _default_output(options.input, options.to_pth)
    params = load_weights(source) if options.to_pth else read_pth(source)
    kind = kind_of(list(params), source) if options.kind == "auto" else options.kind
    params = convert(params, kind, source)
    _write(output, params, kind, options.to_pth)
    logger.info("%s: %d parameters (%s), sha256 %s", output, len(params), kind, sha256_file(output))
    return 0


def _default_output(source: Path | None, to_pth: bool) -> Path:
    if source is None:
        return Path("res101_ms.ckpt")
    return source.with_suffix(".pth" if to_pth else ".ckpt")


def _write(output: Path, params: dict[str, np.ndarray], kind: str, to_pth: bool) -> None:
    if not to_pth:
        write_weights(output, params)
        return
    if output.suffix != ".pth":
        raise InputError(f"{output}: with --to-pth the name of the output must end in .pth")
    # The official loader looks for `model`; torchvision's files are the bare mapping.
    save_torch(output, {"model": params} if kind == DETECTOR else params)


if __name__ == "__main__":
    run_main(main)
