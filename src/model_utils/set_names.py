# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Names of data sets: how they are made up, and taken apart again. No file is read here.

    coco14_{trainval,test}_{all,base,novel}
    voc_{2007,2012}_{trainval,test}_{all,base,novel}{1,2,3}    the digit is the split into classes
    OWN_{train,test}_{all,base,novel}                          for each key OWN of data.custom
    FULL_{K}shot_seed{S}                                       the K-shot set S of a training set

`seedx` in a name stands for the number of the K-shot set that a run is told.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

SPLITS, VOC_SPLITS = ("all", "base", "novel"), (1, 2, 3)

_PARTS = {
    "coco14": ("trainval", "test"),
    "voc_2007": ("trainval", "test"),
    "voc_2012": ("trainval",),
}
_FULL = re.compile(r"(.+)_(train|trainval|test)_(all|base|novel)([123]?)")
_SHOTS = re.compile(r"(?P<full>.+)_(?P<shot>[1-9]\d{0,8})shot_seed(?P<seed>0|[1-9]\d{0,8}|x)")
_MISSPELT_SHOTS = re.compile(r"_(\d+)_?shots?_seed(\w*)$")
_PLACEHOLDER = re.compile(r"(?<![A-Za-z0-9])seedx(?![A-Za-z0-9])")
_RESERVED = re.compile(r"(coco14|voc_?2007|voc_?2012)(_|$)")


@dataclass(frozen=True)
class SetName:
    """A data set's name, taken apart.

    Attributes:
        family: "coco14", "voc_2007", "voc_2012", or the key of a data set of one's own.
        part: "trainval" or "test"; "train" or "test" of one's own.
        split: "all", "base" or "novel".
        number: 1, 2 or 3, which of VOC's splits into classes; else 0.
        own: whether it is a data set of one's own.
        shots: of a K-shot set K and its number; None for a full set.
    """

    family: str
    part: str
    split: str
    number: int = 0
    own: bool = False
    shots: tuple[int, int] | None = None

    @property
    def full(self) -> str:
        """The name without the ending of a K-shot set."""
        return f"{self.family}_{self.part}_{self.split}{self.number or ''}"


def parse_name(name: str, own: Collection[str] = ()) -> SetName | None:
    """Take a data set's name apart; None if there is no such name.

    Args:
        name: of a full set or a K-shot set; whether there are such shots is not looked at.
        own: keys of `data.custom`.
    """
    full, shot, seed = split_shots(name) or (name, 0, 0)
    match = _FULL.fullmatch(full)
    if match is None or seed is None:
        return None
    family, part, split, number = match.groups()
    of_voc = family not in own and family != "coco14"
    parts = ("train", "test") if family in own else _PARTS.get(family, ())
    if part not in parts or bool(number) != of_voc:
        return None
    if shot and (part == "test" or split == "base"):
        return None
    shots = (shot, seed) if shot else None
    return SetName(family, part, split, int(number or 0), own=family in own, shots=shots)


def split_shots(name: str) -> tuple[str, int, int | None] | None:
    """The full set of a K-shot set, K, and its number (None for `seedx`); None for other names."""
    match = _SHOTS.fullmatch(name)
    if match is None:
        return None
    return match["full"], int(match["shot"]), None if match["seed"] == "x" else int(match["seed"])


def is_few_shot(name: str) -> bool:
    """Whether a data set's name is that of a K-shot set, known or not."""
    return split_shots(name) is not None


def fill_seed(text: str, number: int) -> str:
    """Write the number of a K-shot set for `seedx`."""
    return _PLACEHOLDER.sub(f"seed{number}", text)


def is_reserved(key: str) -> bool:
    """Whether a data set of one's own may not be called so, since built-in ones are."""
    return _RESERVED.match(key) is not None


def name_patterns(own: Iterable[str]) -> list[str]:
    """Patterns of all names that there are."""
    patterns = [
        "coco14_{trainval,test}_{all,base,novel}",
        "coco14_trainval_{all,novel}_{K}shot_seed{S}",
        "voc_{2007,2012}_trainval_{all,base,novel}{1,2,3}",
        "voc_2007_test_{all,base,novel}{1,2,3}",
        "voc_{2007,2012}_trainval_{all,novel}{1,2,3}_{K}shot_seed{S}",
    ]
    for key in sorted(own):
        patterns += [f"{key}_{{train,test}}_{{all,base,novel}}"]
        patterns += [f"{key}_train_{{all,novel}}_{{K}}shot_seed{{S}}"]
    return patterns


def names_like(name: str, own: Collection[str]) -> list[str]:
    """Every name of the kind that a misspelt one seems to be: of full sets, or of K-shot sets."""
    misspelt = _MISSPELT_SHOTS.search(name)
    seed = misspelt[2] if misspelt and misspelt[2].isdecimal() else "0"
    ending = f"_{misspelt[1]}shot_seed{seed}" if misspelt else ""
    combinations = itertools.product(
        (*sorted(own), *_PARTS), ("train", "trainval", "test"), SPLITS, ("", *VOC_SPLITS)
    )
    every = (f"{f}_{part}_{split}{number}{ending}" for f, part, split, number in combinations)
    return [each for each in every if parse_name(each, own)]
