# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A bundle detects as the checkpoint does that it was made of, by whatever runs it."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

import export
from src.assembly.encoders import make_encoder
from src.export.bundle import open_bundle
from src.export.graphs import CanvasEncoder, OnnxRunner
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.predict import bundle as of_bundle
from src.predict import checkpoint
from src.predict.__main__ import main as predict
from tests.helpers.bundles import write_sum

NOVEL = ("disc", "ring", "star")
# Height and width; the last one lies on its side in the file, by its EXIF orientation.
SIZES = ((101, 151), (151, 83), (160, 160), (67, 201), (180, 121))
SIDES = ("--img_height=272", "--img_width=288", "--encoder_height=200", "--encoder_width=201")
# A finder that hides all of site-packages but four packages.
ONLY_FOUR = """
import pathlib, runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        places = [pathlib.Path(one) for one in sys.path if "-packages" in one]
        found = [place for place in places if (place / root).exists() or [*place.glob(root + ".*")]]
        if found and root not in ("numpy", "onnxruntime", "cv2", "PIL"):
            raise ModuleNotFoundError(f"No module named {name!r} (refused)", name=name)
sys.meta_path.insert(0, Refuse())
sys.argv = ["predict", *sys.argv[1:]]
runpy.run_module("src.predict", run_name="__main__", alter_sys=True)
"""


def save_pictures(source, folder):
    """Generated pictures of a test set, brought to five sizes."""
    folder.mkdir()
    for number, ((height, width), path) in enumerate(zip(SIZES, sorted(source.iterdir()))):
        image = Image.open(path).convert("RGB").resize((width, height))
        if number < len(SIZES) - 1:
            image.save(folder / f"{number}.png")
            continue
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = image.transpose(Image.Transpose.ROTATE_90)
        turned.save(folder / f"{number}.jpg", exif=exif.tobytes(), quality=95)
    return folder


@pytest.fixture(scope="module")
def place(trained_demo, tmp_path_factory):
    """Pictures, and the flags of the demo's detector, three of whose classes count as novel."""
    root = tmp_path_factory.mktemp("bundles")
    demo = project_folder() / "configs" / "demo"
    flags = [
        f"--config_path={demo / 'shapes_base.yaml'}",
        f"--datasets_root={trained_demo.root}",
        f"--data.custom.shapes.novel_classes=[{','.join(NOVEL)}]",
        "--data.custom.shapes.few_shot=shapes/split",
        "--data.train=[shapes_train_novel_1shot_seed0]",
        "--model.backbone.norm=FrozenBN",
        "--model.rpn.pre_nms_topk_test=200",
        "--model.rpn.post_nms_topk_test=30",
        f"--pcb_modelpath={demo / 'shapes_encoder.ckpt'}",
    ]
    pictures = save_pictures(trained_demo.root / "shapes/images/train", root / "pictures")
    run = demo / "shapes_base.ckpt"
    return SimpleNamespace(root=root, run=run, flags=flags, pictures=pictures)


def write(place, name, *more, pcb=True):
    words = [*place.flags, f"--export_ckpt_file={place.run}", *SIDES, *more]
    words += [f"--bundle={place.root / name}", f"--test.pcb.enable={str(pcb).lower()}"]
    assert export.main(words) == 0
    return place.root / name


@pytest.fixture(scope="module")
def bundle(place):
    """A bundle of ONNX graphs."""
    return write(place, "onnx", "--export_file_format=ONNX")


@pytest.fixture(scope="module")
def wanted(place):
    """What predict finds with the checkpoint, calibrated and not; one compilation."""
    found, made = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        make = checkpoint.make_inference
        patch.setattr(checkpoint, "make_inference", lambda *a: made.setdefault("", make(*a)))
        for name in ("true", "false"):
            words = [*place.flags, f"--test.pcb.enable={name}"]
            words.append(f"--eval_checkpoint_path={place.run}")
            found[name] = go(place, place.root / f"wanted_{name}", *words)
    return found


def go(place, result, *words, source=None, expect=0):
    """Run predict in this process; return detections.json."""
    common = [f"--input_path={source or place.pictures}", f"--result_path={result}"]
    assert predict([*words, *common, "--score_threshold=0.02"]) == expect
    return json.loads((result / "detections.json").read_text())


def apart(found, expected):
    """Detections without a partner within 0.05 pixels and 1e-4; how many there are."""
    lone, total = [], 0
    assert [one["file"] for one in found["images"]] == [one["file"] for one in expected["images"]]
    for mine, other in zip(found["images"], expected["images"]):
        assert (mine["width"], mine["height"]) == (other["width"], other["height"])
        left = list(other["detections"])
        total += len(left)
        for one in mine["detections"]:
            near = [
                two
                for two in left
                if two["label"] == one["label"]
                and np.abs(np.subtract(two["bbox_xyxy"], one["bbox_xyxy"])).max() <= 0.05
                and abs(two["score"] - one["score"]) <= 1e-4
            ]
            left.remove(near[0]) if near else lone.append(one)
        lone += left
    return lone, total


