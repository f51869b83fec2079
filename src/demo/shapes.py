# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Outlines, masks and surfaces of the demo's objects.

Legend: a *patch* is a small canvas around one object, drawn `SUPERSAMPLE` times larger than the
picture; S is its side in such fine pixels. Everything here is a pure function of its arguments
and of a numpy generator that the caller hands in, so that a seed decides every pixel.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SUPERSAMPLE = 4
"""Fine pixels per picture pixel, along each axis; also the precision of the boxes (1/4 pixel)."""

FloatArray = npt.NDArray[np.float32]
MaskArray = npt.NDArray[np.bool_]
Outline = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ShapeClass:
    """One class of objects.

    Attributes:
        category_id: id in the annotation file; the ids have a gap, as those of COCO do.
        name: name in the annotation file.
        hue: the colour that most of its objects have, degrees.
        novel: whether the class is one of the few-shot classes.
        max_rotation: largest turn from upright, in degrees, to either side.
        surface: name of the one surface the class always has, or "" for any plain one.
    """

    category_id: int
    name: str
    hue: float
    novel: bool = False
    max_rotation: float = 40.0
    surface: str = ""


CLASSES: tuple[ShapeClass, ...] = (
    ShapeClass(1, "disc", 2, max_rotation=180.0),
    ShapeClass(2, "ring", 26, max_rotation=180.0),
    ShapeClass(3, "square", 206),
    ShapeClass(4, "triangle", 140),
    ShapeClass(5, "crescent", 255, novel=True, max_rotation=60.0),
    ShapeClass(6, "star", 50),
    ShapeClass(7, "heart", 345),
    ShapeClass(8, "cross", 325, novel=True),
    ShapeClass(9, "hexagon", 172),
    ShapeClass(11, "arrow", 285, max_rotation=60.0),
    ShapeClass(12, "checkerboard", 222, novel=True, surface="checks"),
    ShapeClass(13, "striped bar", 80, max_rotation=90.0, surface="bands"),
)
_HUES = (2, 14, 26, 40, 50, 80, 140, 172, 190, 206, 222, 255, 285, 325, 345)
"""Degrees; denser where the eye tells more colours apart than even steps do (fewer greens)."""
PLAIN_SURFACES = ("smooth", "smooth", "mottled", "dots", "hatched")


def _arc(radius: float, start: float, stop: float, count: int = 72) -> Outline:
    """Return points of a circle around the origin, angles in degrees."""
    angles = np.radians(np.linspace(start, stop, count))
    return tuple((float(radius * np.cos(a)), float(radius * np.sin(a))) for a in angles)


def _regular(corners: int, inner: float = 1.0) -> Outline:
    """Return a regular polygon, first corner up, or a star if `inner` is below 1."""
    count = corners if inner == 1.0 else 2 * corners
    points = []
    for index in range(count):
        radius = 1.0 if inner == 1.0 or index % 2 == 0 else inner
        angle = 2.0 * math.pi * index / count - math.pi / 2.0
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    return tuple(points)


def _heart() -> Outline:
    """Return the usual heart curve, scaled into the unit circle."""
    points = []
    for t in np.linspace(0.0, 2.0 * np.pi, 96, endpoint=False):
        x = 16.0 * np.sin(t) ** 3
        y = 13.0 * np.cos(t) - 5.0 * np.cos(2 * t) - 2.0 * np.cos(3 * t) - np.cos(4 * t)
        points.append((float(x) / 17.0, float(-y - 2.0) / 17.0))
    return tuple(points)


def _crescent() -> Outline:
    """Return a moon: an outer arc and an inner one that meet in two tips."""
    outer = _arc(1.0, 55.0, 305.0)
    tip_x, tip_y = outer[0]
    center = 0.52
    radius = math.hypot(tip_x - center, tip_y)
    tip = math.degrees(math.atan2(tip_y, tip_x - center))
    inner = tuple((x + center, y) for x, y in _arc(radius, 360.0 - tip, tip))
    return tuple((x + 0.2, y) for x, y in outer + inner)


def _rectangle(half_width: float, half_height: float) -> Outline:
    return (
        (-half_width, -half_height),
        (half_width, -half_height),
        (half_width, half_height),
        (-half_width, half_height),
    )


