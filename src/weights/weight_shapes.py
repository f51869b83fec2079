# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Names and shapes of every network that the configuration can build, to account for a file.

A layout is the few numbers that decide them: depth, widths, anchors, classes. It is read off the
names and shapes of a file; `shapes` then says what else the file has to hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any

from src.model_utils.errors import InputError

Shape = Sequence[int]
Shapes = dict[str, tuple[int, ...]]

#: Bottlenecks of res2, res3, res4 and res5 by depth; those of res4 tell the depth.
STAGE_BLOCKS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_NORM = ("weight", "bias", "running_mean", "running_var")
_ENCODER_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")
_WIDTH = re.compile(r"(?:backbone|roi_heads)\.res([2-5])\.\d+\.conv3\.(?:weight|norm\.\w+)")
_HEAD = "proposal_generator.rpn_head"
_PREDICTOR = "roi_heads.box_predictor"
_HEADS = ("proposal_generator.", f"{_PREDICTOR}.", "affine_rpn.", "affine_rcnn.")


# What a ResNet calls its stem, its stages, a block's shortcut (convolution, norm) and other norms.
_Names = tuple[tuple[str, str], tuple[str, ...], tuple[str, str], str]
_TORCHVISION: _Names = (
    ("conv1", "bn1"),
    ("layer1", "layer2", "layer3", "layer4"),
    ("downsample.0", "downsample.1"),
    "bn{}",
)
_OFFICIAL: _Names = (
    ("backbone.stem.conv1", "backbone.stem.conv1.norm"),
    ("backbone.res2", "backbone.res3", "backbone.res4", "roi_heads.res5"),
    ("shortcut", "shortcut.norm"),
    "conv{}.norm",
)


@dataclass(frozen=True)
class EncoderLayout:
    """Sizes of a ResNet of bottlenecks as torchvision has it, for the calibration block.

    Attributes:
        blocks: bottlenecks of the four stages.
        stem_channels: channels of the stem.
        widths: channels of the 3x3 convolutions of each stage.
        out_channels: output channels of each stage.
        num_outputs: rows of the last layer, `fc`.
    """

    blocks: tuple[int, ...]
    stem_channels: int
    widths: tuple[int, ...]
    out_channels: tuple[int, ...]
    num_outputs: int

    def in_channels(self, stage: int) -> int:
        """Channels that come into a stage (0..3)."""
        return self.out_channels[stage - 1] if stage else self.stem_channels

    def projected(self, stage: int) -> bool:
        """Whether the first block of a stage has a convolution on its shortcut."""
        return stage > 0 or self.stem_channels != self.out_channels[0]

    def shapes(self) -> Shapes:
        """Name and shape of every parameter, torchvision's names."""
        shapes = _resnet_shapes(self, _TORCHVISION)
        shapes["fc.weight"] = (self.num_outputs, self.out_channels[-1])
        shapes["fc.bias"] = (self.num_outputs,)
        return shapes

    def reach(self) -> int:
        """Pixels, in every direction, beyond which a cell of the last map sees nothing."""
        pixels, jump = 3 + 2, 4  # 7x7 at stride 2, then the 3x3 pooling at stride 2
        for stage, count in enumerate(self.blocks):
            after = jump if stage == 0 else 2 * jump
            pixels += jump + (count - 1) * after
            jump = after
        return pixels

    def __str__(self) -> str:
        return (
            f"ResNet of {self.blocks} blocks, {self.stem_channels} channels after the stem, "
            f"{self.out_channels} after the stages, {self.num_outputs} outputs"
        )


def _resnet_shapes(layout: EncoderLayout, names: _Names) -> Shapes:
    """Name and shape of every convolution and norm."""
    stem, stages, shortcut, norm = names
    shapes: Shapes = {}

    def add(convolution: str, its_norm: str, *shape: int) -> None:
        shapes[f"{convolution}.weight"] = shape
        shapes.update({f"{its_norm}.{part}": shape[:1] for part in _NORM})

    add(*stem, layout.stem_channels, 3, 7, 7)
    for stage, count in enumerate(layout.blocks):
        width, out = layout.widths[stage], layout.out_channels[stage]
        for block in range(count):
            name = f"{stages[stage]}.{block}"
            before = out if block else layout.in_channels(stage)
            sizes = ((width, before, 1, 1), (width, width, 3, 3), (out, width, 1, 1))
            for number, size in enumerate(sizes, start=1):
                add(f"{name}.conv{number}", f"{name}.{norm.format(number)}", *size)
            if block == 0 and layout.projected(stage):
                add(f"{name}.{shortcut[0]}", f"{name}.{shortcut[1]}", out, before, 1, 1)
    return shapes


def encoder_layout(
    shapes: Mapping[str, Shape], source: object, advice: str = "take a whole file of one"
) -> EncoderLayout:
    """Read the sizes of torchvision's ResNet off the names and shapes of a file.

    Args:
        shapes: by name.
        source: the file, for messages.
        advice: the end of the message.

    Raises:
        InputError: an array that tells one of them is missing.
    """

    def rows(name: str) -> int:
        if not shapes.get(name):
            raise InputError(
                f"{source} is no encoder for the calibration block: it lacks '{name}' of "
                f"torchvision's ResNet-50, -101 or -152 or a narrower one; {advice}"
            )
        return shapes[name][0]

    blocks = {match.groups() for match in map(_ENCODER_BLOCK.match, shapes) if match}
    counts = Counter(stage for stage, _ in blocks)
    return EncoderLayout(
        blocks=tuple(counts[stage] for stage in "1234"),
        stem_channels=rows("conv1.weight"),
        widths=tuple(rows(f"{stage}.0.conv2.weight") for stage in _TORCHVISION[1]),
        out_channels=tuple(rows(f"{stage}.0.conv3.weight") for stage in _TORCHVISION[1]),
        num_outputs=rows("fc.weight"),
    )


