# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Convert PyTorch weights into a MindSpore checkpoint, and back with `--to-pth`.

    python src/pth2ckpt.py --input resnet101-5d3b4d8f.pth --output res101_ms.ckpt
    python src/pth2ckpt.py --input model_final.pth --output model_final.ckpt
    python src/pth2ckpt.py --to-pth --input defrcn-110000.ckpt --output model_final.pth

The input is torchvision's ResNet (for the calibration block, PCB), a DeFRCN detector
(`model_final.pth`, `model_reset_*.pth`) or its backbone by itself, of any depth and width; which
one is seen from its names and shapes. `--config_path=FILE` also compares it with a configuration.
Without flags it reads ../torchvision/resnet101-5d3b4d8f.pth and writes res101_ms.ckpt, both seen
from the current folder, so that a copy of this file in ImageNetPretrained/pth_convert may be run
there.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__" and not __package__:  # run by path, maybe a copy in another folder
    _places = (*Path(__file__).resolve().parents, Path.cwd(), *Path.cwd().parents)
    sys.path[:0] = [str(p) for p in _places if (p / "src/weights/conversion.py").is_file()][:1]
try:
    from src.model_utils.errors import InputError
except ModuleNotFoundError:
    sys.exit(
        f"error: {__file__} needs the rest of the project: keep the copy somewhere below the "
        "project's folder, run it from there, or name the project's folder in PYTHONPATH"
    )
from src.assembly.layout import configured_layout
from src.model_utils.command_line import Flags, command_parser
from src.util import listing, run_main, set_up_logging
from src.weights.checkpoint import load_weights
from src.weights.conversion import (
    DETECTOR,
    PCB,
    check_output,
    input_file,
    kind_of,
    whole,
    write_whole,
)
from src.weights.restricted_pickle import named_arrays
from src.weights.torch_file import load_torch

logger = logging.getLogger(__name__)

FLAGS: Flags = {
    "--input": dict(type=Path, help="default: see above"),
    "--output": dict(type=Path, help="default: see above, or the input's name"),
    "--kind": dict(choices=("auto", DETECTOR, PCB), default="auto"),
    "--to-pth": dict(action="store_true", help="from .ckpt to .pth"),
    "--config_path": dict(help="YAML file of the detector, to compare with"),
}
_NOT_PTH = {
    ".ckpt": "a checkpoint; give --to-pth to make a .pth of it",
    ".pkl": "src/pkl2ckpt.py converts it",
}
_NOT_CKPT = {
    ".pth": "--to-pth makes a .pth of a .ckpt; leave it out",
    ".pkl": "--to-pth makes a .pth of a .ckpt; convert it with src/pkl2ckpt.py first",
}


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Read the parameters of a torchvision file or of the `model` entry of a DeFRCN file.

    Raises:
        InputError: the file is damaged, or holds anything but tensors and containers.
    """
    content = load_torch(path)
    if isinstance(content, dict) and "model" in content:
        others = sorted(str(key) for key in content if key != "model")
        if others:
            logger.info("%s: entries not converted: %s", path, listing(others))
        content = content["model"]
    return named_arrays(content, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file."""
    options, flags = command_parser(FLAGS, description=__doc__).parse_known_args(argv)
    set_up_logging()
    configured = configured_layout(options.config_path, flags)
    if options.to_pth and options.input is None:
        raise InputError("--to-pth needs --input, the .ckpt to convert")
    suffix, others = (".pth", _NOT_CKPT) if options.to_pth else (".ckpt", _NOT_PTH)
    default = Path("../torchvision/resnet101-5d3b4d8f.pth")
    source = input_file(options.input or default, others, "give the file to convert")
    own = source.with_suffix(suffix) if options.input else Path("res101_ms.ckpt")
    output = check_output(options.output or own, suffix)
    params = load_weights(source) if options.to_pth else read_pth(source)
    kind = kind_of(params, source) if options.kind == "auto" else options.kind
    write_whole(output, whole(params, kind, source, configured), kind)
    return 0


if __name__ == "__main__":
    run_main(main)
