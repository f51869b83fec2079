# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""`python -m src.predict`: equal to eval.py, on every kind of picture, on videos, on bad files."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

import eval as evaluation
from src.assembly import training as assembly
from src.assembly.data import read_sets
from src.data.batching import Preprocessing
from src.dataset import EvalLoader, load_dataset
from src.demo.make_data import make_demo_data
from src.evaluation.result_folder import INDEX
from src.model_utils.config import load_config
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.model_utils.folder_lock import RESULTS_LOCK
from src.model_utils.paths import project_folder
from src.predict import checkpoint, inputs, look
from src.predict.__main__ import main
from src.tools import draw_kshot
from src.weights.checkpoint import save_checkpoint
from src.weights.initialise import initialise
from tests.helpers.trained import configuration

ARRAYS = ("images", "image_sizes", "padded_size", "original_sizes")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures, a configuration, and a checkpoint with random weights."""
    root = tmp_path_factory.mktemp("project")
    make_demo_data(root / "shapes", seed=0, num_train=3, num_test=3)
    settings = configuration(root)
    settings["input"].update(min_size_test=64, max_size_test=100)
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    config = load_config(path)
    info, _ = read_sets(config, ("shapes_test_base",))
    net = assembly.make_detector(config, info.class_names)
    initialise(net, 3)
    params = {p.name: p.asnumpy().copy() for p in net.get_parameters()}
    rng = np.random.default_rng(0)
    for name, array in params.items():
        if "cls_score" in name or "rpn_head" in name or "bbox_pred" in name:
            array += rng.normal(0, 0.1, array.shape).astype(np.float32)
    manifest_info = {"class_names": list(info.class_names)}
    save_checkpoint(root / "run" / "ckpt_0", 3, params, {"seed": np.array(0)}, manifest_info)
    return SimpleNamespace(root=root, config=path, info=info, images=root / "shapes/images/test")


@pytest.fixture(scope="module")
def evaluated(place):
    """eval.py's detections by file name."""
    flags = [f"--config_path={place.config}", f"--eval_checkpoint_path={place.root / 'run'}"]
    assert evaluation.main([*flags, f"--result_path={place.root / 'evaluated'}"]) == 0
    rows = json.loads((place.root / "evaluated" / "detections.json").read_text())
    table = json.loads((place.root / "shapes/annotations/test.json").read_text())
    names = {entry["id"]: entry["file_name"] for entry in table["images"]}
    found = {name: [] for name in names.values()}
    for row in rows:
        found[names[row["image_id"]]].append(row)
    return found


@pytest.fixture(scope="module")
def compiled():
    """The compiled steps, by formulation: one network of this module's weights does for all."""
    return {}


@pytest.fixture(autouse=True)
def one_compilation(request, compiled, monkeypatch):
    """Compile once for this module, but for the test that goes the whole way."""
    if request.node.name == "test_equal_to_evaluation":
        return
    make = checkpoint.make_inference

    def remembered(config, net):
        key = config.input.input_shapes
        if key not in compiled:
            compiled[key] = make(config, net)
        return compiled[key]

    monkeypatch.setattr(checkpoint, "make_inference", remembered)
    monkeypatch.setattr(evaluation, "make_inference", remembered)


def go(place, source, result, *more, expect=0):
    """Run predict; return detections.json."""
    flags = [
        f"--config_path={place.config}",
        f"--eval_checkpoint_path={place.root / 'run'}",
        f"--input_path={source}",
        f"--result_path={result}",
        "--score_threshold=0",
        *more,
    ]
    assert main(flags) == expect
    return json.loads((result / "detections.json").read_text())


def plain(detection):
    return detection["category_id"], detection["score"], *detection["bbox_xywh"]