_ARROW: Outline = (
    (0.0, -1.0), (0.8, -0.1), (0.3, -0.1), (0.3, 0.95), (-0.3, 0.95), (-0.3, -0.1), (-0.8, -0.1),
)  # fmt: skip
_CROSS: Outline = (
    (-0.32, -0.95), (0.32, -0.95), (0.32, -0.32), (0.95, -0.32), (0.95, 0.32), (0.32, 0.32),
    (0.32, 0.95), (-0.32, 0.95), (-0.32, 0.32), (-0.95, 0.32), (-0.95, -0.32), (-0.32, -0.32),
)  # fmt: skip
_CIRCLE = _arc(1.0, 0.0, 360.0, 120)
_RING_HOLE = 0.56

#: By class: outer polygon, followed by its holes, in the unit circle (y down).
OUTLINES: dict[str, tuple[Outline, ...]] = {
    "disc": (_CIRCLE,),
    "ring": (_CIRCLE, tuple((_RING_HOLE * x, _RING_HOLE * y) for x, y in _CIRCLE)),
    "square": (_rectangle(0.78, 0.78),),
    "triangle": (_regular(3),),
    "crescent": (_crescent(),),
    "star": (_regular(5, inner=0.42),),
    "heart": (_heart(),),
    "cross": (_CROSS,),
    "hexagon": (_regular(6),),
    "arrow": (_ARROW,),
    "checkerboard": (_rectangle(0.8, 0.8),),
    "striped bar": (_rectangle(1.0, 0.34),),
}


def fine_mask(
    polygons: Sequence[Outline], side: int, radius: float, stretch: float, degrees: float
) -> MaskArray:
    """Draw an outline into a patch.

    Args:
        polygons: outer polygon and holes in unit coordinates.
        side: S, the patch's side in fine pixels.
        radius: fine pixels per unit.
        stretch: factor of the width over the height; the area is kept.
        degrees: turn about the patch's centre, clockwise on screen.

    Returns:
        (S, S) bool, true inside.
    """
    canvas = Image.new("1", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    widen = math.sqrt(stretch)
    for index, polygon in enumerate(polygons):
        points = []
        for unit_x, unit_y in polygon:
            x, y = unit_x * radius * widen, unit_y * radius / widen
            points.append((side / 2.0 + cos * x - sin * y, side / 2.0 + sin * x + cos * y))
        draw.polygon(points, fill=1 if index == 0 else 0)
    return np.asarray(canvas, dtype=np.bool_).copy()


def random_color(
    rng: np.random.Generator,
    saturation: tuple[float, float],
    value: tuple[float, float],
    hue: float | None = None,
) -> FloatArray:
    """Draw a colour, (3,) float32 RGB in 0..255, with the given ranges in HSV.

    The hue lies within 6 degrees of `hue`, or of any if that is None.
    """
    centre = _HUES[rng.integers(len(_HUES))] if hue is None else hue
    hue = (centre + rng.uniform(-6.0, 6.0)) % 360.0 / 360.0
    rgb = colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), rng.uniform(*value))
    return np.asarray(rgb, dtype=np.float32) * 255.0


def luminance(color: FloatArray) -> float:
    """Return the perceived brightness of an RGB colour, 0..255."""
    return float(color @ np.asarray([0.299, 0.587, 0.114], dtype=np.float32))


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, cells: Sequence[int]
) -> FloatArray:
    """Sum value noise of several coarse grids: (height, width) float32, roughly -1..1."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave, cell in enumerate(cells):
        grid = rng.uniform(-1.0, 1.0, (height // cell + 2, width // cell + 2))
        fine = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        total += fine * np.float32(0.6**octave)
    return total


def _turned_grid(side: int, degrees: float) -> tuple[FloatArray, FloatArray]:
    """Return the patch's coordinates about its centre, turned by `degrees`, in fine pixels."""
    axis = np.arange(side, dtype=np.float32) - np.float32(side / 2.0)
    x, y = np.meshgrid(axis, axis)
    cos = np.float32(math.cos(math.radians(degrees)))
    sin = np.float32(math.sin(math.radians(degrees)))
    return cos * x + sin * y, cos * y - sin * x


