# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What the converters of official weights share: names, the check of a whole file, writing it.

The checkpoints of this project use the official names, so both directions are the same.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from src.model_utils.errors import InputError
from src.model_utils.paths import require_path
from src.util import listing, sha256_file
from src.weights.ckpt_format import write_ckpt
from src.weights.parameter_rules import FULL, shapes_of
from src.weights.torch_file import save_torch
from src.weights.weight_shapes import DetectorLayout, detector_layout, encoder_layout

logger = logging.getLogger(__name__)

DETECTOR, PCB = "detector", "pcb"
_BARE = re.compile(r"(?:stem|res[2-5])\.")
_NAMES = {
    DETECTOR: re.compile(
        rf"(?:backbone|proposal_generator|roi_heads|affine_rpn|affine_rcnn)\.|{_BARE.pattern}"
    ),
    PCB: re.compile(r"(?:conv1|bn1|layer[1-4]|fc)\."),
}
# No weights of a network: anchors and pixel statistics follow from the settings, the counter only
# drives training, and the classifier of ImageNet has no place in a detector.
_DROPPED = re.compile(
    r"proposal_generator\.anchor_generator\.cell_anchors\.\d+|pixel_mean|pixel_std"
    r"|.*\.num_batches_tracked|(?:backbone\.)?stem\.fc\.(?:weight|bias)"
)


def official_name(name: str) -> str | None:
    """The name of a detector's parameter; None if it is none.

    detectron2 calls the parts of a backbone by itself `stem`, `res2` ... `res5`.
    """
    if not _NAMES[DETECTOR].match(name):
        return None
    full = f"backbone.{name}" if _BARE.match(name) else name
    return full.replace("backbone.res5.", "roi_heads.res5.", 1)


def kind_of(names: Iterable[str], source: object) -> str:
    """Tell a detector (or its backbone) from torchvision's ResNet by all of the names.

    Raises:
        InputError: the names are of neither, or of both.
    """
    listed = [name for name in names if not _DROPPED.fullmatch(name)]
    for kind, pattern in _NAMES.items():
        strangers = [name for name in listed if not pattern.match(name)]
        if not strangers:
            return kind
        if len(strangers) < len(listed):
            raise InputError(
                f"{source} looks like a {kind} but also has {listing(sorted(strangers))}; take a "
                "file of one network only"
            )
    raise InputError(
        f"{source} has parameters neither of a DeFRCN detector nor of torchvision's ResNet, but "
        f"{listing(sorted(listed))}; take a file of one of these"
    )


def whole(
    params: Mapping[str, np.ndarray],
    kind: str,
    source: object,
    configured: DetectorLayout | None = None,
) -> dict[str, np.ndarray]:
    """Give the parameters their official names, drop what is no weight, and check the rest.

    Args:
        params: arrays by name.
        kind: `detector`, which a backbone by itself is too, or `pcb`.
        source: the file, for messages.
        configured: the layout that it must have; None takes any that can be built.

    Returns:
        float32 arrays in C order.

    Raises:
        InputError: a parameter is missing, unexpected, of another shape, empty, or not of
            floats, or the layout is another one.
    """
    dropped = sorted(name for name in params if _DROPPED.fullmatch(name))
    if dropped:
        kinds = sorted({f"*.{name.rpartition('.')[2]}" for name in dropped})
        shown = listing(dropped if len(dropped) <= 5 else kinds)
        logger.info("%s: %d buffers left out: %s", source, len(dropped), shown)
    kept: dict[str, np.ndarray] = {}
    for name, array in params.items():
        target = (kind == DETECTOR and official_name(name)) or name
        if target in kept:
            raise InputError(f"{source} has {target!r:.120} twice, as {name!r:.120} too")
        if name not in dropped:
            kept[target] = array
    shapes = shapes_of(kept)
    layout = (detector_layout if kind == DETECTOR else encoder_layout)(shapes, source)
    advice = f"all else is of a {layout}; take the whole file of one network"
    FULL.check(shapes, layout.shapes(), source, advice)
    if configured is not None:
        _compare(layout, configured, source)
    useless = [name for name, array in kept.items() if array.dtype.kind != "f" or not array.size]
    if useless:
        raise InputError(
            f"{source}: empty or not floating-point numbers: {listing(useless)}; get the file again"
        )
    logger.info("%s: %s", source, layout)
    return {name: np.array(array, np.float32, order="C") for name, array in kept.items()}


def _compare(layout: object, configured: DetectorLayout, source: object) -> None:
    """Refuse a layout that is not the configured one; what only one of them tells does not count.

    Raises:
        InputError: naming the keys.
    """
    if not isinstance(layout, DetectorLayout):
        raise InputError(
            f"--config_path: a configuration says nothing of the calibration block's network in "
            f"{source}; leave it out"
        )
    other = layout.differences(configured)
    if other:
        raise InputError(
            f"{source} is not of the configuration's network: {', '.join(other)}; name the "
            "configuration that it was made with, or leave --config_path out"
        )


def input_file(path: Path, others: Mapping[str, str], what_to_do: str) -> Path:
    """The file to convert, if it may be one of the right kind.

    Args:
        path: as given.
        others: ending of the name of files that are not for this command, and what to do.
        what_to_do: if there is none.

    Raises:
        InputError: it does not exist, is no file, or is of another kind.
    """
    found = require_path("--input", path, what_to_do, kind="file")
    if found.suffix in others:
        raise InputError(f"--input: {found}: {others[found.suffix]}")
    return found


def check_output(path: Path, suffix: str) -> Path:
    """Refuse a name that says another kind of file, before anything long is done.

    Returns:
        The path.

    Raises:
        InputError: it does not end in `suffix`.
    """
    if path.suffix != suffix:
        raise InputError(f"--output: {path}: the name of the result must end in {suffix}")
    return path


def write_whole(output: Path, params: Mapping[str, np.ndarray], kind: str) -> None:
    """Write a `.ckpt` or `.pth` where nothing is yet; the same file again is no error.

    Raises:
        InputError: the file exists with another content, or cannot be written.
    """
    if not output.exists():
        _write(output, params, kind)
    else:
        require_path("--output", output, "name a file", kind="file")
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".") as folder:
            again = _write(Path(folder) / output.name, params, kind)
            if sha256_file(again) != sha256_file(output):
                raise InputError(
                    f"--output: {output} exists and holds something else; remove it, or name "
                    "another file"
                )
    logger.info("%s: %d parameters (%s), sha256 %s", output, len(params), kind, sha256_file(output))


def _write(path: Path, params: Mapping[str, np.ndarray], kind: str) -> Path:
    if path.suffix == ".ckpt":
        return write_ckpt(path, params)
    # The official loader looks for `model`; torchvision's files are the bare mapping.
    return save_torch(path, {"model": params} if kind == DETECTOR else params)