def test_equal_to_evaluation(place, evaluated, tmp_path, capsys):
    found = go(place, place.images, tmp_path / "out")
    assert [entry["file"] for entry in found["images"]] == sorted(evaluated)
    total = 0
    for entry in found["images"]:
        rows = sorted(evaluated[entry["file"]], key=lambda row: -row["score"])
        wanted = [(row["category_id"], row["score"], *row["bbox"]) for row in rows]
        assert [plain(one) for one in entry["detections"]] == wanted
        total += len(wanted)
        drawn = Image.open(tmp_path / "out" / entry["picture"])
        assert max(drawn.size) == 480  # small pictures are enlarged for the labels
    assert total == 15 == sum(len(entry["detections"]) for entry in found["images"])
    one = found["images"][0]["detections"][0]
    x, y, width, height = one["bbox_xywh"]
    assert one["bbox_xyxy"] == [x, y, x + width, y + height]
    labels = dict(zip(place.info.category_ids, place.info.class_names))
    assert one["label"] == labels[one["category_id"]]
    assert found["complete"] is True and found["problems"] == []
    assert found["category_ids"] == "of the data set" and found["calibrated"] is False
    assert (tmp_path / "out" / "sheet.png").is_file()
    out = capsys.readouterr().out
    assert "3 images" in out and "| detections" in out.replace("  ", " ")


def test_input_is_bit_equal_to_evaluations(place, tmp_path):
    loader = EvalLoader(
        place.root / "mindrecord" / "test", Preprocessing(max_size=100), min_size=64
    )
    settings = Preprocessing(100, (103.53, 116.28, 123.675), (1.0,) * 3, (), 1, 10**8)
    for wanted in loader:
        image, notes = inputs.read_image(Path(wanted.file_names[0]), 10**8)
        batch = inputs.make_batch(image, "x", 64, settings)
        assert notes == []
        for name in ARRAYS:
            assert np.array_equal(getattr(batch, name), getattr(wanted, name)), name
            assert getattr(batch, name).dtype == getattr(wanted, name).dtype
    shapes = Preprocessing(100, (0.0,) * 3, (2.0,) * 3, ((128, 128),), 1, 10**8)
    assert inputs.make_batch(image, "x", 64, shapes).images.shape == (1, 3, 128, 128)
    small = Preprocessing(100, (0.0,) * 3, (2.0,) * 3, ((32, 32),), 1, 10**8)
    with pytest.raises(InputError, match=r"x: input_shapes: none of"):
        inputs.make_batch(image, "x", 64, small)


def test_threshold(place, evaluated, tmp_path):
    scores = sorted(row["score"] for rows in evaluated.values() for row in rows)
    middle = scores[7]
    found = go(place, place.images, tmp_path, f"--score_threshold={middle!r}")
    kept = sorted(one["score"] for entry in found["images"] for one in entry["detections"])
    assert kept == [score for score in scores if score >= middle]


def test_one_picture(place, evaluated, tmp_path):
    path = sorted(place.images.iterdir())[1]
    found = go(place, path, tmp_path)
    (entry,) = found["images"]
    assert entry["file"] == path.name
    assert {one["score"] for one in entry["detections"]} == {
        row["score"] for row in evaluated[path.name]
    }


def save(path, pixels, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)


