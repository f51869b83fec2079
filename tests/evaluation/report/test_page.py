# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The page of an evaluation: complete, offline, escaped, with right numbers and sorted pictures."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.defrcn.built_datacategory import DatasetInfo
from src.detecteval import evaluate, ground_truth_from_records
from src.evaluation.report import page as page_module
from src.evaluation.report.analysis import ClassAnalysis, Finding, Picture
from src.evaluation.report.forgotten import Before
from src.evaluation.report.page import picture_labels, write_report
from src.evaluation.report.plots import (
    DARK,
    class_plot,
    curves_plot,
    dark,
    f1_steps,
    histogram_plot,
)
from src.evaluation.result_folder import INDEX
from src.evaluation.visualize import Label, draw_at_viewing_size, draw_labels
from src.model_utils.errors import InputError
from src.tools import report
from tests.helpers.data_helpers import TOY_CONFIG, coco_content, coco_tree, record

NAMES = ("cat & <dog>", "bird")
BOXES = ((2.0, 3.0, 10.0, 8.0), (20.0, 4.0, 12.0, 12.0))  # x, y, width, height


class Links(HTMLParser):
    """Everything that a page refers to, and its text."""

    def __init__(self):
        super().__init__()
        self.links, self.ids, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("href", "src", "srcset", "action", "poster", "data"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.text.append(data)


def read_page(path):
    page = Links()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def info_of(**keys):
    settings = {
        **{"name": "toy_test_all", "format": "voc", "annotations": Path(), "image_root": Path()},
        **{"image_list": None, "class_names": NAMES, "category_ids": (1, 2)},
        **{"base_classes": NAMES[:1], "novel_classes": NAMES[1:]},
    }
    return DatasetInfo(**{**settings, **keys})


def detection(image, category, box, score):
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


@pytest.fixture
def case(tmp_path):
    """Five pictures: all found; one object missed; one false; both; empty. Names need quoting."""
    records = []
    for number in range(5):
        path = tmp_path / "images" / f"a b#{number}%20.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), (90, 120, 60)).save(path)
        records.append(record(path, 40, 60, BOXES if number < 4 else (), image_id=number))
    rows = [
        *(detection(i, 1, BOXES[0], 0.9) for i in range(3)),
        *(detection(i, 2, BOXES[1], 0.8) for i in (0, 2, 3)),
        detection(2, 2, (40, 25, 10, 10), 0.81),
        detection(3, 1, (40, 25, 10, 10), 0.95),
        detection(3, 1, (1, 25, 10, 10), 0.05),
    ]
    info = info_of()
    truth = ground_truth_from_records(records, info.class_names, info.category_ids)
    evaluation = replace(evaluate(info, truth, rows, metric="coco"), pcb=True)
    return evaluation, info, truth, records, rows


def before(**fields):
    settings = {
        **{"folder": "<b>base", "dataset": "toy_base", "metric": "coco", "num_images": 5},
        **{"per_class": {NAMES[0]: 90.0}, "per_class_objects": {NAMES[0]: 4}, "pcb": False},
    }
    return Before(**{**settings, **fields})


def test_every_link_is_a_file_of_the_folder(tmp_path, case):
    path = write_report(tmp_path / "report", *case, source="defrcn-60.ckpt", before=before())
    assert path == tmp_path / "report" / "index.html"
    page = read_page(path)
    assert len(page.links) > 20
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids, link
        else:
            assert re.fullmatch(r"[\w./-]+", link), link
            assert (path.parent / link).is_file(), link
    written = {str(f.relative_to(path.parent)) for f in path.parent.rglob("*") if f.is_file()}
    assert written == {*(link for link in page.links if link[0] != "#"), "index.html", INDEX}


def test_nothing_refers_to_the_network(tmp_path, case):
    path = write_report(tmp_path / "report", *case)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    plots = sorted((path.parent / "plots").glob("*.svg"))
    assert len(plots) == 2 * (2 + len(NAMES))
    for plot in plots:
        # names of XML's vocabularies are no links
        rest = re.sub(r'xmlns(:\w+)?="[^"]*"', "", plot.read_text(encoding="utf-8"))
        assert not re.search(r"https?:|DOCTYPE|@import", rest), plot
        assert str(tmp_path) not in rest


def test_the_page_says_what_the_numbers_mean(tmp_path, case):
    evaluation = case[0]
    text = " ".join(" ".join(read_page(write_report(tmp_path / "r", *case)).text).split())
    for words in (
        "COCO box AP in percent, IoU 0.50:0.95",
        "gfsod (1 base and 1 novel class)",
        "scores with PCB",
        "cat & <dog>",
        f"{evaluation.results['nAP50']:.1f}",
        f"{evaluation.results['bAP75']:.2f}",
    ):
        assert words in text, words
    without = replace(evaluation, pcb=False)
    assert "without PCB" in write_report(tmp_path / "s", without, *case[1:]).read_text()
    unknown = replace(evaluation, pcb=None)
    assert "PCB" not in write_report(tmp_path / "t", unknown, *case[1:]).read_text()


def test_tables_and_sorted_pictures(tmp_path, case):
    """Best thresholds: cat 0.9 (0.95 is false, 3 hits follow), bird 0.8 (0.81 is false)."""
    folder = write_report(tmp_path / "report", *case).parent
    with (folder / "per_class.csv").open(newline="") as handle:
        cat, bird = csv.DictReader(handle)
    assert (cat["class"], cat["group"], cat["objects"]) == (NAMES[0], "base", "4")
    assert (cat["best_threshold"], cat["hits"], cat["false"], cat["missed"]) == (
        *("0.9", "3", "1", "1"),
    )
    assert (bird["best_threshold"], bird["hits"], bird["false"], bird["missed"]) == (
        *("0.8", "3", "1", "1"),
    )
    with (folder / "pictures.csv").open(newline="") as handle:
        kinds = [row["kind"] for row in csv.DictReader(handle)]
    assert kinds == ["ok", "missed", "false", "missed+false", "ok"]
    files = {
        kind: sorted(p.name for p in (folder / "pictures" / kind).iterdir())
        for kind in ("ok", "missed", "false")
    }
    assert files == {
        "ok": ["000_a_b_0_20.jpg", "001_a_b_4_20.jpg"],
        "missed": ["000_a_b_1_20.jpg", "001_a_b_3_20.jpg"],
        "false": ["000_a_b_3_20.jpg", "001_a_b_2_20.jpg"],  # the most certain error first
    }
    both = [
        folder / "pictures" / name for name in ("missed/001_a_b_3_20.jpg", "false/000_a_b_3_20.jpg")
    ]
    assert both[0].read_bytes() == both[1].read_bytes()
    with Image.open(both[0]) as image:
        assert image.size == (480, 320)


@pytest.fixture
def no_plots(monkeypatch):
    """For tests that look at tables: drawing takes longer than all the rest."""
    monkeypatch.setattr(page_module, "_write_plots", lambda folder, analysis: None)


@pytest.mark.usefixtures("no_plots")
def test_confusion_of_classes(tmp_path, case):
    """The bird of the second picture is now taken for a cat, with more certainty than any other."""
    *rest, rows = case
    rows = [*rows, detection(1, 1, BOXES[1], 0.99)]
    folder = write_report(tmp_path / "report", *rest, rows).parent
    text = (folder / "confusion.csv").read_text()
    assert list(csv.reader(text.splitlines())) == [
        ["object", *NAMES, "missed"],
        [NAMES[0], "3", "0", "1"],
        [NAMES[1], "1", "3", "0"],
        ["background", "1", "1", ""],
    ]
    content = json.loads((folder / "report.json").read_text())
    assert content["forgotten"] is None
    assert content["confusion"]["counts"] == [[3, 0, 1], [1, 3, 0], [1, 1, 0]]
    assert content["confusion"]["groups"]["right_class"] == {"base": 3, "novel": 3}
    page = (folder / "index.html").read_text()
    assert "bird as cat &amp; &lt;dog&gt;: 1 (25.0 % of the row)" in page
    assert (
        "Objects taken for another class: 1. Detections of the\nbackground: 2, of which 0" in page
    )
    assert 'id="forgotten' not in page
    assert not (folder / "forgotten.csv").exists()


@pytest.mark.usefixtures("no_plots")
def test_confusion_without_a_split(tmp_path, case):
    evaluation, info, *rest = case
    plain = replace(info, base_classes=NAMES, novel_classes=())
    page = write_report(tmp_path / "report", evaluation, plain, *rest)
    assert 'id="confusion-classes"' in page.read_text()
    assert 'id="confusion-groups"' not in page.read_text()
    assert 'id="confusion-pairs"' not in page.read_text()  # there is none
    content = json.loads((page.parent / "report.json").read_text())
    assert content["confusion"]["groups"] is None


@pytest.mark.usefixtures("no_plots")
def test_what_was_forgotten(tmp_path, case):
    """By COCO's 101 points: of the cat's 4 objects 3 are found, after a more certain false one."""
    earlier = before(num_images=7, per_class={**before().per_class, "<i>yak": 12.5})
    page = write_report(tmp_path / "report", *case, before=earlier)
    with (page.parent / "forgotten.csv").open(newline="") as handle:
        cat, yak = csv.DictReader(handle)
    assert cat == {
        **{"class": NAMES[0], "AP_before": "90", "AP_after": "56.4356", "difference": "-33.5644"},
        **{"objects_before": "4", "objects_after": "4", "in": "both"},
    }
    assert (yak["class"], yak["AP_before"], yak["AP_after"], yak["in"]) == (
        *("<i>yak", "12.5", "", "before"),
    )
    text = page.read_text()
    assert "<i>yak" not in text and "<b>base" not in text
    words = " ".join(" ".join(read_page(page).text).split())
    assert "(toy_base, 7 images, without PCB; folder <b>base)" in words
    assert "The test sets differ: 7 images before, 5 after." in words
    assert "mean of 1 class 90.0 56.4 −33.6" in words
    assert "Only in the earlier evaluation, and not in the means: <i>yak." in words
    content = json.loads((page.parent / "report.json").read_text())["forgotten"]
    assert content["mean_difference"] == pytest.approx(-33.5644, abs=1e-4)
    # without the earlier evaluation, the table goes
    write_report(page.parent, *case)
    assert not (page.parent / "forgotten.csv").exists()


@pytest.mark.usefixtures("no_plots")
def test_nothing_changed_and_nothing_defined(tmp_path, case):
    same = before(per_class={NAMES[0]: case[0].per_class[NAMES[0]]})
    words = " ".join(
        " ".join(read_page(write_report(tmp_path / "a", *case, before=same)).text).split()
    )
    assert "mean of 1 class 56.4 56.4 0.0" in words
    undefined = before(per_class={NAMES[0]: -100.0})
    page = write_report(tmp_path / "b", *case, before=undefined)
    words = " ".join(" ".join(read_page(page).text).split())
    assert "mean of 0 classes – – –" in words


def test_a_number_of_pictures_of_each_kind(tmp_path, case):
    folder = write_report(tmp_path / "report", *case, max_pictures=1).parent
    assert len(list((folder / "pictures").rglob("*.jpg"))) == 3
    assert len((folder / "pictures.csv").read_text().splitlines()) == 6
    folder = write_report(tmp_path / "none", *case, max_pictures=0).parent
    assert not (folder / "pictures").exists()
    assert "No picture was drawn" in (folder / "index.html").read_text()


def test_an_earlier_page_is_replaced_but_nothing_else(tmp_path, case):
    folder = write_report(tmp_path / "report", *case).parent
    mine = folder / "pictures" / "ok" / "mine.jpg"
    mine.write_bytes(b"")
    (folder / "metrics.json").write_text("{}")
    write_report(folder, *case, max_pictures=0)
    assert [path for path in (folder / "pictures").rglob("*") if path.is_file()] == [mine]
    assert (folder / "metrics.json").exists()
    other = tmp_path / "other"
    (other / "pictures").mkdir(parents=True)
    (other / "pictures" / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="holds other files"):
        write_report(other, *case)
    (other / "index.html").write_text("<html>mine</html>")
    with pytest.raises(InputError, match="holds other files"):
        write_report(other, *case)
    assert (other / "pictures" / "holiday.jpg").exists()


def test_nothing_found_and_nothing_to_find(tmp_path, case):
    _, info, truth, records, _ = case
    nothing = evaluate(info, truth, [], metric="voc07")
    page = write_report(tmp_path / "a", nothing, info, truth, records, [])
    assert "A class without objects counts as 0" in page.read_text()
    assert len(list((page.parent / "pictures" / "missed").iterdir())) == 4
    empty = {**truth, "annotations": []}
    bare = [replace(one, annotations=()) for one in records]
    page = write_report(
        tmp_path / "b", evaluate(info, empty, [], metric="coco"), info, empty, bare, []
    )
    text = " ".join(" ".join(read_page(page).text).split())
    assert "5 ok, 0 with missed objects, 0 with false detections" in text


def one_class(scores, hits, count, name="cat", group=""):
    return ClassAnalysis(name, group, count, np.array(scores, float), np.array(hits, bool))


def test_plots_name_their_numbers():
    classes = [
        one_class([0.9, 0.6], [1, 0], 2, group="base"),
        one_class([0.8], [1], 1, "dog", "novel"),
    ]
    text = curves_plot(classes)
    for words in ("all (2)", "base (1)", "novel (1)"):
        assert words in text
    assert "base (1)" in curves_plot(classes[:1])
    assert "all (" not in curves_plot(classes[:1])
    assert "hits (2)" in histogram_plot(classes)
    assert "false (1)" in histogram_plot(classes)
    assert "F1: 0.67 with scores from 0.90 on" in class_plot(classes[0])
    assert curves_plot(classes) == text  # the same numbers, the same file
    assert "F1 over the score threshold" in class_plot(one_class([], [], 0))


@pytest.mark.parametrize("scores", [[0.9, 0.6, 0.6, 0.2], [0.9, 0.5, 0.1, -0.2]])
def test_the_line_of_f1_is_f1_at_every_threshold(scores):
    one = one_class(scores, [1, 0, 1, 1], 4)
    thresholds, f1 = f1_steps(one)
    assert (np.diff(thresholds) <= 0).all() and thresholds[-1] == min(0.0, scores[-1])
    for place in range(0, len(f1), 2):
        assert f1[place] == f1[place + 1]
        middle = thresholds[place : place + 2].mean()
        assert f1[place] == pytest.approx(one.at(middle).f1)
        assert f1[place] == pytest.approx(one.at(thresholds[place]).f1)


def test_dark_plots_have_no_dark_ink():
    svg = class_plot(one_class([0.9, 0.6], [1, 0], 2))
    used = [light for light in DARK if light in svg]
    assert len(used) >= 3
    for light in used:
        assert light not in dark(svg)
        assert DARK[light] in dark(svg)


def test_what_is_drawn_on_a_picture():
    box = (1.0, 2.0, 3.0, 4.0)
    picture = Picture(
        7,
        [Finding(0, box, 0.9, "hit"), Finding(1, box, 0.3, "false"), Finding(1, box, 0.5, "hit")],
        [
            Finding(0, box, 0.9, "found"),
            Finding(1, box, 0.0, "missed"),
            Finding(0, box, 0, "ignored"),
        ],
    )
    labels = picture_labels(picture, ("cat", "dog"))
    assert [label.text for label in labels] == [
        *("dog (missed)", "cat (ignored)", "dog 0.30 false", "dog 0.50", "cat 0.90"),
    ]
    assert [label.dashed for label in labels] == [True, False, False, False, False]
    assert [label.faint for label in labels] == [False, True, False, False, False]
    assert len({label.colour for label in labels}) == 4


def test_labels_in_a_given_colour_and_dashed():
    image = np.full((200, 300, 3), 255, np.uint8)
    colour = (10, 20, 230)
    solid = draw_labels(image, [Label((20, 30, 280, 190), 0, "x", colour=colour)])
    dashed = draw_labels(image, [Label((20, 30, 280, 190), 0, "x", dashed=True, colour=colour)])
    line = [(row[60:180, 20] == colour).all(axis=1).mean() for row in (solid, dashed)]
    assert line[0] == 1.0
    assert 0.3 < line[1] < 0.8
    # the box follows when the picture is enlarged to 480 pixels
    small = np.full((20, 30, 3), 255, np.uint8)
    shown = draw_at_viewing_size(small, [Label((10, 10, 20, 20), 0, "x", colour=colour)])
    assert shown.shape == (320, 480, 3)
    assert (shown[240, 160] == colour).all()


def test_from_stored_detections(tmp_path, capsys):
    coco_tree(tmp_path)
    (tmp_path / "c.yaml").write_text(TOY_CONFIG.format(root=tmp_path))
    found = coco_content()["annotations"][0]
    rows = [detection(found["image_id"], found["category_id"], found["bbox"], 0.75)]
    results = tmp_path / "results"
    results.mkdir()
    (results / "detections.json").write_text(json.dumps(rows))
    (results / "metrics.json").write_text(json.dumps({"toy_test_all": {"pcb": False}}))
    flags = [
        *(f"--config_path={tmp_path / 'c.yaml'}", f"--detections={results / 'detections.json'}"),
        f"--output={tmp_path / 'page'}",
    ]
    assert report.main(flags) == 0
    text = capsys.readouterr().out
    assert "gfsod (2 base and 1 novel class), without PCB" in text
    metrics = json.loads((tmp_path / "page" / "metrics.json").read_text())
    assert metrics["per_class_AP50"] == pytest.approx({"cross": 0, "star": -100, "ring": 100})
    assert metrics["pcb"] is False
    assert (tmp_path / "page" / "pictures" / "ok" / "000_b.jpg").is_file()
    # once more, by VOC's rules, and without knowing about the calibration
    (results / "metrics.json").unlink()
    assert not (tmp_path / "page" / "forgotten.csv").exists()
    # and beside what the base detector had on its classes
    earlier = {"metric": "voc07", "num_images": 2, "per_class_AP": {"cross": 25.0, "ring": 50.0}}
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "metrics.json").write_text(json.dumps({"toy_test_base": earlier}))
    base = f"--before={tmp_path / 'base'}"
    assert report.main([*flags, "--test.metric=voc07", "--pictures=0", base]) == 0
    assert json.loads((tmp_path / "page" / "metrics.json").read_text())["metric"] == "voc07"
    with (tmp_path / "page" / "forgotten.csv").open(newline="") as handle:
        losses = [(row["class"], row["AP_after"]) for row in csv.DictReader(handle)]
    assert losses == [("cross", "0"), ("ring", "100")]
    with pytest.raises(InputError, match="by the metric voc07, toy_test_all is judged by coco"):
        report.main([*flags, base])
    with pytest.raises(InputError, match=r"^--before: .*gone does not exist"):
        report.main([*flags, f"--before={tmp_path / 'gone'}"])
    with pytest.raises(InputError, match="choose one of them with --test_set"):
        report.main([*flags, "--data.test=[toy_test_all,toy_test_base]"])
    with pytest.raises(InputError, match=r"--pictures -1 must be 0 or more"):
        report.main([*flags, "--pictures=-1"])
    with pytest.raises(InputError, match="run eval.py first"):
        report.main([*flags[:1], f"--detections={tmp_path / 'no.json'}", flags[2]])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"toy": {"pcb": true}}', True),
        ('{"toy": {"pcb": null}}', None),
        ('{"other": {"pcb": true}}', None),
        ("[]", None),
        ("{", None),
    ],
)
def test_whether_stored_scores_are_calibrated(tmp_path, content, expected):
    folder = tmp_path / "results" / "toy"
    folder.mkdir(parents=True)
    (folder.parent / "metrics.json").write_text(content)
    assert report.known_calibration(folder / "detections.json", "toy") is expected
