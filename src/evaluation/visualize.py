# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Pictures of detections beside ground truth, as PNG, and a sheet of several of them.

Images here are (H, W, 3) uint8, blue first; boxes (x1, y1, x2, y2) in the image frame, pixels.
OpenCV draws lines, mmcv resizes (OpenCV where there is no mmcv, which does the same), Pillow writes
text (its font is readable at any size).
"""

from __future__ import annotations

import colorsys
import functools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.data.transforms import decode, to_bgr, to_xyxy
from src.defrcn.data_types import Record
from src.defrcn.picture_file import PILLOW_MAX_PIXELS
from src.util import atomic_path

Colour = tuple[int, int, int]

MIN_LONG_EDGE = 480  # smaller pictures are enlarged, so that labels fit
MAX_LONG_EDGE = 960
DRAWN_FROM = 0.5  # weaker detections are not drawn beside ground truth
PAPER: Colour = (250, 248, 246)
INK: Colour = (40, 36, 32)
GAP = 12
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Label:
    """A box to draw: corners in pixels, class index, text, whether to draw it faintly or dashed.

    `colour` (B G R) instead of the class's.
    """

    box: tuple[float, float, float, float]
    class_index: int
    text: str
    faint: bool = False
    dashed: bool = False
    colour: Colour | None = None

    @property
    def shown_colour(self) -> Colour:
        """The colour of box and tag."""
        return class_colour(self.class_index) if self.colour is None else self.colour


@functools.cache
def class_colour(index: int) -> Colour:
    """Return a class's colour, B G R: the same in every picture, neighbours far apart."""
    hue = (0.02 + index * 0.61803398875) % 1.0  # the golden ratio never comes back close
    # Blue and violet need more light to be as visible as yellow and green.
    value = 0.95 if index % 2 == 0 else 0.8
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85 - 0.2 * (index // 2 % 2), value)
    return round(blue * 255), round(green * 255), round(red * 255)


def ground_truth_labels(record: Record, class_names: Sequence[str]) -> list[Label]:
    """Return a record's objects to draw; crowds and difficult ones are faint and say so."""
    labels = []
    for item in record.annotations:
        notes = [
            note for note, on in (("crowd", item.iscrowd), ("difficult", item.difficult)) if on
        ]
        name = class_names[item.category_id]
        text = f"{name} ({', '.join(notes)})" if notes else name
        box = to_xyxy(item.bbox, item.bbox_mode)
        labels.append(Label(box, item.category_id, text, faint=bool(notes)))
    return labels


def detection_labels(
    rows: Iterable[Mapping[str, Any]],
    class_names: Sequence[str],
    category_ids: Sequence[int],
    score_threshold: float,
) -> list[Label]:
    """Return the result rows of one image to draw, best last, so that it lies on top."""
    index_of = {category: index for index, category in enumerate(category_ids)}
    chosen = [
        row for row in rows if row["score"] >= score_threshold and row["category_id"] in index_of
    ]
    labels = []
    for row in sorted(chosen, key=lambda row: row["score"]):
        index = index_of[row["category_id"]]
        x, y, width, height = row["bbox"]
        text = f"{class_names[index]} {row['score']:.2f}"
        labels.append(Label((x, y, x + width, y + height), index, text))
    return labels


def draw_labels(image: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Return a copy of the image with every box and its label.

    Labels stand above their box, or below, or inside, wherever they first lie within the image
    without covering another label.
    """
    height, width = image.shape[:2]
    size = max(12, min(22, round(max(height, width) / 42)))
    thickness = max(2, round(max(height, width) / 320))
    canvas = image.copy()
    corners = []
    for label in labels:
        x1, y1, x2, y2 = _clipped(label.box, height, width)
        line = 1 if label.faint else thickness
        draw = _dashed_rectangle if label.dashed else cv2.rectangle
        draw(canvas, (x1, y1), (x2, y2), INK, line + 2, cv2.LINE_AA)
        draw(canvas, (x1, y1), (x2, y2), label.shown_colour, line, cv2.LINE_AA)
        corners.append((x1, y1, x2, y2))
    drawing = Image.fromarray(canvas[:, :, ::-1])
    pen = ImageDraw.Draw(drawing)
    taken: list[tuple[int, int, int, int]] = []
    # The most certain detection comes last and chooses its place first.
    for label, box in reversed(list(zip(labels, corners))):
        tag = _place(box, _text_size(label.text, size), taken, height, width)
        taken.append(tag)
        colour = label.shown_colour
        pen.rectangle(tag, fill=colour[::-1])
        pen.text((tag[0] + 4, tag[1] + 2), label.text, _ink_on(colour)[::-1], _font(size))
    return np.ascontiguousarray(np.asarray(drawing)[:, :, ::-1])


def side_by_side(
    image: np.ndarray,
    truth: Sequence[Label],
    detections: Sequence[Label],
    *,
    title: str = "",
    score_threshold: float = 0.0,
) -> np.ndarray:
    """Return one picture: ground truth left, detections right, both captioned.

    A picture whose long edge is outside 480 ... 960 pixels is scaled to that range first.
    """
    scale = _scale(image)
    shown = _resized(image, scale)
    height, width = shown.shape[:2]
    caption, lefts = 30, (GAP, 2 * GAP + width)
    panel = np.full((height + caption + GAP, 2 * width + 3 * GAP, 3), PAPER, np.uint8)
    for left, labels in zip(lefts, (truth, detections)):
        half = draw_labels(shown, [_scaled(label, scale) for label in labels])
        panel[caption : caption + height, left : left + width] = half
    drawing = Image.fromarray(panel[:, :, ::-1])
    pen = ImageDraw.Draw(drawing)
    texts = (
        f"{title}  ground truth: {len(truth)}".lstrip(),
        f"detections, score {score_threshold:.2f} or more: {len(detections)}",
    )
    for left, text in zip(lefts, texts):
        pen.text((left, 6), _fitted(text, width, 16), INK[::-1], _font(16))
    return np.ascontiguousarray(np.asarray(drawing)[:, :, ::-1])


def draw_at_viewing_size(image: np.ndarray, labels: Sequence[Label]) -> np.ndarray:
    """Return the picture with boxes, its long edge brought to 480 ... 960 pixels first."""
    scale = _scale(image)
    return draw_labels(_resized(image, scale), [_scaled(label, scale) for label in labels])


def contact_sheet(
    panels: Sequence[np.ndarray], *, columns: int = 2, width: int = 900
) -> np.ndarray:
    """Return one picture of several, row by row, each centred in a cell of its row.

    Args:
        panels: At least one picture.
        columns: Pictures a row.
        width: Of a cell, pixels; a picture is scaled to it, or to a height of 0.6 times it.
    """
    if not panels:
        raise ValueError("no pictures for the sheet")
    columns = min(columns, len(panels))
    scaled = [
        _resized(panel, min(width / panel.shape[1], 0.6 * width / panel.shape[0]))
        for panel in panels
    ]
    rows = []
    for start in range(0, len(scaled), columns):
        group = scaled[start : start + columns]
        height = max(panel.shape[0] for panel in group)
        row = np.full((height, columns * width, 3), PAPER, np.uint8)
        for column, panel in enumerate(group):
            top = (height - panel.shape[0]) // 2
            left = column * width + (width - panel.shape[1]) // 2
            row[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
        rows.append(row)
    return np.concatenate(rows)


def render_detections(
    records: Sequence[Record],
    rows: Iterable[Mapping[str, Any]],
    folder: str | Path,
    *,
    class_names: Sequence[str],
    category_ids: Sequence[int],
    num_images: int = 8,
    max_pixels: int = PILLOW_MAX_PIXELS,
) -> list[Path]:
    """Draw some images of a test set with their ground truth and detections.

    Args:
        records: The test set. Images with objects are preferred, spread evenly over it.
        rows: Result rows of any images.
        folder: Gets `NN_NAME.png` for each image and `sheet.png` with all of them.
        class_names: The set's classes, and
        category_ids: their category ids, in the same order.
        num_images: How many images; 0 writes nothing.
        max_pixels: Larger images are refused, as in evaluation.

    Returns:
        The files written, the sheet last.

    Raises:
        InputError: If an image cannot be decoded.
    """
    chosen = _spread(records, num_images)
    found: dict[Any, list[Mapping[str, Any]]] = {record.image_id: [] for record in chosen}
    for row in rows:
        if row["image_id"] in found:
            found[row["image_id"]].append(row)
    folder = Path(folder)
    panels, files = [], []
    for number, record in enumerate(chosen):
        name = Path(record.file_name)
        image = to_bgr(decode(name.read_bytes(), str(name), max_pixels))
        detections = detection_labels(found[record.image_id], class_names, category_ids, DRAWN_FROM)
        panels.append(
            side_by_side(
                image,
                ground_truth_labels(record, class_names),
                detections,
                title=name.stem,
                score_threshold=DRAWN_FROM,
            )
        )
        files.append(folder / f"{number:02d}_{name.stem}.png")
        write_picture(files[-1], panels[-1])
    if panels:
        files.append(folder / "sheet.png")
        write_picture(files[-1], contact_sheet(panels))
    return files


def write_picture(path: str | Path, image: np.ndarray) -> None:
    """Write a blue-first image as PNG or JPEG, as its name ends, atomically."""
    kind = {".png": "PNG", ".jpg": "JPEG"}[Path(path).suffix]
    with atomic_path(path) as partial:
        picture = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
        picture.save(partial, format=kind, quality=JPEG_QUALITY)


def _spread(records: Sequence[Record], number: int) -> list[Record]:
    """Choose records evenly from those with objects, then from the others."""
    full = [record for record in records if record.annotations]
    empty = [record for record in records if not record.annotations]
    chosen: list[Record] = []
    for group in (full, empty):
        wanted = min(number - len(chosen), len(group))
        chosen += [group[i * len(group) // wanted] for i in range(wanted)]
    return chosen


def _scale(image: np.ndarray) -> float:
    longest = max(image.shape[:2])
    return min(max(longest, MIN_LONG_EDGE), MAX_LONG_EDGE) / longest


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1.0:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    try:
        with warnings.catch_warnings():
            # mmcv 1.x announces version 2 whenever it is imported.
            warnings.simplefilter("ignore")
            import mmcv
    except ImportError:
        code = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(image, (width, height), interpolation=code))
    method = "area" if scale < 1 else "bicubic"
    return np.asarray(mmcv.imresize(image, (width, height), interpolation=method))


def _scaled(label: Label, scale: float) -> Label:
    x1, y1, x2, y2 = label.box
    return replace(label, box=(x1 * scale, y1 * scale, x2 * scale, y2 * scale))


def _dashed_rectangle(
    canvas: np.ndarray,
    first: tuple[int, int],
    second: tuple[int, int],
    colour: Colour,
    line: int,
    kind: int,
) -> None:
    """Like `cv2.rectangle`; dashes and gaps do not depend on the line's width."""
    (x1, y1), (x2, y2) = first, second
    dash = max(6, max(canvas.shape[:2]) // 80)
    for start in range(x1, x2, 2 * dash):
        for y in (y1, y2):
            cv2.line(canvas, (start, y), (min(start + dash, x2), y), colour, line, kind)
    for start in range(y1, y2, 2 * dash):
        for x in (x1, x2):
            cv2.line(canvas, (x, start), (x, min(start + dash, y2)), colour, line, kind)


def _clipped(box: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
    """Return whole pixels within the image; the last pixel of a box is the one before x2."""
    limits = (width - 1, height - 1, width - 1, height - 1)
    x1, y1, x2, y2 = (
        int(min(max(math.floor(value + 0.5), 0), limit)) for value, limit in zip(box, limits)
    )
    return x1, y1, max(x1, x2), max(y1, y2)


def _place(
    box: tuple[int, int, int, int],
    text_size: tuple[int, int],
    taken: Sequence[tuple[int, int, int, int]],
    height: int,
    width: int,
) -> tuple[int, int, int, int]:
    """Return where a label goes: the first free place around its box, else inside the top."""
    x1, y1, x2, y2 = box
    across, down = text_size[0] + 8, text_size[1] + 4
    lefts = [min(max(left, 0), max(0, width - across)) for left in (x1, x2 - across)]
    for top in (y1 - down, y2 + 1, y1, y2 - down):
        for left in lefts:
            tag = (left, top, left + across, top + down)
            inside = 0 <= top and top + down <= height
            if inside and not any(_overlap(tag, other) for other in taken):
                return tag
    top = min(max(y1, 0), max(0, height - down))
    return lefts[0], top, lefts[0] + across, top + down


def _overlap(a: Sequence[int], b: Sequence[int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@functools.cache
def _font(size: int) -> Any:  # noqa: ANN401 - Pillow has two font types
    return ImageFont.load_default(size)


def _text_size(text: str, size: int) -> tuple[int, int]:
    """Return width and line height in pixels; the height does not depend on the letters."""
    return math.ceil(_font(size).getlength(text)), math.ceil(size * 1.25)


def _fitted(text: str, width: int, size: int) -> str:
    """Shorten a text from its start until it fits a width in pixels."""
    short = text
    while short and _text_size(short, size)[0] > width:
        short = short[1:]
    return short if short == text else f"…{short[1:]}"


def _ink_on(colour: Colour) -> Colour:
    blue, green, red = colour
    return (255, 255, 255) if 0.114 * blue + 0.587 * green + 0.299 * red < 140 else (0, 0, 0)
