# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Demo pictures: objects of `shapes` on cluttered backgrounds, with exact visible boxes.

Objects are drawn `SUPERSAMPLE` times larger than the picture and averaged down, which gives
smooth edges. A label map of the same fine pixels says which object is in front; boxes and areas
are read from it, so that they cover what can be seen and nothing else.

Legend: H, W the picture's size in pixels; f = SUPERSAMPLE; "fine" means f times larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from src.demo.shapes import (
    OUTLINES,
    SUPERSAMPLE,
    FloatArray,
    MaskArray,
    ShapeClass,
    fine_mask,
    luminance,
    paint,
    random_color,
    smooth_noise,
)

LabelArray = npt.NDArray[np.int16]

MIN_RADIUS, MAX_RADIUS = 20.0, 60.0
"""Range of an object's circumscribed radius in picture pixels."""
MIN_INSIDE = 0.8
"""Share of an object that has to lie inside the picture."""
MIN_VISIBLE = 0.68
"""Share of an object that has to stay visible under later ones."""
OWN_HUE = 0.85
"""Share of objects that have the colour of their class; the others may have any."""
_PLACEMENT_TRIALS = 40
_OCCLUDER_LABEL = -1


@dataclass(frozen=True)
class SceneObject:
    """One visible object: its class, its box x1, y1, x2, y2 and its area, in picture pixels."""

    shape: ShapeClass
    box: tuple[float, float, float, float]
    area: float


@dataclass(frozen=True)
class Scene:
    """A picture, its objects, and the fine label map that they were measured in.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        objects: visible objects; object i has label i + 1.
        labels: (f H, f W) int16; 0 background, -1 an occluder that is no object.
    """

    pixels: npt.NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    labels: LabelArray


@dataclass(frozen=True)
class _Sprite:
    """A mask and its paint in a fine patch, with the patch's place in the fine picture."""

    mask: MaskArray
    colors: FloatArray
    left: int
    top: int


def draw_scene(
    rng: np.random.Generator, height: int, width: int, classes: Sequence[ShapeClass]
) -> Scene:
    """Draw one picture that holds one object of each entry of `classes`.

    An object that finds no free place after some trials is left out, so a crowded picture may
    hold fewer.

    Args:
        rng: decides everything that is not an argument.
        height: H in pixels.
        width: W in pixels.
        classes: classes of the objects, from the back to the front.
    """
    canvas = _background(rng, height, width)
    labels: LabelArray = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE), dtype=np.int16)
    placed: list[ShapeClass] = []
    sizes: list[int] = []
    for shape in classes:
        sprite = _place(rng, shape, canvas, labels, sizes)
        if sprite is not None:
            _composite(canvas, sprite, shadow=True)
            placed.append(shape)
            sizes.append(int(np.count_nonzero(sprite.mask)))
            _stamp(labels, sprite, len(placed))
    _add_occluder(rng, canvas, labels, sizes)
    objects = tuple(measure(labels, index + 1, shape) for index, shape in enumerate(placed))
    return Scene(_expose(rng, canvas), objects, labels)


def measure(labels: LabelArray, label: int, shape: ShapeClass) -> SceneObject:
    """Read an object's box and area from a fine label map."""
    rows = np.flatnonzero((labels == label).any(axis=1))
    columns = np.flatnonzero((labels == label).any(axis=0))
    box = (
        float(columns[0]) / SUPERSAMPLE,
        float(rows[0]) / SUPERSAMPLE,
        float(columns[-1] + 1) / SUPERSAMPLE,
        float(rows[-1] + 1) / SUPERSAMPLE,
    )
    area = float(np.count_nonzero(labels == label)) / SUPERSAMPLE**2
    return SceneObject(shape, box, area)