@pytest.fixture
def strange(tmp_path):
    """Pictures of every kind that people have, some of them broken."""
    folder = tmp_path / "strange"
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (60, 90), np.uint8)
    colour = rng.integers(0, 255, (60, 90, 3), np.uint8)
    save(folder / "grey.png", grey)
    save(folder / "grey16.png", grey.astype(np.uint16) * 256 + 99)
    save(folder / "sub" / "alpha.png", np.dstack([colour, grey]))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "turned.jpg", colour, exif=exif.tobytes())
    frames = [Image.fromarray(colour), Image.fromarray(255 - colour)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(grey).convert("P").save(folder / "palette.gif")
    save(folder / "UPPER.PNG", colour)
    (folder / "cut.jpg").write_bytes((folder / "turned.jpg").read_bytes()[:300])
    (folder / "text.png").write_text("no picture")
    (folder / "nothing.png").write_bytes(b"")
    Image.fromarray(np.ones((8, 8), np.float32)).save(folder / "float.tif")
    (folder / "notes.txt").write_text("mine")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def test_strange_pictures(place, strange, capsys):
    found = go(place, strange, strange / "out", expect=1)
    names = [entry["file"] for entry in found["images"]]
    assert names == [
        "UPPER.PNG",
        "grey.png",
        "grey16.png",
        "moving.gif",
        "palette.gif",
        "turned.jpg",
        "sub/alpha.png",
    ]
    by_name = {entry["file"]: entry for entry in found["images"]}
    assert (by_name["turned.jpg"]["width"], by_name["turned.jpg"]["height"]) == (60, 90)
    assert by_name["grey16.png"]["detections"] == by_name["grey.png"]["detections"]
    assert by_name["grey16.png"]["notes"] == ["16 bits a pixel, brought to 8"]
    assert by_name["moving.gif"]["notes"] == ["first of 2 frames"]
    assert (strange / "out" / "pictures" / "sub" / "alpha.png.png").is_file()
    reasons = {entry["file"]: entry["reason"] for entry in found["problems"]}
    assert sorted(reasons) == ["cut.jpg", "float.tif", "nothing.png", "text.png"]
    assert "32 bits" in reasons["float.tif"] and "not a readable image" in reasons["text.png"]
    assert "error: cut.jpg" in capsys.readouterr().err
    # the results lie inside, and are not looked at themselves
    again = go(place, strange, strange / "out", expect=1)
    assert again["images"] == found["images"]


def test_names_that_nothing_can_be_written_under(place, tmp_path, capfd):
    folder = tmp_path / "pictures"
    colour = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    for name in ("a.png", "a.png.png/b.png", f"{'n' * 245}.png", f"{'ä' * 116}.png"):
        save(folder / name, colour)
    for kind in (b"png", b"txt"):
        shutil.copy(folder / "a.png", os.fsencode(folder) + b"/bild\xe9." + kind)
    shutil.copy(folder / "a.png", folder / f"{'l' * 250}.png")  # its drawn one: 258 bytes
    found = go(place, folder, tmp_path / "out", expect=1)
    names = [entry["file"] for entry in found["images"]]
    assert names == ["a.png", f"{'n' * 245}.png", f"{'ä' * 116}.png"]
    reasons = [problem["reason"] for problem in found["problems"]]
    assert len(reasons) == 3
    assert r"bild\udce9.png': this name is not UTF-8; rename it" in reasons[0]
    assert reasons[1].endswith(
        "lll.png: its drawn picture has no place (File name too long); rename it"
    )
    assert reasons[2].startswith("a.png.png/b.png: its drawn picture has no place (")
    assert r"bild\udce9.txt' is no picture" in capfd.readouterr().out
    for entry in found["images"]:
        assert (tmp_path / "out" / entry["picture"]).is_file()
        label = tmp_path / "out" / "yolo" / "labels" / Path(entry["file"]).with_suffix(".txt")
        assert label.is_file()
    for words in ([folder / "bild\udce9.png", tmp_path / "out"], [folder, tmp_path / "\udce9"]):
        with pytest.raises(InputError, match=r"^(input|result)_path: .*\\udce9.* is not UTF-8"):
            go(place, *words)


def test_linked_folders_are_looked_at_once(place, tmp_path):
    folder, other = tmp_path / "pictures", tmp_path / "other"
    colour = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    for path in (folder / "a.png", folder / "sub" / "b.png", other / "c.png"):
        save(path, colour)
    for name, target in (("loop", folder), ("again", folder / "sub"), ("other", other)):
        (folder / name).symlink_to(target)
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    found = go(place, folder, tmp_path / "out")
    assert [one["file"] for one in found["images"]] == ["a.png", "other/c.png", "sub/b.png"]


def test_a_threshold_below_the_detectors_is_named(place, tmp_path, capfd):
    found = go(place, place.images, tmp_path, "--test.score_threshold=0.02")
    said = capfd.readouterr().out
    assert "--score_threshold 0 is below 0.02, under which the detector finds" in said
    assert found["score_threshold"] == 0 and found["detector_score_threshold"] == 0.02
    assert min(one["score"] for entry in found["images"] for one in entry["detections"]) > 0.02


def test_labels_are_read_back_as_a_data_set(place, strange, tmp_path):
    """Pictures, a link beside the labels: what is predicted is a data set in YOLO format."""
    folder = tmp_path / "pictures"
    shutil.copytree(place.images, folder / "shapes")
    shutil.copy(strange / "turned.jpg", folder)
    found = go(place, folder, tmp_path / "out")
    (tmp_path / "out" / "yolo" / "images").symlink_to(folder)
    part = CustomSource(annotations="yolo/data.yaml", images="yolo/images")
    custom = {"back": CustomDataset(format="yolo", train=part, test=part)}
    info, records = load_dataset(["back_train_all"], datasets_root=tmp_path / "out", custom=custom)
    assert info.class_names == place.info.class_names
    entries = {entry["file"]: entry for entry in found["images"]}
    assert len(records) == len(entries) == 4
    for record in records:
        entry = entries[record.image_id]
        assert (record.height, record.width) == (entry["height"], entry["width"])
        assert len(record.annotations) == len(entry["detections"]) == 5
        for one, detection in zip(record.annotations, entry["detections"]):
            assert info.class_names[one.category_id] == detection["label"]
            np.testing.assert_allclose(one.bbox, detection["bbox_xywh"], rtol=1e-4, atol=1e-4)
    tasks = json.loads((tmp_path / "out" / "label_studio.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        f"/data/local-files/?d=pictures/{name}" for name in entries
    ]
    results = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert [(row["category_id"], row["score"], *row["bbox"]) for row in results] == [
        plain(one) for entry in found["images"] for one in entry["detections"]
    ]


def test_corrected_labels_become_k_shot_sets(place, tmp_path, monkeypatch):
    """By the commands of docs/own_data.md, step 8, for another configuration."""
    tutorial = (project_folder() / "docs" / "own_data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(    more:\n.*?)```", tutorial, re.DOTALL)
    (copy,) = re.findall(r"^cp -r predictions/yolo .*$", tutorial, re.MULTILINE)
    (draw,) = re.findall(r"python -m src.tools.draw_kshot (.* --dataset=more .*)", tutorial)
    (train,) = re.findall(r"--data\.train=\S*more_\S+", tutorial)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place.images, "pictures")
    Path("datasets").mkdir()
    go(place, "pictures", tmp_path / "predictions")
    subprocess.run(["bash", "-c", copy], check=True)

    # what a person would do: every class is found
    names = yaml.safe_load(Path("datasets/more/data.yaml").read_text())["names"]
    number = 0
    for path in sorted(Path("datasets/more/labels").iterdir()):
        lines = [line.split() for line in path.read_text().splitlines()]
        for line in lines:
            line[0] = str(number % len(names))
            number += 1
        path.write_text("".join(" ".join(line) + "\n" for line in lines))
    assert number >= len(names)

    settings = yaml.safe_load(place.config.read_text())
    more = yaml.safe_load(block)["more"]
    settings["data"]["custom"]["more"] = {**more, "novel_classes": [names[0]]}
    settings["datasets_root"] = "datasets"
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump(settings))
    words = draw.replace("configs/own/bccd_base.yaml", str(config)).replace(" 10", " 1").split()
    with pytest.raises(InputError, match=r"2 data sets \(more, shapes\); name one with --dataset"):
        draw_kshot.main([word for word in words if word != "--dataset=more"])
    assert draw_kshot.main(words) == 0
    flag = train.replace("10shot", "1shot")
    loaded = load_config(config, [flag])
    info, (record,) = read_sets(loaded, loaded.data.train)
    assert info.class_names == (names[0],) and len(record.annotations) == 1
    assert Path(record.file_name).is_file()


