# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Which parameters a weight file must hold: strict comparison, one declared list per kind of file.

Names are those of the official PyTorch checkpoints, for example
`backbone.res2.0.conv1.norm.weight` or `roi_heads.box_predictor.cls_score.bias`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from src.model_utils.errors import InputError
from src.util import listing
from src.weights.weight_shapes import Shape, detector_layout

logger = logging.getLogger(__name__)

_MAX_LOGGED = 20  # names that a rule allows to be missing or left over


@dataclass(frozen=True)
class ParameterRule:
    """The declared exceptions for one kind of weight file.

    Attributes:
        kind: how the kind of file is called in messages.
        allowed_missing: shell-style patterns of network parameters that the file need not hold.
        allowed_unused: shell-style patterns of file entries that the network need not have.
    """

    kind: str
    allowed_missing: tuple[str, ...] = ()
    allowed_unused: tuple[str, ...] = ()

    def check(
        self,
        given: Mapping[str, Shape],
        wanted: Mapping[str, Shape],
        source: object,
        advice: str = "",
    ) -> tuple[list[str], list[str]]:
        """Compare the parameters of a file with those of a network.

        Args:
            given: name to shape, what the file holds.
            wanted: name to shape, what the network has.
            source: the file, for messages.
            advice: what to do about a file that does not fit; by default what the shapes tell.

        Returns:
            Sorted names that the file lacks, and names that the network lacks, as the lists
            allow; both are logged.

        Raises:
            InputError: a name is missing or unexpected beyond the lists, or a shape differs.
        """
        missing = sorted(set(wanted) - set(given))
        unused = sorted(set(given) - set(wanted))
        problems = {
            "missing": [n for n in missing if not _matches(n, self.allowed_missing)],
            "unexpected": [n for n in unused if not _matches(n, self.allowed_unused)],
            "of another shape": [
                f"{name} {tuple(given[name])} instead of {tuple(wanted[name])}"
                for name in sorted(set(given) & set(wanted))
                if tuple(given[name]) != tuple(wanted[name])
            ],
        }
        parts = [
            f"{key}: {len(names)} ({listing(names)})" for key, names in problems.items() if names
        ]
        if parts:
            raise InputError(
                f"{source} ({self.kind}) does not fit the network, {'; '.join(parts)}; "
                f"{advice or _advice(given, wanted)}"
            )
        for names, what in ((missing, "not in the file"), (unused, "not used")):
            if names:
                listed = listing(names, _MAX_LOGGED)
                logger.info("%s: %d %s, as allowed: %s", source, len(names), what, listed)
        return missing, unused


#: A checkpoint of the whole network: nothing may be missing or left over.
FULL = ParameterRule("whole network")

#: Made from R-101.pkl: backbone and res5. The heads start from their own initial values, and
#: the ImageNet classifier has no place in a detector.
BACKBONE_PRETRAINED = ParameterRule(
    "pre-trained backbone",
    allowed_missing=(
        "proposal_generator.*",
        "roi_heads.box_predictor.*",
        "affine_rpn.*",
        "affine_rcnn.*",
    ),
    allowed_unused=("fc1000.*",),
)

#: After surgery by removal the box predictor is gone and starts anew for the novel classes.
SURGERY_REMOVE = ParameterRule(
    "after removal of the box predictor", allowed_missing=("roi_heads.box_predictor.*",)
)


def detector_rule(names: Iterable[str]) -> ParameterRule:
    """The rule for a detector to start from: without any class or box layer, they start anew.

    A file that has a part of them is no result of surgery and has to be whole.
    """
    (pattern,) = SURGERY_REMOVE.allowed_missing
    return FULL if any(fnmatchcase(name, pattern) for name in names) else SURGERY_REMOVE


def shapes_of(params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of a mapping."""
    return {name: tuple(array.shape) for name, array in params.items()}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _advice(given: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> str:
    """What to do about a file that does not fit the network of a configuration."""
    if not any(name in wanted for name in given):
        return "it is of another kind; src/pth2ckpt.py and src/pkl2ckpt.py convert official files"
    try:
        other = detector_layout(given, "").differences(detector_layout(wanted, ""))
    except InputError:
        other = []
    if other:
        return (
            f"it was made with {', '.join(other)}: set this in the configuration, or take another"
        )
    return "compare model.backbone, model.anchors and model.num_classes with what it was made for"


# Names that only the older MindSpore port writes, and what they tell. Optimizer copies carry a
# prefix such as "moments."; torchvision names (bn1.weight) and ours (conv1.norm.weight) match none.
_OLDER_PORT = {
    re.compile(
        r"(^|\.)(rpn_with_loss\.|rcnn\.(cls|reg)_scores\.|backbone\.layer[1-4]\."
        r"|backbone\.stem\.bn1\.|conv_down_sample\.|bn_down_sample\.|end_point\.)"
    ): (
        "is a detector of the older MindSpore port (it has {}), which cannot be used here, because "
        "there the background is the first class and the boxes follow another convention; convert "
        "the official weights with src/pth2ckpt.py or src/pkl2ckpt.py, or train with this project"
    ),
    re.compile(r"(^|\.)(bn[123]|downsample\.1)\.(gamma|beta|moving_mean|moving_variance)$"): (
        "has names of the older MindSpore port ({}), which are not read here, because here "
        "parameters keep the official names; convert the original torchvision or official file "
        "with src/pth2ckpt.py"
    ),
}


def refuse_older_port(names: Iterable[str], source: object) -> None:
    """Raise if the names are those of a checkpoint of the older MindSpore port of DeFRCN.

    Its tensors cannot be taken over by renaming: the class scores have the background first
    (here last), and the regression was trained on boxes of another convention (with +1).

    Raises:
        InputError: with the reason and what to do instead.
    """
    listed = list(names)
    for pattern, problem in _OLDER_PORT.items():
        older = next((name for name in listed if pattern.search(name)), None)
        if older is not None:
            raise InputError(f"{source} {problem.format(f'{older!r:.90}')}")
