# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Convert the ImageNet weights of detectron (caffe2, MSRA) into a backbone checkpoint.

    python src/pkl2ckpt.py --input ImageNetPretrained/MSRA/R-101.pkl --output backbone.ckpt

Without flags it reads ../MSRA/R-101.pkl and writes backbone.ckpt, both seen from the current
folder, so that a copy of this file in ImageNetPretrained/pkl_convert may be run there.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, Sequence
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
from src.weights.conversion import (
    DETECTOR,
    check_output,
    input_file,
    official_name,
    whole,
    write_whole,
)
from src.weights.restricted_pickle import load_pickle, named_arrays

logger = logging.getLogger(__name__)

_PARTS = {
    "w": "weight",
    "bn_s": "norm.weight",
    "bn_b": "norm.bias",
    "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var",
    "bn_gamma": "norm.weight",
    "bn_beta": "norm.bias",
    "bn_running_mean": "norm.running_mean",
    "bn_running_var": "norm.running_var",
}
_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_STEM = re.compile(rf"(?:res_)?conv1_({'|'.join(_PARTS)})")
_BLOCK = re.compile(rf"res([2-5])_(\d+)_branch(1|2a|2b|2c)_({'|'.join(_PARTS)})")
# The classifier; the optimizer's momentum; and a bias of the first convolution, which some of
# these files have and for which the official network has no place either.
_UNUSED = re.compile(
    r"fc1000_[wb]|(stem\.)?fc\.(weight|bias)|lr|.*_momentum|conv1_b|pixel_mean|pixel_std"
)
_OTHERS = {
    ".pth": "src/pth2ckpt.py converts it",
    ".ckpt": "a checkpoint already; src/pth2ckpt.py --to-pth makes a .pth of it",
}

FLAGS: Flags = {
    "--input": dict(type=Path, default=Path("../MSRA/R-101.pkl")),
    "--output": dict(type=Path, default=Path("backbone.ckpt")),
    "--config_path": dict(help="YAML file of the detector, to compare with"),
}

#: eps of the frozen norm, which is added to the variance before the square root.
_NORM_EPS = 1e-5


def convert(
    params: Mapping[str, np.ndarray], source: object = "the input"
) -> dict[str, np.ndarray]:
    """Rename caffe2 (or detectron2) backbone weights to the detector's names.

    caffe2's `s` and `b` are the norm folded into one scale and one shift. To make
    `(x - mean) / sqrt(var + eps) * weight + bias` equal to `x * s + b`, the mean becomes 0 and
    the variance 1 - eps, the values that the official frozen norm keeps for such a file; with a
    variance of 1 each of the 101 layers would be 5e-6 too small.

    Args:
        params: arrays by caffe2 name, e.g. `res2_0_branch2a_bn_s`.
        source: the file, for messages.

    Returns:
        float32 arrays by official name: `backbone.*` and `roi_heads.res5.*`.

    Raises:
        InputError: a name is unknown, or two names mean the same parameter.
    """
    result: dict[str, np.ndarray] = {}
    unknown: list[str] = []
    unused: list[str] = []
    for name, array in params.items():
        target = _target(name)
        if target is None:
            (unused if _UNUSED.fullmatch(name) else unknown).append(name)
        elif target in result:
            raise InputError(f"{source} has {target!r:.120} twice, as {name!r:.120} too")
        else:
            result[target] = np.array(array, np.float32, order="C")
    if unknown:
        raise InputError(
            f"{source} is no MSRA ResNet: unknown entries {listing(sorted(unknown))}; take "
            "detectron2's R-101.pkl or another file of its making"
        )
    if unused:
        logger.info("%s: not used: %s", source, listing(sorted(unused), 20))
    for name in [name for name in result if name.endswith(".norm.weight")]:
        norm = name[: -len("weight")]
        mean = np.zeros_like(result[name])
        result.setdefault(f"{norm}running_mean", mean)
        result.setdefault(f"{norm}running_var", np.ones_like(mean) - np.float32(_NORM_EPS))
    return result


def _target(name: str) -> str | None:
    """Return the detector's name of a parameter, None if it has none."""
    if stem := _STEM.fullmatch(name):
        return f"backbone.stem.conv1.{_PARTS[stem.group(1)]}"
    if block := _BLOCK.fullmatch(name):
        stage, index, branch, part = block.groups()
        return official_name(f"res{stage}.{index}.{_BRANCHES[branch]}.{_PARTS[part]}")
    return None if _UNUSED.fullmatch(name) else official_name(name)


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a caffe2 or detectron2 `.pkl`.

    Raises:
        InputError: the file is damaged, or holds anything but arrays.
    """
    content = load_pickle(path)
    author = content.get("__author__") if isinstance(content, dict) else None
    if author is not None:
        logger.info("%s: a file of detectron2's model zoo by %s", path, author)
        content = content.get("model")
    elif isinstance(content, dict) and "blobs" in content:
        content = content["blobs"]
    if author == "torchvision":
        logger.warning(
            "%s: torchvision's weights expect RGB input and stride in the 3x3 convolutions; the "
            "paper's configuration needs the MSRA weights",
            path,
        )
    return named_arrays(content, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file."""
    options, flags = command_parser(FLAGS, description=__doc__).parse_known_args(argv)
    set_up_logging()
    configured = configured_layout(options.config_path, flags)
    output = check_output(options.output, ".ckpt")
    source = input_file(options.input, _OTHERS, "give the MSRA R-101.pkl")
    params = whole(convert(read(source), source), DETECTOR, source, configured)
    write_whole(output, params, DETECTOR)
    return 0


if __name__ == "__main__":
    run_main(main)