def test_a_picture_over_the_limit_is_left_out(place, strange):
    found = go(place, strange, strange / "out", "--data.max_image_pixels=5000", expect=1)
    assert found["images"] == []
    assert "over the limit of 5000" in found["problems"][0]["reason"]


def test_picture_without_manifest_of_classes(place, tmp_path):
    """Converted weights say nothing of classes: then the test set's are taken."""
    shutil.copy(place.root / "run" / "ckpt_0" / "defrcn-3.ckpt", tmp_path / "converted.ckpt")
    path = sorted(place.images.iterdir())[0]
    flags = [f"--eval_checkpoint_path={tmp_path / 'converted.ckpt'}"]
    found = go(place, path, tmp_path / "out", *flags)
    assert [entry["label"] for entry in found["classes"]] == list(place.info.class_names)
    with pytest.raises(InputError, match=r"annotations"):
        go(place, path, tmp_path / "out", *flags, f"--datasets_root={tmp_path / 'gone'}")


def test_no_data_set_is_needed(place, evaluated, tmp_path):
    path = sorted(place.images.iterdir())[0]
    found = go(place, path, tmp_path, f"--datasets_root={tmp_path / 'gone'}")
    assert [entry["label"] for entry in found["classes"]] == list(place.info.class_names)
    assert [entry["category_id"] for entry in found["classes"]] == list(range(1, 10))
    assert found["category_ids"].startswith("class index + 1")
    wanted = sorted(row["score"] for row in evaluated[path.name])
    assert sorted(one["score"] for one in found["images"][0]["detections"]) == wanted