def with_four_packages(*words):
    """Run predict in a process that can import nothing but the four packages."""
    command = [sys.executable, "-c", ONLY_FOUR, *words]
    environment = {**os.environ, "PYTHONPATH": str(project_folder())}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_onnxruntime_alone_finds_what_the_checkpoint_does(place, bundle, wanted, tmp_path):
    flags = [f"--input_path={place.pictures}", f"--result_path={tmp_path}"]
    done = with_four_packages(f"--bundle={bundle}.tar", *flags, "--score_threshold=0.02")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "detections.json").read_text())
    lone, total = apart(found, wanted["true"])
    assert lone == [] and total > 20
    assert found["calibrated"] is True and found["bundle"] == f"{bundle}.tar"
    assert {*found} - {*wanted["true"]} == {"bundle"} and {*wanted["true"]} <= {*found}
    for key in ("classes", "boxes", "score_threshold", "complete"):
        assert found[key] == wanted["true"][key], key
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    place_of = place.root / "wanted_true"
    assert written == {path.relative_to(place_of) for path in place_of.rglob("*")}


def test_the_process_above_has_no_other_package(place):
    """What a checkpoint needs is refused there."""
    done = with_four_packages(*place.flags, f"--input_path={place.pictures}")
    assert done.returncode == 1 and "(refused)" in done.stderr


def test_without_calibration(place, bundle, wanted, tmp_path):
    folder = tmp_path / "plain"
    shutil.copytree(bundle, folder)
    content = json.loads((folder / "bundle.json").read_text())
    content["calibration"] = None
    (folder / "bundle.json").write_text(json.dumps(content))
    write_sum(folder)
    found = go(place, tmp_path / "out", f"--bundle={folder}")
    lone, total = apart(found, wanted["false"])
    assert lone == [] and total > 20 and found["calibrated"] is False
    # The comparison can fail: calibration changes scores.
    assert len(apart(wanted["true"], wanted["false"])[0]) > 5


def test_pictures_that_do_not_fit(place, bundle, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    first = Image.open(place.pictures / "0.png")
    first.resize((90, 200)).save(folder / "tall.png")
    first.resize((300, 200)).save(folder / "large.png")
    first.save(folder / "right.png")
    found = go(place, tmp_path / "out", f"--bundle={bundle}", source=folder, expect=1)
    assert [one["file"] for one in found["images"]] == ["right.png"]
    reasons = {one["file"]: one["reason"] for one in found["problems"]}
    assert sorted(reasons) == ["large.png", "tall.png"]
    assert "become 288 x 130 (height x width)" in reasons["tall.png"]
    assert "is 272 x 288; export with larger --img_height" in reasons["tall.png"]
    assert "is 200 x 300 pixels" in reasons["large.png"]
    assert "takes up to 224 x 224; export with larger --encoder_height" in reasons["large.png"]


def test_a_video(place, bundle, tmp_path):
    path = tmp_path / "clip.avi"
    frame = cv2.imread(str(place.pictures / "0.png"))
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (frame.shape[1], frame.shape[0])
    )
    for _ in range(3):
        writer.write(frame)
    writer.release()
    found = go(place, tmp_path / "out", f"--bundle={bundle}", "--frame_step=2", source=path)
    assert [one["frame"] for one in found["frames"]] == [0, 2] and found["fps"] == 12.5
    assert found["frames"][0]["detections"] and (tmp_path / "out" / "clip.mp4").is_file()


def test_a_video_that_does_not_fit_the_encoder(place, bundle, tmp_path):
    """Its frames are written as they are, and told once."""
    path = tmp_path / "clip.avi"
    frame = cv2.resize(cv2.imread(str(place.pictures / "0.png")), (300, 200))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (300, 200))
    for _ in range(5):
        writer.write(frame)
    writer.release()
    found = go(place, tmp_path / "out", f"--bundle={bundle}", source=path, expect=1)
    (problem,) = found["problems"]
    assert problem["reason"].startswith("frames left out: 0, 1, 2, and 2 more: ")
    assert "takes up to 224 x 224; export with larger --encoder_height" in problem["reason"]
    assert found["frames"] == [] and (tmp_path / "out" / "clip.mp4").is_file()


def test_the_encoder_gives_what_it_gives_of_the_picture_alone(place, bundle):
    """The exported graph on its canvas, five sizes, against the encoder of evaluation."""
    alone = make_encoder(load_config(place.flags[0].partition("=")[2], place.flags[1:]))
    with open_bundle(bundle) as found:
        run = OnnxRunner(found.calibration.encoder, bundle)
        on_canvas = CanvasEncoder(found.calibration, run, bundle)
        for height, width in ((224, 224), (101, 151), (1, 33), (64, 65), (223, 95)):
            pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
            wanted, features = alone.feature_map(pixels), on_canvas.feature_map(pixels)
            scale = np.abs(wanted).max()
            np.testing.assert_allclose(features, wanted, rtol=0, atol=1e-5 * scale)
            vectors = alone.project(wanted[0])
            np.testing.assert_allclose(on_canvas.project(wanted[0]), vectors, rtol=1e-5, atol=1e-5)