def _key(key: str) -> Any:  # noqa: ANN401
    """A field that the configuration has under this key."""
    return field(metadata={"key": key})


@dataclass(frozen=True)
class DetectorLayout:
    """The numbers that decide the parameters of a detector, under the keys that set them.

    Attributes:
        depth: of the ResNet, see `STAGE_BLOCKS`.
        stem_channels: channels after the stem.
        res2_channels: channels after res2; each later stage doubles them.
        num_anchors: a cell of the map; 0 for a backbone with res5 and nothing else.
        num_classes: foreground classes; 0 without class and box layers.
        affine_rpn: whether there is a decoupling layer before the RPN.
        affine_rcnn: likewise before the second stage.
    """

    depth: int = _key("model.backbone.depth")
    stem_channels: int = _key("model.backbone.stem_out_channels")
    res2_channels: int = _key("model.backbone.res2_out_channels")
    num_anchors: int = _key("sizes times aspect_ratios of model.anchors")
    num_classes: int = _key("model.num_classes")
    affine_rpn: bool = _key("model.rpn.enable_decouple")
    affine_rcnn: bool = _key("model.roi_heads.enable_decouple")

    def shapes(self) -> Shapes:
        """Name and shape of every parameter, official names."""
        channels = tuple(self.res2_channels << stage for stage in range(4))
        widths = tuple(out // 4 for out in channels)
        blocks = STAGE_BLOCKS[self.depth]
        resnet = EncoderLayout(blocks, self.stem_channels, widths, channels, num_outputs=0)
        shapes = _resnet_shapes(resnet, _OFFICIAL)
        res4, res5 = channels[2:]

        def add(name: str, *shape: int) -> None:
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

        if self.num_anchors:
            add(f"{_HEAD}.conv", res4, res4, 3, 3)
            add(f"{_HEAD}.objectness_logits", self.num_anchors, res4, 1, 1)
            add(f"{_HEAD}.anchor_deltas", 4 * self.num_anchors, res4, 1, 1)
        for name, there in (("affine_rpn", self.affine_rpn), ("affine_rcnn", self.affine_rcnn)):
            if there:
                shapes.update({f"{name}.{part}": (1, res4, 1, 1) for part in ("weight", "bias")})
        if self.num_classes:
            add(f"{_PREDICTOR}.cls_score", self.num_classes + 1, res5)
            add(f"{_PREDICTOR}.bbox_pred", 4 * self.num_classes, res5)
        return shapes

    def keys(self) -> dict[str, str]:
        """Value by the key that sets it, of the parts that are there."""
        return {
            entry.metadata["key"]: str(value).lower()
            for entry, value in zip(fields(self), astuple(self))
            if value or (value is False and self.num_anchors)
        }

    def differences(self, other: DetectorLayout) -> list[str]:
        """What is other than in `other`; parts that one of them lacks do not count."""
        theirs = other.keys()
        pairs = [(key, mine, theirs.get(key, mine)) for key, mine in self.keys().items()]
        return [f"{key} {mine} instead of {other}" for key, mine, other in pairs if mine != other]

    def __str__(self) -> str:
        what = "detector" if self.num_anchors else "backbone with res5"
        return f"{what} of {', '.join(f'{key} {value}' for key, value in self.keys().items())}"


def detector_layout(shapes: Mapping[str, Shape], source: object) -> DetectorLayout:
    """Read the numbers of a detector, or of a backbone, off the names and shapes of a file.

    A width is what most of its arrays say, so that `shapes` tells the few that differ.

    Raises:
        InputError: nothing tells one of the numbers.
    """
    blocks = len({name.split(".")[2] for name in shapes if name.startswith("backbone.res4.")})
    depth = {known[2]: depth for depth, known in STAGE_BLOCKS.items()}.get(blocks)
    if depth is None:
        known = ", ".join(f"{known[2]} (ResNet-{deep})" for deep, known in STAGE_BLOCKS.items())
        raise InputError(
            f"{source} has {blocks} blocks in backbone.res4, but a network has {known}; take the "
            "whole file of one of these"
        )

    def rows(name: str) -> int:
        shape = shapes.get(name, ())
        if len(shape) != 1 or not shape[0]:
            raise InputError(f"{source} has no usable '{name}'; it is no whole DeFRCN detector")
        return shape[0]

    def has(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in shapes)

    sized = {name: shape[0] for name, shape in shapes.items() if shape}
    stages = ((_WIDTH.fullmatch(name), size) for name, size in sized.items())
    return DetectorLayout(
        depth=depth,
        stem_channels=_most((n for k, n in sized.items() if "backbone.stem." in k), source),
        res2_channels=_most((n >> int(m[1]) - 2 for m, n in stages if m), source),
        num_anchors=rows(f"{_HEAD}.objectness_logits.bias") if has(*_HEADS) else 0,
        num_classes=rows(f"{_PREDICTOR}.cls_score.bias") - 1 if has(f"{_PREDICTOR}.") else 0,
        affine_rpn=has("affine_rpn."),
        affine_rcnn=has("affine_rcnn."),
    )


def _most(sizes: Iterable[int], source: object) -> int:
    counted = Counter(sizes)
    if not counted:
        raise InputError(f"{source} has no usable stem, or no blocks; it is no whole backbone")
    return counted.most_common(1)[0][0]