def _pattern(
    rng: np.random.Generator, surface: str, side: int, radius: float, degrees: float
) -> FloatArray:
    """Return how much of the second colour shows: (S, S) float32 in 0..1."""
    if surface == "checks":
        x, y = _turned_grid(side, degrees)
        cell = 1.6 * radius / int(rng.integers(4, 6))
        corner = 0.8 * radius
        return ((np.floor((x + corner) / cell) + np.floor((y + corner) / cell)) % 2).astype(
            np.float32
        )
    if surface == "bands":
        x, _ = _turned_grid(side, degrees)
        return (np.floor((x + radius) / (2.0 * radius / 7.0)) % 2).astype(np.float32)
    if surface == "hatched":
        x, _ = _turned_grid(side, degrees + float(rng.uniform(20.0, 70.0)))
        period = max(radius * rng.uniform(0.22, 0.34), 3.0 * SUPERSAMPLE)
        return 0.55 * ((x / period) % 1.0 < 0.4).astype(np.float32)
    if surface == "dots":
        x, y = _turned_grid(side, degrees + 30.0)
        period = max(radius * rng.uniform(0.3, 0.42), 4.0 * SUPERSAMPLE)
        u, v = (x / period) % 1.0 - 0.5, (y / period) % 1.0 - 0.5
        return 0.75 * (u * u + v * v < 0.28**2).astype(np.float32)
    if surface == "mottled":
        cells = (max(side // 5, 4), max(side // 11, 2))
        return np.clip(0.4 + 0.6 * smooth_noise(rng, side, side, cells), 0.0, 0.8)
    return np.zeros((side, side), dtype=np.float32)


def _relief(mask: MaskArray, radius: float) -> tuple[FloatArray, FloatArray]:
    """Return a light term in -1..1 from a bevelled edge, and the depth below the outline.

    The height rises over a bevel of 0.22 radius and is flat inside; light comes from the upper
    left. Depth is the distance to the outside in fine pixels.
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1].astype(np.float32)
    bevel = np.float32(0.22 * radius)
    height = cv2.GaussianBlur(np.minimum(depth, bevel), (0, 0), max(0.06 * radius, 1.0))
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) / 8.0
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) / 8.0
    return np.clip(0.7 * (slope_x + slope_y), -1.0, 1.0).astype(np.float32), depth


def paint(
    rng: np.random.Generator,
    shape: ShapeClass,
    mask: MaskArray,
    *,
    radius: float,
    degrees: float,
    color: FloatArray,
) -> FloatArray:
    """Paint an object's surface: gradient, pattern, bevel and rim.

    Args:
        rng: source of the pattern's choices.
        shape: the class, for its surface.
        mask: (S, S) bool from `fine_mask`.
        radius: fine pixels per unit of the outline.
        degrees: the object's turn; patterns turn with it.
        color: (3,) float32 RGB, the main colour.

    Returns:
        (S, S, 3) float32 RGB in 0..255, meaningful inside the mask.
    """
    side = mask.shape[0]
    surface = shape.surface or str(rng.choice(PLAIN_SURFACES))
    second = _partner(rng, color, strong=bool(shape.surface))
    share = _pattern(rng, surface, side, radius, degrees)
    x, _ = _turned_grid(side, float(rng.uniform(0.0, 360.0)))
    ramp = np.clip(x / (2.0 * radius), -0.5, 0.5) * np.float32(rng.uniform(10.0, 70.0))
    light, depth = _relief(mask, radius)
    light *= np.float32(85.0)
    rim = (depth < max(0.05 * radius, 0.8 * SUPERSAMPLE)).astype(np.float32)
    strength = np.float32(rng.choice([0.0, 0.45, 0.7]))
    rest, outside = 1.0 - share, 1.0 - rim * strength
    painted = np.empty((side, side, 3), np.float32)
    for channel in range(3):  # one at a time: numpy is slow where the innermost axis has 3 numbers
        main, other = color[channel : channel + 1], second[channel : channel + 1]
        plane = (main * rest + other * share + ramp + light) * outside
        plane = plane + other * np.float32(0.5) * rim * strength
        painted[..., channel] = np.clip(plane, 0.0, 255.0)
    return painted


def _partner(rng: np.random.Generator, color: FloatArray, *, strong: bool) -> FloatArray:
    """Return a second colour: far in brightness for patterns that make a class, else near."""
    bright = luminance(color) < 128.0
    if strong:
        return random_color(rng, (0.0, 0.35), (0.9, 1.0) if bright else (0.08, 0.25))
    factor = rng.uniform(1.35, 1.7) if bright else rng.uniform(0.45, 0.65)
    return np.clip(color * np.float32(factor) + (25.0 if bright else 0.0), 0.0, 255.0).astype(
        np.float32
    )