def test_calibration(place, evaluated, tmp_path, monkeypatch):
    """The block gets every picture's detections, and its scores are those that count."""
    seen = []

    class Halve:
        def __call__(self, file_name, boxes, scores, classes):
            seen.append((file_name, len(boxes)))
            if "000001" in file_name:
                raise InputError(f"{file_name}: OpenCV cannot decode this picture")
            return scores / 2

        def on_pixels(self, pixels, boxes, scores, classes):
            seen.append((pixels.shape, len(boxes)))
            return scores / 4

    made = []

    def make(config, info, checkpoint):
        made.append((config.test.pcb.enable, info.class_names, checkpoint))
        return Halve()

    monkeypatch.setattr(checkpoint, "make_calibrator", make)
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = sorted(evaluated)
    for number, name in enumerate(names):
        shutil.copy(place.images / name, folder / f"00000{number}.png")
    found = go(place, folder, tmp_path / "out", expect=1)
    assert made == [(False, place.info.class_names, place.root / "run/ckpt_0/defrcn-3.json")]
    assert seen == [(str(folder / f"00000{n}.png"), 5) for n in range(3)]
    assert found["calibrated"] is True
    assert [entry["file"] for entry in found["images"]] == ["000000.png", "000002.png"]
    assert found["problems"][0]["file"] == "000001.png"
    wanted = sorted(np.float32(row["score"]) / 2 for row in evaluated[names[0]])
    assert sorted(one["score"] for one in found["images"][0]["detections"]) == wanted


def make_video(path, fourcc, count, size=(91, 61), fps=12.5):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), fps, size)
    assert writer.isOpened()
    for number in range(count):
        frame = np.full((size[1], size[0], 3), 20 * number, np.uint8)
        cv2.rectangle(frame, (10 + 5 * number, 10), (40 + 5 * number, 40), (0, 0, 255), -1)
        writer.write(frame)
    writer.release()


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, frame = capture.read()
        if not good:
            break
        frames.append(frame)
    return capture.get(cv2.CAP_PROP_FPS), frames


@pytest.mark.parametrize(("name", "fourcc"), [("clip.mp4", "mp4v"), ("clip.avi", "MJPG")])
def test_video(place, tmp_path, name, fourcc):
    make_video(tmp_path / name, fourcc, 5)
    _, originals = read_video(tmp_path / name)
    found = go(place, tmp_path / name, tmp_path / "out")
    assert found["fps"] == 12.5 and found["frame_step"] == 1
    assert [entry["frame"] for entry in found["frames"]] == [0, 1, 2, 3, 4]
    assert found["frames"][3]["seconds"] == pytest.approx(0.24)
    fps, frames = read_video(tmp_path / "out" / "clip.mp4")
    assert fps == 12.5 and len(frames) == 5
    assert frames[0].shape == originals[0].shape
    # the same picture as a file gives the same detections
    cv2.imwrite(str(tmp_path / "frame.png"), originals[2])
    still = go(place, tmp_path / "frame.png", tmp_path / "still")
    assert still["images"][0]["detections"] == found["frames"][2]["detections"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        INDEX,
        RESULTS_LOCK,
        "clip.mp4",
        "detections.json",
    ]


