# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Detections on pictures in the forms that labelling tools read: COCO, Label Studio, YOLO.

All are made of the entries of `detections.json`. Boxes are those of the picture after its EXIF
orientation, in pixels for COCO, in percent of its sides for Label Studio, as shares for YOLO.
"""

from __future__ import annotations

import colorsys
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from src.util import write_json, write_text

Json = dict[str, Any]
# Names of the tags in Label Studio's configuration, which its tasks refer to.
IMAGE_TAG, LABEL_TAG = "image", "label"
LOCAL_FILES = "/data/local-files/?d="
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_formats(
    folder: Path,
    entries: Sequence[Mapping[str, Any]],
    classes: Mapping[int, str],
    pictures: str,
    model_version: str,
) -> list[str]:
    """Write all of them.

    Args:
        folder: where `detections.json` is.
        entries: those of its list `images`.
        classes: names by category id, in the order of the classes' indices.
        pictures: name of the folder that the pictures' names are relative to.
        model_version: what Label Studio shows beside the predictions.

    Returns:
        Pictures that have no file of labels in YOLO's form, since another one has its name but for
        the suffix.
    """
    write_json(folder / "coco_images.json", coco_images(entries, classes))
    write_json(folder / "coco_results.json", coco_results(entries))
    tasks = [label_studio_task(entry, pictures, model_version) for entry in entries]
    write_json(folder / "label_studio.json", tasks)
    write_text(folder / "label_studio.xml", label_studio_configuration(list(classes.values())))
    return _write_yolo(folder / "yolo", entries, classes)


def coco_images(entries: Sequence[Mapping[str, Any]], classes: Mapping[int, str]) -> Json:
    """A data set file without annotations; pictures are numbered from 1 in their order."""
    return {
        "info": {"description": "pictures that coco_results.json has detections on"},
        "licenses": [],
        "images": [
            {"id": number, "file_name": one["file"], "width": one["width"], "height": one["height"]}
            for number, one in enumerate(entries, start=1)
        ],
        "annotations": [],
        "categories": [
            {"id": identity, "name": name, "supercategory": ""}
            for identity, name in classes.items()
        ],
    }


def coco_results(entries: Sequence[Mapping[str, Any]]) -> list[Json]:
    """A list of results for the pictures of `coco_images`."""
    return [
        {
            "image_id": number,
            "category_id": found["category_id"],
            "bbox": found["bbox_xywh"],
            "score": found["score"],
        }
        for number, entry in enumerate(entries, start=1)
        for found in entry["detections"]
    ]


def label_studio_task(entry: Mapping[str, Any], pictures: str, model_version: str) -> Json:
    """A picture as a task with one prediction, whose score is the mean of those of its boxes.

    The picture is `/data/local-files/?d=PICTURES/NAME`: Label Studio serves local files below a
    root of its own, from folders in it, which the root itself cannot be.
    """
    detections, width, height = entry["detections"], entry["width"], entry["height"]
    regions = []
    for number, found in enumerate(detections, start=1):
        x, y, box_width, box_height = found["bbox_xywh"]
        percent = {
            **{"x": 100 * x / width, "y": 100 * y / height, "rotation": 0},
            **{"width": 100 * box_width / width, "height": 100 * box_height / height},
        }
        regions.append(
            {
                "id": f"box{number}",
                "type": "rectanglelabels",
                "from_name": LABEL_TAG,
                "to_name": IMAGE_TAG,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {**percent, "rectanglelabels": [_in_xml(found["label"])]},
                "score": found["score"],
            }
        )
    mean = sum(found["score"] for found in detections) / max(len(detections), 1)
    prediction = {"model_version": model_version, "score": mean, "result": regions}
    image = LOCAL_FILES + quote(os.fsencode(os.path.join(pictures, entry["file"])))
    return {"data": {IMAGE_TAG: image}, "predictions": [prediction]}


def _in_xml(text: str) -> str:
    """Text without the characters that no XML file can hold."""
    return _NO_XML.sub("\ufffd", text)


def label_studio_configuration(class_names: Sequence[str]) -> str:
    """The labelling interface that the tasks' predictions fit: a picture, and boxes with labels."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": IMAGE_TAG, "value": f"${IMAGE_TAG}"})
    labels = ElementTree.SubElement(
        view, "RectangleLabels", {"name": LABEL_TAG, "toName": IMAGE_TAG}
    )
    for number, name in enumerate(class_names):
        hue = number / len(class_names)
        colour = "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hsv_to_rgb(hue, 0.9, 0.9))
        ElementTree.SubElement(labels, "Label", {"value": _in_xml(name), "background": colour})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def yolo_lines(entry: Mapping[str, Any], index_of: Mapping[int, int]) -> str:
    """Lines `class cx cy w h`, shares of the picture; `index_of` has class indices by category."""
    lines = []
    for found in entry["detections"]:
        x, y, width, height = found["bbox_xywh"]
        shares = (
            *((x + width / 2) / entry["width"], (y + height / 2) / entry["height"]),
            *(width / entry["width"], height / entry["height"]),
        )
        numbers = " ".join(f"{share:.9f}" for share in shares)
        lines.append(f"{index_of[found['category_id']]} {numbers}\n")
    return "".join(lines)


def _in_yaml(text: str) -> str:
    """A string of JSON is one of YAML; what is no valid text stays escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _write_yolo(
    folder: Path, entries: Sequence[Mapping[str, Any]], classes: Mapping[int, str]
) -> list[str]:
    """Write `data.yaml` and a file a picture below `labels`; see `write_formats`."""
    # without `path`, which YOLO programs take from their own folder of data sets
    lines = ["train: images", "val: images", f"nc: {len(classes)}", "names:"]
    names = (_in_yaml(name) for name in classes.values())
    lines += [f"  {index}: {name}" for index, name in enumerate(names)]
    text = "\n".join(lines) + "\n"
    write_text(folder / "data.yaml", text)
    index_of = {identity: index for index, identity in enumerate(classes)}
    places = {entry["file"]: PurePosixPath(entry["file"]).with_suffix(".txt") for entry in entries}
    times = Counter(places.values())
    for entry in entries:
        if times[places[entry["file"]]] == 1:
            path = folder / "labels" / places[entry["file"]]
            write_text(path, yolo_lines(entry, index_of))
    return [name for name, place in places.items() if times[place] > 1]
