# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The C++ program on bundles: detections beside those of the Python code, flags, broken inputs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image
from pycocotools.coco import COCO

import export
from src.data.transforms import decode, resize, resized_shape, to_bgr
from src.defrcn.detections import final_detections, to_image_frame
from src.defrcn.pcb import Calibrator, Prototypes
from src.demo.make_data import make_demo_data
from src.evaluation.result_folder import new_results
from src.model_utils.folder_lock import RESULTS_LOCK, FolderLock
from src.model_utils.paths import project_folder
from src.predict import __main__ as predict
from src.predict.output import Predictions
from src.tools import draw_kshot
from tests.helpers.bundles import calibration_part, detector_part, write_bundle
from tests.helpers.infer_program import RUN_SECONDS, call
from tests.helpers.small_graphs import Boxes, CellMeansInNumpy, write_boxes, write_cell_means

HEIGHT, WIDTH, CANVAS = 96, 128, (96, 160)
SIZES, CLASSES = (64, 96), 3
THRESHOLD = 0.22
PICTURES = {
    "a.jpg": (70, 90),
    "b.png": (130, 83),
    "sub/c.JPEG": (64, 64),
    "sub/d.png": (200, 150),  # too large for the encoder
    "e.jpg": (40, 300),  # a strip
}


@pytest.fixture(scope="module")
def place(program, probe, tmp_path_factory):
    """Pictures, a bundle without and one with calibration, and the network to compare with."""
    root = tmp_path_factory.mktemp("bundle")
    rng = np.random.default_rng(2)
    for name, (height, width) in PICTURES.items():
        path = root / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(path, quality=90)
    network = Boxes(HEIGHT, WIDTH, CLASSES, rng)
    folders = [root / name for name in ("plain", "calibrated")]
    for folder in folders:
        folder.mkdir()
    model = write_boxes(network, HEIGHT, WIDTH, root / "net.mindir")
    for folder in folders:
        shutil.copy(model, folder / "detector.mindir")
    weight = rng.normal(0, 1e-4, (6, 3, 32, 32)).astype(np.float32)
    encoder = write_cell_means(weight, *CANVAS, root / "encoder.mindir")
    shutil.copy(encoder, folders[1])
    shapes = ((8, 6), (8,), (CLASSES, 8))
    arrays = [rng.normal(0, 1, shape).astype(np.float32) for shape in shapes]
    detector = detector_part(HEIGHT, WIDTH, network.num_proposals, CLASSES)
    write_bundle(folders[0], detector, SIZES)
    calibration = calibration_part(
        folders[1], CANVAS, (3, 5, 6), arrays, (True, False, True), (0.6, 0.05, 0.95)
    )
    write_bundle(folders[1], detector, SIZES, calibration=calibration)
    calibrator = Calibrator(
        CellMeansInNumpy(weight, *arrays[:2]),
        Prototypes(arrays[2], np.ones(CLASSES, np.int64)),
        excluded=[1],
        alpha=0.6,
        lower=0.05,
        upper=0.95,
        read=lambda name: None,
    )
    graph = nn.GraphCell(ms.load(str(model)))
    return SimpleNamespace(
        root=root,
        program=program,
        plain=folders[0],
        calibrated=folders[1],
        pictures=root / "pictures",
        outputs_of=lambda *values: [one.asnumpy() for one in graph(*map(Tensor, values))],
        calibrator=calibrator,
    )


def look(place, bundle, output, *flags, **keywords):
    words = (f"--bundle={bundle}", f"--input={place.pictures}", f"--output={output}")
    return call(place.program, *words, f"--score_threshold={THRESHOLD}", *flags, **keywords)


