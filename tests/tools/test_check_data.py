# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The data check as a user runs it: faults made by hand are found, and the page says so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from src.evaluation.result_folder import INDEX
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.tools import check_data
from tests.helpers.data_helpers import shared, voc_xml, write_image

CONFIG = """
datasets_root: {root}
save_checkpoint_path: {root}/run
data:
  train: [toy_train_all]
  test: [toy_test_all]
  custom:
    toy:
      format: {format}
      train: {{annotations: {train}, images: images}}
      test: {{annotations: {test}, images: images}}
      novel_classes: [dog]
      few_shot: split
input: {{min_size_train: [50, 100], max_size_train: 400, min_size_test: 100, max_size_test: 400}}
model: {{anchors: {{sizes: [30, 62], aspect_ratios: [1.0], stride: 16}}}}
"""
CLASSES = ("cat", "dog")


class Page(HTMLParser):
    """Cells of the tables row by row, text, links, and names of all elements."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.links, self.tags, self.text, self._cell = [], [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert not [name for name, _ in attributes if name.startswith("on")]
        self.links += [value for name, value in attributes if name in ("href", "src")]
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self._cell = []

    def handle_endtag(self, tag):
        if tag == "td":
            self.rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data):
        self.text.append(data)
        if self._cell is not None:
            self._cell.append(data)


def content(pictures, classes=CLASSES):
    """A COCO file: name -> list of (class, x, y, width, height) of pictures of 200 x 100."""
    images, annotations = [], []
    for number, (name, boxes) in enumerate(pictures.items(), start=1):
        images.append({"id": number, "file_name": name, "height": 100, "width": 200})
        for kind, *bbox in boxes:
            entry = {"image_id": number, "category_id": classes.index(kind) + 1, "bbox": bbox}
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **entry})
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_set(root, train, test, classes=CLASSES, form="coco"):
    """Pictures that differ by name, annotation files, and a configuration."""
    for seed, name in enumerate(dict.fromkeys([*train, *test])):
        write_image(root / "images" / name, 100, 200, seed)
    if form == "coco":
        for part, pictures in (("train", train), ("test", test)):
            (root / f"{part}.json").write_text(json.dumps(content(pictures, classes)))
    ending = ".json" if form == "coco" else ""
    text = CONFIG.format(root=root, format=form, train=f"train{ending}", test=f"test{ending}")
    (root / "c.yaml").write_text(text.replace("[dog]", json.dumps(list(classes[1:]))))
    return root


def run(root, *flags, code=0, pictures=0):
    """Run the program; return what check.json holds, and the page."""
    out = root / "out"
    places = [f"--config_path={root / 'c.yaml'}", f"--result_path={out}", f"--pictures={pictures}"]
    assert check_data.main([*places, *flags]) == code
    check = json.loads((out / "check.json").read_text())
    return check, Page((out / "index.html").read_text(encoding="utf-8"))


def kinds(check):
    return {one["kind"]: one for one in check["findings"]}


CLEAN = {f"{n}.png": [("cat", 10, 20, 60, 60), ("dog", 90, 5, 64, 64)] for n in range(25)}
TEST = {f"t{n}.png": [("cat", 0, 0, 64, 60), ("dog", 90, 5, 64, 64)] for n in range(2)}


def test_nothing_is_said_of_clean_data(tmp_path, capsys):
    check, page = run(write_set(tmp_path, CLEAN, TEST))
    assert check["findings"] == []
    assert "Nothing was found." in "".join(page.text)
    out = capsys.readouterr().out
    assert "train toy_train_all: 25 pictures, 50 boxes of 2 classes\n" in out
    assert f"page: {tmp_path / 'out' / 'index.html'}\n" in out
    train, test = check["sets"]
    assert (train["boxes"], train["pictures"], train["pictures_read"]) == (50, 25, 25)
    # at the short edges 50 and 100 the sides are half of that and as they are: 3/4 on average
    assert train["classes"][0] == {
        **{"class": "cat", "group": "base", "boxes": 25, "pictures": 25, "crowd": 0},
        **{"difficult": 0, "not_usable": 0, "size_5": 45.0, "size_median": 45.0, "size_95": 45.0},
    }
    assert train["picture_sizes"]["resized"] == [
        {"short_edge": 50, "short": [50, 50, 50], "long": [100, 100, 100]},
        {"short_edge": 100, "short": [100, 100, 100], "long": [200, 200, 200]},
    ]
    assert test["picture_sizes"]["most_common"] == [{"width": 200, "height": 100, "pictures": 2}]
    # squares of 30 and 60, 32 and 64: the smallest IoU is (62 / 64)^2
    assert train["anchors"]["below_0.7"] == test["anchors"]["below_0.7"] == 0.0
    assert train["anchors"]["chosen"]["sizes"] == [30, 60]  # of 31 and 62, in steps of 2 and 4
    assert sum(train["sizes"]["counts"]) == pytest.approx(50)


def test_page_and_json_say_the_same(tmp_path):
    check, page = run(write_set(tmp_path, {**CLEAN, "z.png": [("cat", 0, 0, 3, 99)]}, TEST))
    for one in check["sets"]:
        for row in one["classes"]:
            cells = [f"{row['class']}{row['group']}", *(str(row[k]) for k in ("boxes", "pictures"))]
            sizes = [f"{row[k]:.1f}" for k in ("size_5", "size_median", "size_95")]
            assert [*cells, "0", "0", "0", *sizes] in page.rows
        shares = [f"{100 * one['anchors'][f'below_{t}']:.1f} %" for t in (0.5, 0.7)]
        assert ["configured", "30, 62", "1", *shares] in page.rows
        chosen = one["anchors"]["chosen"]
        shares = [f"{100 * chosen[f'below_{t}']:.1f} %" for t in (0.5, 0.7)]
        assert ["chosen sizes", ", ".join(map(str, chosen["sizes"])), "1", *shares] in page.rows
    text = "".join(page.text)
    assert check["findings"] and all(one["text"] in text for one in check["findings"])
    assert ["more than 20 times as long as wide", "1"] in page.rows


def test_the_folder_is_complete(tmp_path):
    _, page = run(write_set(tmp_path, CLEAN, TEST), pictures=4)
    out = tmp_path / "out"
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    links = {link for link in page.links if not link.startswith("#")}
    assert links == {"check.json", *(f"sheets/set{s}_class00{c}.jpg" for s in "01" for c in "01")}
    assert files == links | {"index.html", INDEX, ".results.lock"}
    assert not re.search(r"https?:|//[a-z]|@import|url\(", (out / "index.html").read_text())
    with Image.open(out / "sheets" / "set0_class000.jpg") as sheet:
        assert sheet.size == (4 * 420, 210)


def test_faults_are_found(tmp_path, capsys):
    train = {
        **CLEAN,
        "empty.png": [],
        "missing.png": [("cat", 1, 1, 50, 50)],
        "corrupt.png": [("cat", 1, 1, 50, 50)],
        "turned.png": [("cat", 1, 1, 50, 50)],
        "copy.png": [("cat", 10, 20, 60, 60)],
        "wrong.png": [("cat", 150, 50, 90, 20), ("dog", 5, 5, 0, 9), ("cat", 0, 0, 200, 100)]
        + [("dog", 20, 20, 40, 40)] * 2
        + [("cat", 20, 20, 40, 40)],
    }
    root = write_set(tmp_path, train, {**TEST, "leak.png": [("cat", 10, 20, 60, 60)]})
    images = root / "images"
    (images / "missing.png").unlink()
    (images / "corrupt.png").write_bytes((images / "corrupt.png").read_bytes()[:500])
    write_image(images / "turned.png", 200, 100, 77)
    shutil.copy(images / "0.png", images / "copy.png")
    shutil.copy(images / "1.png", images / "leak.png")
    check, page = run(root, code=1)
    found = kinds(check)
    assert [one["weight"] for one in check["findings"]] == sorted(
        (one["weight"] for one in check["findings"]), key=("error", "warning", "hint").index
    )
    assert found["leak_same"]["items"] == ["toy_train_all: 1.png = toy_test_all: leak.png"]
    assert found["duplicates_same"]["items"] == ["toy_train_all: 0.png = toy_train_all: copy.png"]
    assert [item.partition(":")[0] for item in found["problems"]["items"]] == [
        *("missing.png", "corrupt.png", "turned.png")
    ]
    assert "3 pictures of 31 cannot be used" in found["problems"]["text"]
    assert "sizes and boxes must be those after the EXIF" in found["problems"]["items"][2]
    assert found["empty"]["text"].startswith("toy_train_all: 1 picture has no usable box, of 31")
    assert "data.filter_empty: false" in found["empty"]["text"]
    assert found["no_area"]["items"] == ["wrong.png: dog (5, 5, 5, 14)"]
    assert found["outside"]["items"] == ["wrong.png: cat (150, 50, 240, 70)"]
    assert found["whole_picture"]["items"] == ["wrong.png: cat (0, 0, 200, 100)"]
    assert found["twice"]["items"] == ["wrong.png: dog (20, 20, 60, 60)"]
    assert found["two_classes"]["items"] == ["wrong.png: cat (20, 20, 60, 60)"]
    # 31 + 31 usable boxes; the empty one is not
    assert [row["boxes"] for row in check["sets"][0]["classes"]] == [32, 27]
    assert check["sets"][0]["classes"][1]["not_usable"] == 1
    assert "wrong.png: cat (150, 50, 240, 70)" in "".join(page.text)
    assert "error: toy_train_all, toy_test_all: 1 picture is in training and in test" in (
        capsys.readouterr().out
    )


def test_near_pictures_and_filter_empty(tmp_path):
    """A picture of training saved anew for the test set; pictures without boxes are kept."""
    root = write_set(tmp_path, {**CLEAN, "empty.png": []}, {**TEST, "again.jpg": []})
    with Image.open(root / "images" / "3.png") as image:
        image.save(root / "images" / "again.jpg", quality=70)
    check, _ = run(root, "--data.filter_empty=false")
    found = kinds(check)
    assert found["leak_near"]["items"] == ["toy_train_all: 3.png = toy_test_all: again.jpg"]
    assert found["leak_near"]["weight"] == "warning"
    texts = [one["text"] for one in check["findings"] if one["kind"] == "empty"]
    assert "all in them is background (data.filter_empty: true" in texts[0]
    assert "every detection in them counts as false" in texts[1]


def test_one_file_in_both_parts(tmp_path):
    root = write_set(tmp_path, CLEAN, {"0.png": CLEAN["0.png"], "t.png": CLEAN["0.png"]})
    check, _ = run(root, code=1)
    assert kinds(check)["leak_same"]["items"] == ["toy_train_all: 0.png = toy_test_all: 0.png"]
    check, _ = run(root, "--data.test=[toy_train_all]", code=1)
    assert len(kinds(check)["leak_same"]["items"]) == 25


def test_an_empty_set_and_a_class_without_boxes(tmp_path):
    root = write_set(tmp_path, {}, {"t.png": []})
    check, page = run(root, code=1)
    found = kinds(check)
    assert [(one["kind"], one["weight"]) for one in check["findings"]] == [
        *(("no_boxes", "error"), ("no_boxes", "warning"))
    ]
    assert found["no_boxes"]["text"].startswith("toy_test_all: none of 1 picture has a box")
    assert check["sets"][0]["classes"][0]["size_median"] is None
    assert ["cat" + "base", "0", "0", "0", "0", "0", "–", "–", "–"] in page.rows
    write_set(tmp_path, {name: boxes[:1] for name, boxes in CLEAN.items()}, TEST)
    check, _ = run(root)
    assert (found := kinds(check)["class_without_boxes"])["items"] == ["dog"]
    assert found["text"].startswith("toy_train_all: 1 class has no box (it cannot be learned)")


def test_few_boxes_small_objects_and_sizes(tmp_path):
    """Squares of 4 (2 and 4 in the model) and 100 (50 and 100) beside anchors of 16 and 150.

    Shares below 0.5: 16 (2, 4: 1 / 64, 1 / 16), 150 (100^2 / 150^2 = 0.44; 50: less) are all bad.
    Chosen are the middles of the logarithms, the roots of 8 and 5000: 2.8 and 70.7, rounded 3 and
    72: 2^2 / 3^2 = 0.44 and 50^2 / 72^2 = 0.48 stay bad, 3^2 / 4^2 and 72^2 / 100^2 = 0.52 not.
    """
    train = {f"{n}.png": [("cat", 1, 1, 4, 4), ("dog", 0, 0, 100, 100)] for n in range(30)}
    flag = "--model.anchors.sizes=[16,150]"
    found = kinds(run(write_set(tmp_path, train, TEST), flag)[0])
    assert found["anchor_sizes"]["weight"] == "warning"
    assert "100.0% of the boxes have no anchor" in found["anchor_sizes"]["text"]
    assert "model.anchors.sizes: [3, 72] it would be 50.0%" in found["anchor_sizes"]["text"]
    assert len(found["out_of_reach"]["items"]) == 30
    assert "input.min_size_train" in found["out_of_reach"]["text"]
    assert found["small_objects"]["items"] == ["cat: 3.0 pixels"]
    found = kinds(run(write_set(tmp_path, {"0.png": [("cat", 10, 10, 50, 50)]}, TEST))[0])
    assert found["few_boxes"]["items"] == ["cat: 1 box"]


def few_shot_files(root, shots, names=CLASSES):
    for name, pictures in shots.items():
        path = root / "split" / "seed0" / f"full_box_3shot_{name}_trainval.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = content({**dict.fromkeys(CLEAN, ()), **pictures}, names)
        file["images"] = [one for one in file["images"] if one["file_name"] in pictures]
        path.write_text(json.dumps(file))


def test_a_k_shot_set(tmp_path):
    """Two cats of three, no usable dog; pictures show a cat and three dogs more."""
    root = write_set(tmp_path, CLEAN, {**TEST, "t9.png": []})
    cats = {"0.png": [CLEAN["0.png"][0]], "1.png": [CLEAN["1.png"][0]]}
    dogs = {"2.png": [("dog", 5, 5, 0, 10), ("dog", 5, 5, 0, 11), ("dog", 5, 5, 0, 12)]}
    few_shot_files(root, {"cat": cats, "dog": dogs})
    shutil.copy(root / "images" / "1.png", root / "images" / "t9.png")
    flags = ("--data.train=[toy_train_all_3shot_seedx]", "--shot_seed=0")
    check, page = run(root, *flags, code=1)
    found = kinds(check)
    assert found["leak_same"]["items"] == [
        "toy_train_all_3shot_seed0: 1.png = toy_test_all: t9.png"
    ]
    assert found["shots_lacking"]["items"] == ["cat: 2 of 3", "dog: 0 of 3"]
    assert found["shots_unlabelled"]["items"] == [
        *("cat: 1 without a box, 2 with one", "dog: 3 without a box, 0 with one")
    ]
    assert ["catbase", "3", "2", "2", "45.0", "25", "45.0", "1", "–"] in page.rows
    assert found["class_without_boxes"]["items"] == ["dog"]
    assert "few_boxes" not in found and "anchor_sizes" not in found
    (one,) = check["few_shot"]
    assert one["full_sets"] == ["toy_train_all"] and one["full_problem"] == ""
    # without the file of a class nothing can be read
    (root / "split" / "seed0" / "full_box_3shot_dog_trainval.json").unlink()
    with pytest.raises(InputError, match="no file for class 'dog'"):
        run(root, *flags)


def test_a_k_shot_set_without_its_full_set(tmp_path, monkeypatch):
    """VOC's K-shot lists of one's own name pictures of the training folder, here a broken one."""
    root = write_set(tmp_path, CLEAN, TEST)
    cats = {f"{n}.png": [CLEAN["0.png"][0]] for n in range(3)}
    dogs = {f"{n}.png": [CLEAN["0.png"][1]] for n in range(3)}
    few_shot_files(root, {"cat": cats, "dog": dogs})
    file = content(CLEAN)
    file["annotations"][4]["bbox"] = [1, 2]
    (root / "train.json").write_text(json.dumps(file))
    check, page = run(root, "--data.train=[toy_train_all_3shot_seed0]")
    assert [one["kind"] for one in check["findings"]] == ["shots_alone"]
    assert "is not a list of four numbers" in check["few_shot"][0]["full_problem"]
    assert ["catbase", "3", "3", "3", "45.0", "–", "–", "–", "–"] in page.rows


def test_foreign_names_are_escaped(tmp_path, capsys):
    evil = "<script>alert(1)<&script>"
    name = '<img src=x onerror=alert(2)>\n".png'
    train = {name: [(evil, 10, 10, 50, 50)] * 2, "b.png": [("cat", 1, 1, 50, 50)]}
    root = write_set(tmp_path, train, TEST | {"t9.png": []}, (*CLASSES, evil))
    check, page = run(root, pictures=1)
    assert check["sets"][0]["classes"][2]["class"] == evil
    assert any(name in item for item in kinds(check)["twice"]["items"])
    text = (tmp_path / "out" / "index.html").read_text()
    assert text.count("<script") == 1 and "<img src=x" not in text
    assert f"{name}: {evil} (10, 10, 60, 60)" in "".join(page.text)
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert not [path for path in (tmp_path / "out").rglob("*") if "img" in path.name]


def test_only_some_pictures_are_decoded(tmp_path):
    root = write_set(tmp_path, CLEAN, TEST)
    shutil.copy(root / "images" / "7.png", root / "images" / "t1.png")
    (root / "images" / "24.png").unlink()
    check, _ = run(root, "--max_pictures=5", code=1, pictures=1)
    found = kinds(check)
    assert check["sets"][0]["pictures_read"] == 5  # 0.png is drawn, and among the five
    assert found["not_read"]["text"].startswith("toy_train_all: 19 of 25 pictures were compared")
    assert found["leak_same"]["items"] == ["toy_train_all: 7.png = toy_test_all: t1.png"]
    assert found["problems"]["items"] == ["24.png: cannot be read (No such file or directory)"]
    check, page = run(root, "--max_pictures=0", code=1)
    assert check["sets"][0]["pictures_read"] == 0
    assert not (tmp_path / "out" / "sheets").exists()
    for flag in ("--max_pictures=-1", "--pictures=-1"):
        with pytest.raises(InputError, match=f"{flag.replace('=', ' ')} must be 0 or more"):
            run(root, flag)


def test_settings_that_programs_refuse(tmp_path):
    root = write_set(tmp_path, CLEAN, TEST)
    check, _ = run(root, "--data.test=[toy_test_novel]", "--model.num_classes=3", code=1)
    errors = [one["kind"] for one in check["findings"] if one["weight"] == "error"]
    assert errors == ["num_classes", "classes"]
    with pytest.raises(InputError, match="have different classes"):
        run(root, "--data.train=[toy_train_all,toy_train_base]")
    (root / "test.json").write_text("{")
    with pytest.raises(InputError, match=r"test\.json cannot be read as JSON"):
        run(root)


def test_oddities(tmp_path):
    root = write_set(tmp_path, CLEAN, TEST)
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(root / "images" / "0.png", 200, 100, 5, exif=exif)  # 100 x 200 once turned
    Image.new("I;16", (200, 100), 900).save(root / "images" / "1.png")
    found = kinds(run(root, "--input.min_size_test=400", "--input.max_size_test=800")[0])
    assert (found["rotated"]["items"], found["deep"]["items"]) == (["0.png"], ["1.png"])
    assert found["enlarged"]["text"].startswith("toy_test_all: 2 pictures of 2 are enlarged")


def test_voc_format(tmp_path):
    """Corners count from 1; a difficult object is one; a K-shot list has a record an object."""
    root = write_set(tmp_path, dict.fromkeys(("a.png", "b.png"), ()), {}, form="voc")
    objects = [("cat", 11, 21, 70, 80, 0), ("dog", 91, 6, 154, 69, 1)]
    for part, name in (("train", "a"), ("test", "b")):
        (root / part).mkdir()
        (root / part / f"{name}.xml").write_text(voc_xml(100, 200, objects, f"{name}.png"))
    (root / "split" / "seed0").mkdir(parents=True)
    for name in CLASSES:
        (root / "split" / "seed0" / f"box_1shot_{name}_train.txt").write_text("a.png\n")
    check, page = run(root, "--data.train=[toy_train_all_1shot_seed0]")
    train = check["sets"][0]
    assert (train["pictures"], train["boxes"]) == (1, 2)
    assert [row["difficult"] for row in train["classes"]] == [0, 1]
    assert check["findings"] == []
    assert ["dognovel", "1", "1", "1", "48.0", "1", "48.0", "0", "–"] in page.rows


def test_where_the_page_goes(tmp_path, capsys):
    root = write_set(tmp_path, CLEAN, TEST)
    for _ in range(2):  # an earlier page is replaced
        assert check_data.main([f"--config_path={root / 'c.yaml'}", "--pictures=1"]) == 0
    place = root / "run" / "check_data"
    assert f"page: {place / 'index.html'}" in capsys.readouterr().out
    assert len(list((place / "sheets").iterdir())) == 4
    (root / "other").mkdir()
    (root / "other" / "index.html").write_text("mine")
    with pytest.raises(InputError, match="other holds other files; name a new or empty folder"):
        check_data.main([f"--config_path={root / 'c.yaml'}", f"--result_path={root / 'other'}"])
    assert (root / "other" / "index.html").read_text() == "mine"


def test_exit_codes(tmp_path):
    """As a process: 1 with errors among the findings, 1 and one sentence if a set is not there."""
    root = write_set(tmp_path, {**CLEAN, "empty.png": []}, TEST)
    command = [sys.executable, "-m", "src.tools.check_data", f"--config_path={root / 'c.yaml'}"]
    (root / "images" / "0.png").unlink()
    (root / "images" / "t0.png").unlink()
    found = subprocess.run(command, cwd=project_folder(), capture_output=True, text=True)
    assert (found.returncode, found.stdout.count("error: ")) == (1, 2)
    (root / "train.json").unlink()
    found = subprocess.run(command, cwd=project_folder(), capture_output=True, text=True)
    assert found.returncode == 1
    assert re.fullmatch(
        r"error: annotation file \S+train\.json does not exist.*", (found.stderr.strip())
    )


def test_real_blood_cells(tmp_path):
    """Counts of the data's own notes; objects without a box counted from the files themselves."""
    cells = shared("byo_bccd")
    (tmp_path / "bccd").symlink_to(cells)
    flags = [f"--datasets_root={tmp_path}", f"--result_path={tmp_path / 'out'}", "--pictures=0"]
    config = project_folder() / "configs" / "own" / "bccd_gfsod_10shot.yaml"
    flags += ["--data.custom.bccd.few_shot=bccd/cocosplit", "--max_pictures=0"]
    assert check_data.main([f"--config_path={config}", *flags]) == 0
    check = json.loads((tmp_path / "out" / "check.json").read_text())
    assert {row["class"]: row["boxes"] for row in check["sets"][1]["classes"]} == {
        **{"RBC": 805, "WBC": 71, "Platelets": 69}
    }
    rows = check["few_shot"][0]["classes"]
    assert [row["full_boxes"] for row in rows] == [3348, 301, 292]
    assert [row["boxes"] for row in rows] == [10, 10, 10]
    full = json.loads((cells / "annotations" / "instances_trainval.json").read_text())
    files = sorted((cells / "cocosplit" / "seed0").glob("full_box_10shot_*.json"))
    drawn = [one for path in files for one in json.loads(path.read_text())["annotations"]]
    pictures = {one["image_id"] for one in drawn}
    there = [one["category_id"] for one in full["annotations"] if one["image_id"] in pictures]
    assert [row["without_box"] for row in rows] == [there.count(n) - 10 for n in (1, 2, 3)]
