# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Pictures of detections: colours, labels within the image, sizes, files."""

import sys

import numpy as np
import pytest
from PIL import Image

from src.defrcn.built_datacategory import Annotation, Record
from src.evaluation.visualize import (
    GAP,
    PAPER,
    Label,
    class_colour,
    contact_sheet,
    detection_labels,
    draw_at_viewing_size,
    draw_labels,
    ground_truth_labels,
    render_detections,
    side_by_side,
)
from src.model_utils.errors import InputError

NAMES = ("cat", "dog")


def has_colour(image, colour, tolerance=0):
    return bool((np.abs(image.astype(int) - np.array(colour)) <= tolerance).all(axis=2).any())


def record(path, *annotations, image_id=1, height=60, width=80):
    return Record(str(path), image_id, height, width, tuple(annotations))


def picture(folder, name, height=60, width=80):
    path = folder / name
    Image.new("RGB", (width, height), (90, 90, 90)).save(path)
    return path


def test_colours_are_fixed_and_differ():
    colours = [class_colour(index) for index in range(80)]
    assert len(set(colours)) == 80
    assert colours == [class_colour(index) for index in range(80)]
    first = np.array(colours[:12], int)
    distances = np.abs(first[:, None] - first[None]).sum(axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 40


def test_labels_of_both_sides():
    truth = ground_truth_labels(
        record(
            "a.png",
            Annotation((1, 2, 11, 22), 0, 0),
            Annotation((1, 2, 10, 20), 1, 1, iscrowd=1, difficult=1),
        ),
        NAMES,
    )
    assert truth[0] == Label((1.0, 2.0, 11.0, 22.0), 0, "cat")
    assert truth[1] == Label((1.0, 2.0, 11.0, 22.0), 1, "dog (crowd, difficult)", faint=True)
    rows = [
        {"image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.4},
        {"image_id": 1, "category_id": 77, "bbox": [1, 2, 3, 4], "score": 0.99},
    ]
    labels = detection_labels(rows, NAMES, (3, 5), 0.5)
    assert [label.text for label in labels] == ["cat 0.50", "dog 0.90"]  # the best on top
    assert labels[1].box == (1, 2, 4, 6)


def test_box_and_label_are_drawn_in_the_class_colour_and_the_input_is_kept():
    image = np.full((200, 300, 3), 128, np.uint8)
    drawn = draw_labels(image, [Label((50, 60, 150, 160), 3, "zebra 0.97")])
    assert (image == 128).all()
    assert drawn.shape == image.shape
    assert np.abs(drawn[60:160, 50].astype(int) - class_colour(3)).max() <= 60
    assert (drawn[110, 100] == 128).all()  # nothing inside the box
    assert has_colour(drawn[30:60, 50:120], class_colour(3))  # the label stands above it
    assert (drawn[:, 200:] == 128).all()


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 300, 200),
        (-50, -50, 20, 20),
        (290, 190, 400, 400),
        (5, 5, 5, 5),
        (350, 250, 360, 260),
    ],
)
def test_boxes_at_and_over_the_border_are_drawn_inside(box):
    image = np.full((200, 300, 3), 128, np.uint8)
    drawn = draw_labels(image, [Label(box, 0, "a long name of a class 0.12")])
    assert drawn.shape == image.shape
    assert has_colour(drawn, class_colour(0))


def test_labels_of_one_place_do_not_cover_each_other():
    image = np.full((300, 300, 3), 128, np.uint8)
    labels = [Label((80, 100, 220, 200), index, "name 0.50") for index in range(4)]
    drawn = draw_labels(image, labels)
    areas = [int((drawn == class_colour(index)).all(axis=2).sum()) for index in range(4)]
    assert min(areas) > 500


@pytest.mark.parametrize(
    ("size", "expected"),
    [((60, 80), (360, 480)), ((600, 800), (600, 800)), ((96, 1920), (48, 960))],
)
def test_sizes_of_a_panel(size, expected):
    panel = side_by_side(np.zeros((*size, 3), np.uint8), [], [], title="x" * 500)
    height, width = expected
    assert panel.shape == (height + 30 + GAP, 2 * width + 3 * GAP, 3)
    assert (panel[-1] == PAPER).all()


def test_ground_truth_is_left_and_detections_right():
    image = np.full((480, 480, 3), 128, np.uint8)
    left, right = Label((100, 100, 300, 300), 0, "cat"), Label((100, 100, 300, 300), 1, "dog 0.90")
    panel = side_by_side(image, [left], [right])
    middle = panel.shape[1] // 2
    assert has_colour(panel[:, :middle], class_colour(0))
    assert not has_colour(panel[:, :middle], class_colour(1))
    assert has_colour(panel[:, middle:], class_colour(1))
    assert not has_colour(panel[:, middle:], class_colour(0))


def test_contact_sheet():
    tall, flat = np.zeros((200, 100, 3), np.uint8), np.zeros((50, 100, 3), np.uint8)
    sheet = contact_sheet([tall, flat, flat], columns=2, width=100)
    assert sheet.shape == (60 + 50, 200, 3)
    assert (sheet[0, 150] == PAPER).all()  # the flat one is centred beside the tall one
    assert (sheet[30, 150] == 0).all()
    assert (sheet[:60, 34] == PAPER).all()  # the tall one, 30 wide, is centred in its cell
    assert (sheet[:60, 35:65] == 0).all()
    assert contact_sheet([flat], columns=3, width=200).shape == (100, 200, 3)
    with pytest.raises(ValueError, match="no pictures"):
        contact_sheet([])


def test_files(tmp_path):
    box = Annotation((10, 10, 40, 40), 0, 0)
    records = [
        record(picture(tmp_path, f"im {index}.png"), *([box] if index % 2 else []), image_id=index)
        for index in range(6)
    ]
    rows = [{"image_id": 1, "category_id": 5, "bbox": [10, 10, 30, 30], "score": 0.8}]
    files = render_detections(
        records, rows, tmp_path / "out", class_names=NAMES, category_ids=(3, 5), num_images=4
    )
    # images with objects first, then others
    names = ["00_im 1.png", "01_im 3.png", "02_im 5.png", "03_im 0.png", "sheet.png"]
    assert [file.name for file in files] == names
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(names)
    drawn = np.asarray(Image.open(files[0]))[:, :, ::-1]
    assert has_colour(drawn, class_colour(0))
    assert has_colour(drawn, class_colour(1))
    keys = {"class_names": NAMES, "category_ids": (3, 5)}
    assert render_detections(records, rows, tmp_path / "none", num_images=0, **keys) == []
    assert render_detections([], rows, tmp_path / "none", **keys) == []
    assert not (tmp_path / "none").exists()


def test_a_broken_picture_is_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="bad.png"):
        render_detections(
            [record(tmp_path / "bad.png")], [], tmp_path, class_names=NAMES, category_ids=(3, 5)
        )


@pytest.mark.parametrize("size", [(61, 83), (1301, 977)])
def test_sizes_without_mmcv_are_the_same(size, monkeypatch):
    """A machine that runs bundles has none."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    wanted = draw_at_viewing_size(image, [])
    assert max(wanted.shape) in (480, 960)
    monkeypatch.setitem(sys.modules, "mmcv", None)
    np.testing.assert_array_equal(draw_at_viewing_size(image, []), wanted)
