# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The YAML file beside an ONNX encoder: what goes into the graph, and what comes out of it."""

# Annotations are evaluated by pydantic at run time: no postponed ones, for Python 3.9.
from typing import Annotated, Literal, Optional

from pydantic import Field, field_validator, model_validator

from src.model_utils.config_model import Count, CountOrZero, Section

Level = Annotated[float, Field(ge=0)]
Levels = tuple[Level, Level, Level]
# Keys that only one kind of features has.
_OF_MAPS, _OF_CROPS = ("patch", "prefix_tokens", "max_pixels"), ("context",)


class OnnxSettings(Section):
    """An image encoder that onnxruntime runs for the calibration block."""

    model: str = Field(min_length=1, description="the ONNX file, seen from this one")
    features: Literal["map", "crop"] = Field(
        description="map: of the whole picture, pooled by box; crop: a vector for each box"
    )
    mean: Levels = Field(description="of each channel in the graph's order, of values 0 to 1")
    std: Levels = Field(description="likewise")
    channels: Literal["rgb", "bgr"] = Field(default="rgb", description="order that the graph wants")
    size: Optional[tuple[Count, Count]] = Field(
        default=None, description="height and width of the graph's input; null: any, for maps"
    )
    output: str = Field(default="", description="which output of the graph; empty: the only one")
    patch: Optional[Count] = Field(
        default=None, description="pixels of the input a cell; null: asked of the graph, for maps"
    )
    prefix_tokens: CountOrZero = Field(
        default=0, description="tokens in front of those of the patches, such as the class token"
    )
    max_pixels: Count = Field(
        default=1000000, description="with size null: larger pictures are made smaller"
    )
    context: float = Field(default=1.0, ge=1, description="how much larger than the box a crop is")

    @field_validator("mean", "std")
    @classmethod
    def _check_levels(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if max(levels) > 1:
            raise ValueError(f"{max(levels)} is more than 1; divide by 255, values are 0 to 1 here")
        return levels

    @field_validator("std")
    @classmethod
    def _check_std(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if min(levels) == 0:
            raise ValueError("a deviation of 0 cannot be divided by")
        return levels

    @model_validator(mode="after")
    def _check_kind(self) -> "OnnxSettings":
        foreign = _OF_MAPS if self.features == "crop" else _OF_CROPS
        given = [key for key in foreign if key in self.model_fields_set]
        if given:
            raise ValueError(
                f"features {self.features} has no {', '.join(given)}; leave {given[0]} out"
            )
        if self.patch and self.size and any(side % self.patch for side in self.size):
            raise ValueError(f"size {list(self.size)} is no multiple of patch {self.patch}")
        return self
