# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The detector by the name of its recipe, as MindSpore Hub asks for it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from src.assembly.evaluation import load_for_evaluation
from src.assembly.training import make_detector
from src.defrcn.de_frcn import DeFRCN
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder, require_path
from src.weights.initialise import initialise
from src.weights.note import class_names_of

logger = logging.getLogger(__name__)


def recipes() -> dict[str, Path]:
    """Every configuration file that describes a run, by its name without folder and suffix."""
    found = sorted((project_folder() / "configs").glob("*/[!_]*.yaml"))
    return {path.stem: path for path in found}


def create_network(
    name: str, *, pretrained: str | Path = "", num_classes: int | None = None, **keys: object
) -> DeFRCN:
    """Build a detector that is ready to detect; no data set need be on the machine.

    Args:
        name: a recipe, such as "defrcn_det_r101_base": the name of a file below `configs`.
        pretrained: a `.ckpt` of this project, or the folder of a run; empty: random weights,
            drawn by the recipe's `seed`.
        num_classes: K, foreground classes; None: those of `pretrained`, or else the recipe's.
        **keys: more keys of the configuration: `**{"model.backbone.depth": 50}`.

    Returns:
        The network, in evaluation mode. Called with images (1, 3, H, W) float32, their sizes
        (1, 2) and the padded size (2,), it gives what `DeFRCN.construct` describes.

    Raises:
        ValueError: there is no such recipe.
        InputError: a key or a value is wrong, nothing tells the number of classes, or the
            weights are not the network's.
    """
    known = recipes()
    if name not in known:
        raise ValueError(f"there is no recipe {name!r}; known are {', '.join(known)}")
    if num_classes is not None:
        keys["model.num_classes"] = num_classes
    config = load_config(known[name], [f"--{key}={_text(value)}" for key, value in keys.items()])
    path = require_path("pretrained", pretrained, "name a .ckpt file") if pretrained else None
    classes = class_names_of(path) if path else ()
    number = len(classes) or config.model.num_classes
    if not number:
        raise InputError(f"{name} is for any number of classes; give num_classes")
    classes = classes or tuple(f"class {index + 1}" for index in range(number))
    net = make_detector(config, classes)
    if path is None:
        initialise(net, config.seed)
    else:
        source = load_for_evaluation(net, path, classes, key="pretrained")
        logger.info("%s: %s", name, source)
    net.set_train(False)
    return net


def _text(value: object) -> str:
    """A value as a flag holds it."""
    return value if isinstance(value, str) else json.dumps(value)