def results(output):
    """Rows by file name: (category_id, box, score), best first; COCO's own reader reads them."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(output / "images.json"))
        found = truth.loadRes(str(output / "detections.json"))
    rows = {image["file_name"]: [] for image in truth.dataset["images"]}
    for row in found.dataset["annotations"]:
        name = truth.imgs[row["image_id"]]["file_name"]
        rows[name].append((row["category_id"], row["bbox"], row["score"]))
    return rows


def by_python(place, calibrated):
    """What the Python code makes of the pictures with the same graph."""
    collected = Predictions(place.root, "abc", (11, 12, 13), THRESHOLD, "", {})
    rows = {}
    for name in PICTURES:
        image = decode((place.pictures / name).read_bytes(), name)
        original = (image.height, image.width)
        size = resized_shape(*original, *SIZES)
        canvas = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
        pixels = to_bgr(resize(image, *size))
        canvas[0, :, : size[0], : size[1]] = pixels.transpose(2, 0, 1)
        meta = np.array([[*size, *original]], np.float32)
        boxes, scores, valid, _ = place.outputs_of(canvas, np.zeros(1, np.int32), meta)
        boxes, scores, classes = final_detections(
            boxes[0],
            scores[0],
            valid[0] > 0,
            score_threshold=0.05,
            nms_threshold=0.5,
            max_detections=100,
        )
        boxes, whole = to_image_frame(boxes, np.float32(size), np.int32(original))
        boxes, scores, classes = boxes[whole], scores[whole], classes[whole]
        if calibrated:
            scores = place.calibrator.on_pixels(to_bgr(image), boxes, scores, classes)
        found = collected.rows(boxes, scores, classes)
        rows[name] = [(row["category_id"], row["bbox"], row["score"]) for row in found]
    return rows


def compare(found, expected, pixels=0.05, score=1e-4):
    """Each detection has its pair; near the threshold one may lack. Returns how many there are."""
    assert found.keys() == expected.keys()
    count = 0
    for name, rows in expected.items():
        left = list(found[name])
        for row in rows:
            near = [
                one
                for one in left
                if one[0] == row[0]
                and abs(one[2] - row[2]) < score
                and np.abs(np.subtract(one[1], row[1])).max() < pixels
            ]
            assert near or abs(row[2] - THRESHOLD) < score, (name, row, left)
            left.remove(near[0]) if near else None
            count += len(near) > 0
        assert all(abs(one[2] - THRESHOLD) < score for one in left), (name, left)
        scores = [one[2] for one in found[name]]
        assert scores == sorted(scores, reverse=True)
    return count


def test_detections_are_those_of_python(place, tmp_path):
    done = look(place, place.plain, tmp_path / "out", "--draw")
    assert done.returncode == 0, done.stderr
    assert compare(results(tmp_path / "out"), by_python(place, calibrated=False)) >= 20
    assert json.loads((tmp_path / "out" / "problems.json").read_text()) == []
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert [one["file_name"] for one in images] == [
        "a.jpg",
        "b.png",
        "e.jpg",
        "sub/c.JPEG",
        "sub/d.png",
    ]
    for one in images:
        drawn = Image.open(tmp_path / "out" / one["drawn"])
        assert drawn.size == (one["width"], one["height"])
    drawn = np.asarray(Image.open(tmp_path / "out" / "pictures" / "b.png.png"))
    assert (drawn != np.asarray(Image.open(place.pictures / "b.png"))).any()
    done = json.loads((tmp_path / "out" / "done.json").read_text())
    assert (done["images"], done["problems"], done["bundle"]) == (5, 0, "plain")


def test_a_folder_in_which_the_python_side_writes_is_refused(place, tmp_path):
    lock = FolderLock(tmp_path, "src.predict", lock=RESULTS_LOCK)
    lock.take()
    done = look(place, place.plain, tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path} is in use by src.predict, process {os.getpid()} on " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS_LOCK]
    lock.release()
    assert look(place, place.plain, tmp_path).returncode == 0


def test_calibrated_detections_are_those_of_python(place, tmp_path):
    """Three pictures are too large for the encoder; they are named, the others are there."""
    done = look(place, place.calibrated, tmp_path / "out", "--instances=2", "--queue=1")
    assert done.returncode == 1
    expected = by_python(place, calibrated=True)
    problems = json.loads((tmp_path / "out" / "problems.json").read_text())
    assert [one["file"] for one in problems] == ["b.png", "e.jpg", "sub/d.png"]
    for one in problems:
        assert "holds 160 x 96 (width x height)" in one["reason"]
        assert f"error: {one['file']}: {one['reason']}" in done.stderr
        del expected[one["file"]]
    plain = by_python(place, calibrated=False)
    assert {name: rows for name, rows in plain.items() if name in expected} != expected
    assert compare(results(tmp_path / "out"), expected) >= 4


def test_repeating_and_instances_change_no_detection(place, tmp_path):
    assert look(place, place.plain, tmp_path / "one").returncode == 0
    flags = ("--repeat=3", "--instances=3", "--warmup=0", f"--time_path={tmp_path / 'times'}")
    assert look(place, place.plain, tmp_path / "many", *flags).returncode == 0
    assert compare(results(tmp_path / "many"), results(tmp_path / "one"), 1e-3, 1e-5) >= 20
    times = (tmp_path / "times" / "test_perform_static.txt").read_text()
    assert "infer_count 15\n" in times
    assert "\ndecoding: mean " in times
    assert not (tmp_path / "many" / "test_perform_static.txt").exists()


def test_a_list_of_pictures_and_broken_ones(place, tmp_path):
    names = ["a.jpg", "none.jpg", "broken.jpg", str(place.pictures / "sub" / "c.JPEG")]
    shutil.copy(place.pictures / "a.jpg", tmp_path)
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n")
    words = (f"--bundle={place.plain}", f"--input={tmp_path / 'list.txt'}")
    done = call(place.program, *words, f"--output={tmp_path / 'out'}", "--score_threshold=0")
    assert done.returncode == 1
    assert "error: none.jpg: cannot be read (No such file or directory)\n" in done.stderr
    assert "error: broken.jpg: not a readable picture (the file is truncated)\n" in done.stderr
    assert list(results(tmp_path / "out")) == [names[0], names[3]]


def spoil_bit(folder):
    content = bytearray((folder / "detector.mindir").read_bytes())
    content[len(content) // 3] ^= 4
    (folder / "detector.mindir").write_bytes(content)


def spoil_version(folder):
    content = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**content, "format_version": 2}))


def spoil_threshold(folder):
    text = (folder / "bundle.json").read_text()
    assert '"nms_threshold": 0.5' in text
    (folder / "bundle.json").write_text(
        text.replace('"nms_threshold": 0.5', '"nms_threshold": 0.7')
    )


def spoil_graph(folder):
    (folder / "detector.mindir").write_bytes(b"no graph")
    content = json.loads((folder / "bundle.json").read_text())
    write_bundle(folder, content["detector"], SIZES)


@pytest.mark.parametrize(
    ("spoil", "flags", "message"),
    [
        (spoil_bit, (), "detector.mindir is damaged: its SHA-256 is not the one in bundle.json"),
        (
            spoil_threshold,
            (),
            "bundle.json is damaged: its SHA-256 is not the one in bundle.sha256",
        ),
        (lambda folder: (folder / "bundle.sha256").unlink(), (), "bundle.sha256 is missing"),
        (spoil_version, (), "has format_version 2, this program reads 1"),
        (spoil_graph, (), "detector.mindir cannot be built for CPU"),
        (lambda folder: (folder / "detector.mindir").unlink(), (), "detector.mindir is missing"),
        (lambda folder: (folder / "bundle.json").unlink(), (), "bundle.json is missing"),
        (None, ("--bundle=/none",), "--bundle: there is no folder /none"),
        (None, ("--input=/none",), "--input: there is no file or folder /none"),
        (None, ("--input=",), "--input is missing"),
        (None, ("--output=",), "--output is missing"),
        (None, ("--score_threshold=2",), "--score_threshold is 2.0"),
        (None, ("--repeat=0",), "--repeat is 0"),
        (None, ("--mindir_path=a.mindir",), "--mindir_path does not go with --bundle"),
        (None, ("--RESTOREBBOX=true",), "--RESTOREBBOX does not go with --bundle"),
        (None, ("--device_type=Ascend",), "cannot be built for Ascend (device 0)"),
    ],
)
def test_what_is_wrong_is_named(place, tmp_path, spoil, flags, message):
    bundle = shutil.copytree(place.plain, tmp_path / "bundle")
    if spoil is not None:
        spoil(bundle)
    done = look(place, bundle, tmp_path / "out", *flags)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert message in done.stderr
    assert not (tmp_path / "out" / "done.json").exists()


def test_results_of_src_predict_take_the_place_of_these(place, tmp_path):
    """And these that of its: neither certifies what the other wrote."""
    out = tmp_path / "out"
    assert look(place, place.plain, out, "--draw").returncode == 0
    (out / "mine.txt").write_text("mine")
    drawn = [path for path in (out / "pictures").rglob("*.png")]
    assert drawn and (out / "done.json").is_file()
    with new_results(out) as results:
        (results.folder / "detections.json").write_text("of src.predict")
        (results.folder / "sheet.png").write_text("likewise")
        results.publish()
    names = {path.name for path in out.iterdir()}
    assert names == {*"mine.txt .results.json .results.lock detections.json sheet.png".split()}
    assert look(place, place.plain, out).returncode == 0
    assert not (out / "sheet.png").exists() and (out / "mine.txt").read_text() == "mine"
    json.loads((out / "detections.json").read_text())


def test_flags_of_bundles_need_one(place):
    done = call(place.program, "--input=/tmp", "--output=/tmp/x")
    assert done.returncode == 1
    assert "--input goes with --bundle: name a bundle as well" in done.stderr


def test_a_signal_leaves_no_whole_run(place, tmp_path):
    words = (f"--bundle={place.plain}", f"--input={place.pictures}", f"--output={tmp_path / 'out'}")
    process = subprocess.Popen(
        [place.program, *words, "--repeat=100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("running"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=RUN_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted: the results are not complete" in errors
    assert not (tmp_path / "out" / "done.json").exists()
    assert not (tmp_path / "out" / "detections.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("calibrated", [True, False])
def test_a_bundle_of_export_finds_what_predict_finds(program, tmp_path, calibrated):
    """Eight pictures of the demo, three classes as novel; their own sizes there, one shape here."""
    make_demo_data(tmp_path / "data" / "shapes", seed=0, num_train=40, num_test=8)
    demo = project_folder() / "configs" / "demo"
    flags = [
        f"--config_path={demo / 'shapes_base.yaml'}",
        f"--datasets_root={tmp_path / 'data'}",
        "--data.custom.shapes.novel_classes=[disc,ring,star]",
        "--data.custom.shapes.few_shot=shapes/split",
    ]
    assert draw_kshot.main([*flags, "--shots=1"]) == 0
    flags += [
        "--data.train=[shapes_train_novel_1shot_seed0]",
        "--model.backbone.norm=FrozenBN",
        f"--pcb_modelpath={demo / 'shapes_encoder.ckpt'}",
        f"--test.pcb.enable={str(calibrated).lower()}",
    ]
    weights, bundle = demo / "shapes_base.ckpt", tmp_path / "bundle"
    sides = ["--img_height=208", "--img_width=208", "--encoder_height=320", "--encoder_width=320"]
    words = [*flags, *sides, "--mindir_version=1", f"--export_ckpt_file={weights}"]
    assert export.main([*words, f"--bundle={bundle}"]) == 0
    assert (bundle / "encoder.mindir").exists() == calibrated
    pictures = tmp_path / "data/shapes/images/test"
    found = [f"--eval_checkpoint_path={weights}", f"--input_path={pictures}"]
    found += [f"--result_path={tmp_path / 'found'}", f"--score_threshold={THRESHOLD}"]
    assert predict.main([*flags, *found]) == 0
    there = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert there["calibrated"] == calibrated
    done = look(SimpleNamespace(program=program, pictures=pictures), bundle, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected = {
        one["file"]: [
            (row["category_id"], row["bbox_xywh"], row["score"]) for row in one["detections"]
        ]
        for one in there["images"]
    }
    assert compare(results(tmp_path / "out"), expected) >= 16