def _background(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Return a muted backdrop with texture and blurred clutter: (H, W, 3) float32."""
    lights = ((0.72, 0.97), (0.72, 0.97), (0.4, 0.7), (0.16, 0.36))
    tones = lights[rng.integers(len(lights))]
    first = random_color(rng, (0.04, 0.34), tones)
    second = 0.5 * first + 0.5 * random_color(rng, (0.06, 0.45), tones)
    angle = rng.uniform(0.0, 2.0 * math.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = (x / width - 0.5) * np.float32(math.cos(angle)) + (y / height - 0.5) * np.float32(
        math.sin(angle)
    )
    share = np.clip(ramp + 0.5 + 0.35 * smooth_noise(rng, height, width, (48, 20)), 0.0, 1.0)
    canvas = first * (1.0 - share[..., None]) + second * share[..., None]
    canvas += _backdrop_texture(rng, height, width)[..., None]
    for _ in range(int(rng.integers(3, 8))):
        _blend_blob(rng, canvas)
    _scribble(rng, canvas)
    return canvas.astype(np.float32)


def _backdrop_texture(rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """Return a grey texture to add: cloth, planks, speckle or clouds, (H, W) float32."""
    kind = str(rng.choice(["cloth", "planks", "speckle", "clouds"]))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    strength = np.float32(rng.uniform(4.0, 12.0))
    if kind == "cloth":
        step = np.float32(2.0 * math.pi / rng.uniform(4.0, 8.0))
        return strength * 0.6 * (np.sin(x * step) + np.sin(y * step)).astype(np.float32)
    if kind == "planks":
        board = int(rng.integers(22, 44))
        grain = smooth_noise(rng, height, max(width // 8, 4), (3,))
        wide = cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR)
        seams = np.float32(22.0) * ((y % board) < 1.5).astype(np.float32)
        shades = rng.uniform(-10.0, 10.0, height // board + 1).astype(np.float32)
        return strength * wide - seams + shades[(y // board).astype(np.int64)]
    if kind == "speckle":
        noise = rng.standard_normal((height, width)).astype(np.float32)
        return strength * cv2.GaussianBlur(noise, (0, 0), 0.8) * 1.6
    return 1.6 * strength * smooth_noise(rng, height, width, (30, 12, 6))


def _blend_blob(rng: np.random.Generator, canvas: FloatArray) -> None:
    """Blend one soft, irregular patch of colour into the backdrop, in place."""
    height, width = canvas.shape[:2]
    center_x, center_y = rng.uniform(0, width), rng.uniform(0, height)
    radius = rng.uniform(8.0, 40.0)
    corners = int(rng.integers(7, 12))
    angles = np.sort(rng.uniform(0.0, 2.0 * math.pi, corners))
    reach = radius * rng.uniform(0.5, 1.0, corners)
    points = [
        (float(center_x + r * math.cos(a)), float(center_y + r * math.sin(a)))
        for r, a in zip(reach, angles)
    ]
    image = Image.new("L", (width, height), 0)
    ImageDraw.Draw(image).polygon(points, fill=255)
    alpha = np.asarray(image, dtype=np.float32) / 255.0
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(1.5, 7.0)) * np.float32(
        rng.uniform(0.25, 0.6)
    )
    color = random_color(rng, (0.1, 0.6), (0.2, 0.9))
    canvas += alpha[..., None] * (color - canvas)


def _scribble(rng: np.random.Generator, canvas: FloatArray) -> None:
    """Draw thin curved lines and crumbs on the backdrop, in place."""
    height, width = canvas.shape[:2]
    image = Image.new("L", (width * 2, height * 2), 0)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 5))):
        knots = rng.uniform(0.0, 1.0, (3, 2)) * np.asarray([width * 2, height * 2])
        t = np.linspace(0.0, 1.0, 24)[:, None]
        curve = (1 - t) ** 2 * knots[0] + 2 * t * (1 - t) * knots[1] + t**2 * knots[2]
        draw.line([(float(x), float(y)) for x, y in curve], fill=200, width=int(rng.integers(2, 5)))
    for _ in range(int(rng.integers(0, 16))):
        x, y = rng.uniform(0, width * 2), rng.uniform(0, height * 2)
        size = rng.uniform(1.5, 5.0)
        draw.ellipse((x - size, y - size, x + size, y + size), fill=230)
    alpha = np.asarray(image.resize((width, height), Image.Resampling.BOX), dtype=np.float32)
    color = random_color(rng, (0.1, 0.8), (0.15, 0.95))
    canvas += alpha[..., None] / 255.0 * np.float32(rng.uniform(0.35, 0.8)) * (color - canvas)


def _place(
    rng: np.random.Generator,
    shape: ShapeClass,
    canvas: FloatArray,
    labels: LabelArray,
    sizes: Sequence[int],
) -> _Sprite | None:
    """Find a place for an object and paint it; None if there is none.

    Args:
        rng: source of position, size, turn and paint.
        shape: the object's class.
        canvas: the picture so far; the object's colour stands out from it.
        labels: fine label map of the objects so far.
        sizes: whole fine area of each object so far.
    """
    height, width = canvas.shape[:2]
    largest = min(MAX_RADIUS, 0.34 * min(height, width))
    for _ in range(_PLACEMENT_TRIALS):
        radius = math.exp(rng.uniform(math.log(MIN_RADIUS), math.log(largest))) * SUPERSAMPLE
        degrees = float(rng.uniform(-shape.max_rotation, shape.max_rotation))
        stretch = float(rng.uniform(0.82, 1.22))
        side = 2 * math.ceil(1.25 * radius)
        mask = fine_mask(OUTLINES[shape.name], side, radius, stretch, degrees)
        left = int(rng.integers(-side // 3, labels.shape[1] - side + side // 3))
        top = int(rng.integers(-side // 3, labels.shape[0] - side + side // 3))
        sprite = _Sprite(mask, np.empty((0, 0, 3), np.float32), left, top)
        if _fits(labels, sprite, sizes):
            hue = shape.hue if rng.random() < OWN_HUE else None
            color = _standing_out(rng, canvas, sprite, hue)
            colors = paint(rng, shape, mask, radius=radius, degrees=degrees, color=color)
            return _Sprite(mask, colors, left, top)
    return None


def _overlap(
    size: Sequence[int], patch: Sequence[int], top: int, left: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a patch and a picture overlap: rows and columns of the picture, of the patch.

    Args:
        size: height and width of the picture.
        patch: height and width of the patch.
        top: the patch's first row in the picture, which may lie outside.
        left: its first column.
    """
    rows = slice(max(top, 0), min(top + patch[0], size[0]))
    columns = slice(max(left, 0), min(left + patch[1], size[1]))
    inside = (slice(rows.start - top, rows.stop - top),
              slice(columns.start - left, columns.stop - left))  # fmt: skip
    return (rows, columns), inside


def _fits(
    labels: LabelArray, sprite: _Sprite, sizes: Sequence[int], min_inside: float = MIN_INSIDE
) -> bool:
    """Say whether the sprite is inside the picture and leaves the others visible enough."""
    place, inside = _overlap(labels.shape, sprite.mask.shape, sprite.top, sprite.left)
    cut = sprite.mask[inside]
    if np.count_nonzero(cut) < min_inside * np.count_nonzero(sprite.mask):
        return False
    covered = labels[place][cut]
    return all(
        np.count_nonzero(labels == label) - np.count_nonzero(covered == label) >= MIN_VISIBLE * size
        for label, size in enumerate(sizes, 1)
    )


def _stamp(labels: LabelArray, sprite: _Sprite, label: int) -> None:
    """Write the sprite's label over what it covers, in place."""
    place, inside = _overlap(labels.shape, sprite.mask.shape, sprite.top, sprite.left)
    labels[place][sprite.mask[inside]] = label


def _standing_out(
    rng: np.random.Generator, canvas: FloatArray, sprite: _Sprite, hue: float | None
) -> FloatArray:
    """Draw a vivid colour whose brightness differs from what lies around the sprite."""
    side = sprite.mask.shape[0] // SUPERSAMPLE
    top, left = max(sprite.top // SUPERSAMPLE, 0), max(sprite.left // SUPERSAMPLE, 0)
    around = luminance(canvas[top : top + side, left : left + side].mean(axis=(0, 1)))
    color = random_color(rng, (0.5, 0.95), (0.45, 1.0), hue)
    for _ in range(_PLACEMENT_TRIALS):
        if abs(luminance(color) - around) > 42.0:
            break
        color = random_color(rng, (0.5, 0.95), (0.3, 1.0), hue)
    return color


def _composite(canvas: FloatArray, sprite: _Sprite, *, shadow: bool) -> None:
    """Average the sprite down and blend it over the picture, in place.

    The patch is first padded to whole picture pixels; then each picture pixel takes the mean
    of its fine pixels, weighted by the mask.
    """
    f = SUPERSAMPLE
    top, left = sprite.top // f, sprite.left // f
    before_y, before_x = sprite.top - top * f, sprite.left - left * f
    after_y = -(before_y + sprite.mask.shape[0]) % f
    after_x = -(before_x + sprite.mask.shape[1]) % f
    margins = ((before_y, after_y), (before_x, after_x))
    fine = np.pad(sprite.mask.astype(np.float32), margins)
    paint_fine = np.pad(sprite.colors, (*margins, (0, 0))) * fine[..., None]
    alpha, color = _average(fine), _average(paint_fine)
    if shadow:
        _cast_shadow(canvas, alpha, top, left)
    place, inside = _overlap(canvas.shape, alpha.shape, top, left)
    canvas[place] = canvas[place] * (1.0 - alpha[inside][..., None]) + color[inside]


def _average(fine: FloatArray) -> FloatArray:
    """The mean of the fine pixels (H * f, W * f, ...) of each pixel, (H, W, ...).

    One at a time: numpy's mean over two inner axes takes four times as long.
    """
    f = SUPERSAMPLE
    total = np.zeros((fine.shape[0] // f, fine.shape[1] // f, *fine.shape[2:]), np.float32)
    for row in range(f):
        for column in range(f):
            total += fine[row::f, column::f]
    return total / np.float32(f * f)


def _cast_shadow(canvas: FloatArray, alpha: FloatArray, top: int, left: int) -> None:
    """Darken the picture below and to the right of a mask, in place."""
    margin, offset = 8, 3
    wide = cv2.GaussianBlur(np.pad(alpha, margin), (0, 0), 2.5) * np.float32(0.45)
    shift = offset - margin
    place, inside = _overlap(canvas.shape, wide.shape, top + shift, left + shift)
    canvas[place] *= 1.0 - wide[inside][..., None]


def _add_occluder(
    rng: np.random.Generator, canvas: FloatArray, labels: LabelArray, sizes: Sequence[int]
) -> None:
    """Lay a thin stick over the picture now and then, in place, if all stays visible enough."""
    if rng.random() > 0.35:
        return
    side = int(rng.uniform(0.5, 1.0) * min(labels.shape))
    half_width = rng.uniform(1.5, 3.5) * SUPERSAMPLE / (side / 2.0)
    stick = ((-0.95, -half_width), (0.95, -0.4 * half_width), (0.95, 0.4 * half_width),
             (-0.95, half_width))  # fmt: skip
    mask = fine_mask([stick], side, side / 2.0, 1.0, float(rng.uniform(-90.0, 90.0)))
    left = int(rng.integers(-side // 4, max(labels.shape[1] - 3 * side // 4, 1)))
    top = int(rng.integers(-side // 4, max(labels.shape[0] - 3 * side // 4, 1)))
    color = random_color(rng, (0.2, 0.6), (0.2, 0.6))
    grain = 1.0 + 0.15 * smooth_noise(rng, side, side, (12,))
    sprite = _Sprite(mask, color * grain[..., None], left, top)
    if _fits(labels, sprite, sizes, min_inside=0.0):
        _composite(canvas, sprite, shadow=True)
        _stamp(labels, sprite, _OCCLUDER_LABEL)


def _expose(rng: np.random.Generator, canvas: FloatArray) -> npt.NDArray[np.uint8]:
    """Apply light, lens and sensor: vignette, contrast, blur, noise; (H, W, 3) uint8."""
    height, width = canvas.shape[:2]
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    vignette = 1.0 - np.float32(rng.uniform(0.0, 0.22)) * (x * x + y * y) / 2.0
    contrast, brightness = rng.uniform(0.85, 1.12), rng.uniform(-12.0, 12.0)
    image: FloatArray = (canvas - 128.0) * np.float32(contrast) + np.float32(128.0 + brightness)
    image = image * vignette[..., None]
    if rng.random() < 0.35:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.9)), np.float32)
    noise = rng.standard_normal(image.shape).astype(np.float32)
    noisy = image + noise * np.float32(rng.uniform(1.0, 7.0))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