def undecided(graph):
    """A graph whose suppression leaves three boxes undecided."""

    def run(*_):
        arrays = [np.zeros(one.shape, one.dtype) for one in graph.outputs]
        arrays[-1][0, 2] = 3
        return arrays

    return run


def test_suppression_that_was_not_complete(place, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(of_bundle, "opener", lambda *_: undecided)
    source = place.pictures / "0.png"
    found = go(place, tmp_path / "out", f"--bundle={bundle}", source=source, expect=1)
    (problem,) = found["problems"]
    assert found["images"] == [] and problem["file"] == "0.png"
    assert "not complete (3 undecided)" in problem["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine=mindspore"], "--engine mindspore reads MINDIR, but .* holds ONNX"),
        (["--device_target=GPU"], "onnxruntime runs on the CPU"),
        (["--test.pcb.alpha=1"], r"--test\.pcb\.alpha=1: not together with --bundle"),
        (["--score_threshold=7"], "must lie within 0 and 1"),
        (["--frame_step=0"], "must be 1 or more"),
        (["--input_path="], "input_path is empty"),
    ],
)
def test_wrong_flags(place, bundle, tmp_path, words, message):
    common = [f"--input_path={place.pictures}", f"--result_path={tmp_path / 'out'}"]
    with pytest.raises(InputError, match=message):
        predict([f"--bundle={bundle}", *common, *words])
    assert not (tmp_path / "out" / "detections.json").exists()


def test_what_the_bundle_says(place, bundle):
    content = json.loads((bundle / "bundle.json").read_text())
    assert [one["label"] for one in content["classes"] if one["novel"]] == list(NOVEL)
    with open_bundle(bundle) as found:
        assert found.shape == (272, 288) and (found.min_size, found.max_size) == (144, 288)
        assert found.calibration.canvas == (224, 224)
        flags = dict(zip(found.class_names, found.calibration.calibrated.tolist()))
        assert flags == {name: name in NOVEL for name in found.class_names}
        rows = found.calibration.prototypes.any(1)
        assert rows.tolist() == found.calibration.calibrated.tolist()
    assert content["support_set"]["dataset"] == "shapes_train_novel_1shot_seed0"
    assert content["checkpoint"]["file"] == "shapes_base.ckpt"


def refused(place, name, *more):
    words = [*place.flags, f"--export_ckpt_file={place.run}", *SIDES, *more]
    return [*words, f"--bundle={place.root / name}", "--test.pcb.enable=true"]


def test_exports_that_are_refused(place, tmp_path):
    (place.root / "thesis").mkdir(exist_ok=True)
    (place.root / "thesis" / "one.tex").write_text("")
    with pytest.raises(InputError, match="thesis is no bundle and would be replaced"):
        export.main(refused(place, "thesis"))
    (tmp_path / "e.yaml").write_text(
        "{model: e.onnx, features: map, mean: [0, 0, 0], std: [1, 1, 1]}"
    )
    (tmp_path / "e.onnx").write_text("")
    with pytest.raises(InputError, match=r"e\.yaml is an ONNX encoder, which no bundle can hold"):
        export.main(refused(place, "no", f"--test.pcb.encoder={tmp_path / 'e.yaml'}"))
    with pytest.raises(InputError, match="give --img_height and --img_width"):
        export.main(refused(place, "no", "--img_height=null"))
    with pytest.raises(InputError, match="export_ckpt_file: none does not exist"):
        export.main(refused(place, "no", "--export_ckpt_file=none"))
    assert not (place.root / "no").exists() and not (place.root / "no.tar").exists()


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 3])
def test_mindspore_finds_what_the_checkpoint_does(place, wanted, tmp_path, version):
    folder = write(place, f"mindir_{version}", f"--mindir_version={version}")
    found = go(place, tmp_path / "out", f"--bundle={folder}")
    lone, total = apart(found, wanted["true"])
    assert lone == [] and total > 20
    assert json.loads((folder / "bundle.json").read_text())["mindir_version"] == version


@pytest.mark.slow
def test_the_checkpoint_with_the_input_shape(place, bundle, tmp_path):
    words = [*place.flags, "--test.pcb.enable=true", f"--eval_checkpoint_path={place.run}"]
    fixed = go(place, tmp_path / "fixed", *words, "--input.input_shapes=[[272, 288]]")
    lone, total = apart(go(place, tmp_path / "out", f"--bundle={bundle}"), fixed)
    assert lone == [] and total > 20
