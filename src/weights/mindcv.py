# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""ResNets of MindCV, the MindSpore model zoo: how their files are told, and torchvision's names.

They are torchvision's network (stride in the 3x3 convolution) but for the pooling after the stem:
MindSpore's "same" padding has no border in front where a side is even.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

_TELLING = frozenset(("conv1.weight", "bn1.gamma", "layer1.0.bn1.gamma", "classifier.weight"))
_PARTS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_NORM = re.compile(rf"((?:.*\.)?(?:bn\d|down_sample\.1))\.({'|'.join(_PARTS)})")
#: What such a file is good for, and what not, for messages.
ADVICE = (
    "it can be the encoder of the calibration block (test.pcb.encoder), but no detector and, as "
    "backbone_pretrained_path, no backbone of one, which has the stride in the 1x1 convolutions "
    "and other pixel statistics; for these convert R-101.pkl with src/pkl2ckpt.py"
)


def is_mindcv(names: Iterable[str]) -> bool:
    """Whether the names are those of a ResNet of MindCV, or of one of its relatives."""
    return _TELLING <= set(names)


def torchvision_names(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays by the names that torchvision gives them; names of others stay."""
    return {_torchvision(name): array for name, array in params.items()}


def _torchvision(name: str) -> str:
    match = _NORM.fullmatch(name)
    if match:
        name = f"{match[1]}.{_PARTS[match[2]]}"
    return re.sub(r"^classifier\.", "fc.", name.replace(".down_sample.", ".downsample."))
