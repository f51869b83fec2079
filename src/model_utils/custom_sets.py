# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Data sets of one's own, as `data.custom` describes them: plain values that are checked."""

# Annotations are evaluated by pydantic at run time: no postponed ones, for Python 3.9.
from typing import Literal

from pydantic import Field, model_validator

from src.model_utils.config_model import Names, Section


def no_repetition(names: tuple[str, ...]) -> None:
    """ValueError if a name is listed twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} is listed twice")


class CustomSource(Section):
    """Where one half (train or test) of a data set of one's own lies, below `datasets_root`."""

    annotations: str = Field(
        min_length=1, description="COCO JSON file, folder of VOC XML files, or YOLO's data.yaml"
    )
    images: str = Field(
        min_length=1, description="folder of the pictures; YOLO: also a .txt file that lists them"
    )
    image_list: str = Field(default="", description="VOC: text file with one image id a line")


class CustomDataset(Section):
    """A data set of one's own; its sets are called NAME_{train,test}_{all,base,novel}.

    A COCO-format set has the class order of its category ids; one of VOC's format that of
    `classes`, or else of the names found in the training files, sorted; one of YOLO's that of
    `names` in the data.yaml of `train`.
    """

    format: Literal["coco", "voc", "yolo"] = Field(description="COCO JSON, VOC-style XML, or YOLO")
    train: CustomSource
    test: CustomSource
    novel_classes: Names = Field(default=(), description="names of the classes with few examples")
    classes: Names = Field(default=(), description="VOC: class order; default: alphabetical")
    few_shot: str = Field(
        default="", description="folder of K-shot files that src.tools.draw_kshot wrote"
    )

    @model_validator(mode="after")
    def _check_classes(self) -> "CustomDataset":
        no_repetition(self.classes)
        no_repetition(self.novel_classes)
        unknown = sorted(set(self.novel_classes) - set(self.classes))
        if self.classes and unknown:
            raise ValueError(f"novel_classes {', '.join(unknown)} are not among classes")
        if self.format == "yolo" and self.classes:
            raise ValueError("classes are VOC's; a YOLO set has those of its data.yaml")
        if self.format == "yolo" and (self.train.image_list or self.test.image_list):
            raise ValueError("image_list is VOC's; a YOLO set names its list as images")
        return self