def test_every_second_frame_calibrated(place, tmp_path, monkeypatch):
    make_video(tmp_path / "clip.avi", "MJPG", 5)
    shapes = []

    def on_pixels(pixels, boxes, scores, classes):
        shapes.append(pixels.shape)
        return scores * 0

    monkeypatch.setattr(
        checkpoint, "make_calibrator", lambda *_: SimpleNamespace(on_pixels=on_pixels)
    )
    flags = ("--frame_step=2", "--score_threshold=0.001")
    found = go(place, tmp_path / "clip.avi", tmp_path / "out", *flags)
    assert [entry["frame"] for entry in found["frames"]] == [0, 2, 4]
    assert len(shapes) == 3 and found["frames"][0]["detections"] == []
    fps, frames = read_video(tmp_path / "out" / "clip.mp4")
    assert fps == 6.25 and len(frames) == 3  # as long as the original


def test_a_video_with_a_colon_in_its_name(place, tmp_path, monkeypatch):
    make_video(tmp_path / "clip.avi", "MJPG", 2)
    (tmp_path / "clip.avi").rename(tmp_path / "10:30.avi")
    monkeypatch.chdir(tmp_path)
    assert len(go(place, "10:30.avi", tmp_path / "out")["frames"]) == 2


def test_damaged_videos(place, tmp_path):
    make_video(tmp_path / "clip.avi", "MJPG", 40)
    content = (tmp_path / "clip.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    (tmp_path / "none.mp4").write_bytes(b"nothing of a video")
    with pytest.raises(InputError, match=r"none\.mp4: not a readable video"):
        go(place, tmp_path / "none.mp4", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.mp4"))
    found = go(place, tmp_path / "cut.avi", tmp_path / "out", expect=1)
    assert 0 < len(found["frames"]) < 40
    assert "frames; it may be damaged" in found["problems"][0]["reason"]
    assert len(read_video(tmp_path / "out" / "cut.mp4")[1]) == len(found["frames"])


def test_what_is_done_is_kept_when_it_is_interrupted(place, tmp_path, monkeypatch):
    seen = []
    read = inputs.read_image

    def interrupted(path, max_pixels):
        seen.append(path)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(path, max_pixels)

    monkeypatch.setattr(look, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(place, place.images, tmp_path)
    found = json.loads((tmp_path / "detections.json").read_text())
    assert found["complete"] is False and len(found["images"]) == 2
    assert len(json.loads((tmp_path / "label_studio.json").read_text())) == 2
    seen[:] = [None, None]  # ends before anything is done: what is there stays
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        go(place, place.images, tmp_path)
    assert json.loads((tmp_path / "detections.json").read_text()) == found
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("", [], r"input_path is empty; give a picture"),
        ("missing.png", [], r"input_path: \S*missing\.png does not exist"),
        ("notes.txt", [], r"notes\.txt has no known type; give a picture"),
        ("empty", [], r"the folder \S*empty holds no picture"),
        ("film", [], r"give the video \S*film\.mp4 itself"),
        ("pictures", ["--result_path={}/pictures"], r"result_path is the folder of the pictures"),
        ("pictures", ["--result_path={}"], r"a\.png lies where drawn pictures go; name another"),
        ("pictures", ["--score_threshold=50"], r"--score_threshold 50 must lie within 0 and 1"),
        ("pictures", ["--frame_step=0"], r"--frame_step 0 must be 1 or more"),
        ("pictures", ["--eval_checkpoint_path="], r"eval_checkpoint_path is empty"),
    ],
)
def test_wrong_flags(place, tmp_path, source, more, message):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "film").mkdir()
    (tmp_path / "film" / "film.mp4").write_text("x")
    save(tmp_path / "pictures" / "a.png", np.zeros((9, 9, 3), np.uint8))
    path = tmp_path / source if source else ""
    with pytest.raises(InputError, match=message):
        go(place, path, tmp_path / "out", *(word.format(tmp_path) for word in more))
