# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The detector's configuration keys, and the kinds of numbers that all keys are made of."""

# Annotations are evaluated by pydantic at run time: no postponed ones, for Python 3.9.
from typing import Annotated, Literal, Optional

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)


def listed(value: object) -> object:
    """Accept one value where a list of them is wanted."""
    return value if isinstance(value, (tuple, list, dict)) or value is None else (value,)


Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weights = tuple[Positive, Positive, Positive, Positive]
Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(listed), Field(min_length=1)]
Positives = Annotated[tuple[Positive, ...], BeforeValidator(listed), Field(min_length=1)]


class Section(BaseModel):
    """A group of keys: unknown keys refused, types strict, values never changed afterwards."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, value: object) -> object:
        """`solver:` with every line below it commented out is an empty section."""
        return {} if value is None else value


class Backbone(Section):
    """ResNet up to res4, and res5 in the second stage."""

    depth: Literal[26, 50, 101, 152] = Field(default=101, description="layers: 26, 50, 101, 152")
    norm: Literal["FrozenBN", "BN"] = Field(
        default="FrozenBN", description="FrozenBN with pre-trained weights; BN from scratch"
    )
    freeze_at: int = Field(
        default=3, ge=0, le=5, description="0 none, 1 stem, 2 res2 ... 5 all frozen"
    )
    stem_out_channels: Count = Field(default=64, description="channels after the stem")
    res2_out_channels: Count = Field(
        default=256, description="channels after res2; doubled per stage"
    )


class Anchors(Section):
    """Boxes that the RPN starts from: every size with every ratio, at every cell."""

    sizes: Positives = Field(
        default=(32, 64, 128, 256, 512), description="square root of area, pixels"
    )
    aspect_ratios: Positives = Field(default=(0.5, 1.0, 2.0), description="height / width")
    stride: Count = Field(default=16, description="pixels a cell")
    offset: float = Field(default=0.0, ge=0, lt=1, description="of the first anchor, in strides")


class RPNSection(Section):
    """Region proposals."""

    backward_scale: Fraction = Field(default=0.0, description="gradient into the backbone (lambda)")
    batch_size_per_image: Count = Field(default=256, description="anchors sampled for the loss")
    positive_fraction: Fraction = Field(default=0.5, description="at most this share is positive")
    iou_thresholds: tuple[Fraction, Fraction] = Field(
        default=(0.3, 0.7), description="below: background; from: object"
    )
    pre_nms_topk_train: Count = Field(default=12000, description="proposals before NMS, training")
    pre_nms_topk_test: Count = Field(default=6000, description="proposals before NMS, evaluation")
    post_nms_topk_train: Count = Field(default=2000, description="proposals after NMS, training")
    post_nms_topk_test: Count = Field(default=1000, description="proposals after NMS, evaluation")
    nms_threshold: Fraction = Field(default=0.7, description="IoU above which the lower score goes")
    min_box_size: NotNegative = Field(
        default=0.0, description="smaller proposals are dropped, pixels"
    )
    bbox_reg_weights: Weights = Field(
        default=(1.0, 1.0, 1.0, 1.0), description="scale of dx, dy, dw, dh"
    )
    smooth_l1_beta: NotNegative = Field(default=0.0, description="0 is the L1 loss")
    loss_weight: NotNegative = Field(default=1.0, description="of the objectness loss")
    bbox_loss_weight: NotNegative = Field(default=1.0, description="of the box loss")
    freeze: bool = Field(default=False, description="do not train the RPN")
    enable_decouple: bool = Field(
        default=True, description="affine and gradient layer before the RPN"
    )

    @field_validator("iou_thresholds")
    @classmethod
    def _low_before_high(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"the lower threshold comes first, not {list(value)}")
        return value


class ROIHeads(Section):
    """The second stage: classes and boxes of the proposals."""

    backward_scale: Fraction = Field(
        default=0.75, description="gradient into the backbone (lambda)"
    )
    batch_size_per_image: Count = Field(default=512, description="proposals sampled for the loss")
    positive_fraction: Fraction = Field(
        default=0.25, description="at most this share is foreground"
    )
    iou_threshold: Fraction = Field(default=0.5, description="from here a proposal is foreground")
    pooler_resolution: Count = Field(default=7, description="cells a side of a pooled proposal")
    bbox_reg_weights: Weights = Field(
        default=(10.0, 10.0, 5.0, 5.0), description="of dx, dy, dw, dh"
    )
    smooth_l1_beta: NotNegative = Field(default=0.0, description="0 is the L1 loss")
    bbox_loss_weight: NotNegative = Field(default=1.0, description="of the box loss")
    cls_loss: Literal["ce", "dcfs"] = Field(
        default="ce",
        description="ce: cross-entropy; dcfs, few-shot: background does not push down classes that "
        "its picture is not labelled for",
    )
    cls_dropout: bool = Field(
        default=False, description="dropout before the class layer (few-shot)"
    )
    dropout_ratio: float = Field(default=0.8, ge=0, lt=1, description="share of features dropped")
    freeze_feat: bool = Field(default=False, description="do not train res5 (few-shot)")
    append_gt: bool = Field(
        default=True, description="ground truth counts as proposals in training"
    )
    enable_decouple: bool = Field(
        default=True, description="affine and gradient layer before the head"
    )


class ModelSection(Section):
    """The detector."""

    num_classes: Optional[Count] = Field(
        default=None, description="null: from the training set's classes"
    )
    formulation: Literal["auto", "fast", "plain"] = Field(
        default="auto",
        description="how layers are computed, auto: fast on a CPU; the numbers are the same",
    )
    backbone: Backbone = Backbone()
    anchors: Anchors = Anchors()
    rpn: RPNSection = RPNSection()
    roi_heads: ROIHeads = ROIHeads()
