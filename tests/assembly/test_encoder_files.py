# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Which file the encoder is, what its YAML may say, and what its hash depends on."""

from __future__ import annotations

import re
import shutil
import sys

import cv2
import numpy as np
import pytest
import yaml

from src.assembly import encoders
from src.assembly.calibration import make_calibrator
from src.assembly.data import read_sets
from src.assembly.encoder_files import (
    ENCODER,
    encoder_identity,
    encoder_key,
    encoder_path,
    onnx_of,
)
from src.assembly.encoders import check_encoder, make_encoder
from src.assembly.modelarts import on_this_machine
from src.defrcn.pcb_encoder import ResNetEncoder
from src.defrcn.pcb_onnx import OnnxCrops, OnnxMaps
from src.model_utils.config import Config, load_config
from src.model_utils.errors import InputError
from src.model_utils.onnx_settings import OnnxSettings
from src.model_utils.paths import project_folder
from src.util import sha256_file
from src.weights.ckpt_format import write_ckpt
from tests.assembly.test_calibration import CONFIG
from tests.defrcn.test_few_shot import kshot_tree
from tests.defrcn.test_pcb_encoder import parameters
from tests.helpers import mindcv_reference, tiny_onnx

SETTINGS = {"model": "m.onnx", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
MAP = {**SETTINGS, "features": "map", "output": "map"}
CROP = {**SETTINGS, "features": "crop", "size": [16, 16]}


def write(folder, settings):
    """A YAML file and its model."""
    folder.mkdir(exist_ok=True)
    make = tiny_onnx.map_model if settings.get("features") == "map" else tiny_onnx.crop_model
    (folder / "m.onnx").write_bytes(make())
    (folder / "e.yaml").write_text(yaml.safe_dump(settings))
    return folder / "e.yaml"


def configured(path="", modelpath=""):
    return with_encoder(Config(pcb_modelpath=str(modelpath)), path)


def with_encoder(config, path):
    pcb = config.test.pcb.model_copy(update={"encoder": str(path)})
    return config.model_copy(update={"test": config.test.model_copy(update={"pcb": pcb})})


def test_the_new_key_comes_before_the_old_one(tmp_path):
    (tmp_path / "a.ckpt").touch()
    (tmp_path / "b.ckpt").touch()
    old, both = configured("", tmp_path / "a.ckpt"), configured(tmp_path / "b.ckpt", "nowhere")
    assert (encoder_key(old), encoder_path(old)) == ("pcb_modelpath", tmp_path / "a.ckpt")
    assert (encoder_key(both), encoder_path(both)) == (ENCODER, tmp_path / "b.ckpt")


def test_the_kind_is_seen_from_the_file(tmp_path, monkeypatch):
    """A YAML file, torchvision's names, MindCV's names."""
    assert isinstance(make_encoder(configured(write(tmp_path / "map", MAP))), OnnxMaps)
    crops = make_encoder(configured("", write(tmp_path / "crop", CROP)))
    assert isinstance(crops, OnnxCrops)
    made = []
    monkeypatch.setattr(ResNetEncoder, "_compile", lambda self, *given: made.append(given))
    write_ckpt(tmp_path / "torchvision.ckpt", parameters())
    with np.load(mindcv_reference.PATH) as file:
        shapes = {name: tuple(file[name]) for name in file.files if "features" not in name}
    mindcv = {name: mindcv_reference.values(name, shape) for name, shape in shapes.items()}
    write_ckpt(tmp_path / "mindcv.ckpt", mindcv)
    for name in ("torchvision", "mindcv"):
        path = tmp_path / f"{name}.ckpt"
        encoder = make_encoder(configured(path))
        assert encoder.mindcv is (name == "mindcv") and encoder.identity == sha256_file(path)
    assert len(made) == 2
    write_ckpt(tmp_path / "neither.ckpt", {"a": np.ones(3, np.float32)})
    with pytest.raises(InputError, match=r"neither.ckpt is no encoder .*pth2ckpt.*MindCV.*ONNX"):
        make_encoder(configured(tmp_path / "neither.ckpt"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**MAP, "outputs": "map"}, r"outputs: unknown key \(did you mean output\?\)"),
        (
            {**MAP, "model": "n.onnx"},
            r"model: \S*n.onnx does not exist \(did you mean \S*m",
        ),
        ({key: v for key, v in MAP.items() if key != "mean"}, r"mean: is missing"),
        ({**MAP, "mean": [103.5, 116.3, 123.7]}, r"mean: 123.7 is more than 1; divide by 255"),
        ({**MAP, "std": [0.2, 0.2, 0.0]}, r"std: a deviation of 0"),
        ({**MAP, "mean": [0.5, 0.5]}, r"mean.2: "),
        ({**MAP, "features": "maps"}, r"features: input should be 'map' or 'crop', not 'maps'"),
        ({**MAP, "context": 1.5}, r"features map has no context; leave context out"),
        ({**CROP, "patch": 14}, r"features crop has no patch; leave patch out"),
        ({**MAP, "patch": 14, "size": [224, 225]}, r"size \[224, 225\] is no multiple of patch 14"),
        ({**MAP, "channels": "grey"}, r"channels: input should be 'rgb' or 'bgr'"),
        ({**MAP, "size": 224}, r"size: "),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, settings, words):
    path = write(tmp_path, settings)
    with pytest.raises(InputError, match=rf"e\.yaml: .*{words}") as caught:
        check_encoder(configured(path))
    assert "\n" not in str(caught.value)


def test_what_else_is_wrong_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"^test.pcb.encoder: nowhere.yaml does not exist; give"):
        check_encoder(configured("nowhere.yaml"))
    path = write(tmp_path, MAP)
    with pytest.raises(InputError, match=r"m.onnx does not say how .*name a .yaml file"):
        check_encoder(configured(tmp_path / "m.onnx"))
    # before a training of hours, not after it
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    encoders._onnx.cache_clear()
    with pytest.raises(InputError, match=r"e.yaml needs onnxruntime.*pip install"):
        check_encoder(configured(path))


def identity(path):
    return encoder_identity(path, ENCODER)


def test_the_hash_is_of_the_content(tmp_path):
    first = identity(write(tmp_path / "a", MAP))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "m.onnx").rename(tmp_path / "b" / "n.onnx")
    (tmp_path / "b" / "e.yaml").write_text("# moved\n" + yaml.safe_dump({**MAP, "model": "n.onnx"}))
    assert identity(tmp_path / "b" / "e.yaml") == first
    (tmp_path / "b" / "e.yaml").write_text(
        yaml.safe_dump({**MAP, "std": [0.2] * 3, "model": "n.onnx"})
    )
    other = identity(tmp_path / "b" / "e.yaml")
    (tmp_path / "a" / "m.onnx").write_bytes(tiny_onnx.map_model(cell=16))
    assert len({first, other, identity(tmp_path / "a" / "e.yaml")}) == 3


def test_arrays_in_a_file_of_their_own_count(tmp_path):
    """As exporters write large models: the ONNX file has only names of what lies beside it."""
    path = write(tmp_path, MAP)
    kernel = np.zeros((3, 3, 8, 8), np.float32)
    content = tiny_onnx.model(
        [tiny_onnx.node("Conv", "image kernel", "map", strides=[8, 8])],
        [tiny_onnx.value("image", 1, 3, "height", "width")],
        [tiny_onnx.value("map", 1, 3, "h", "w")],
        [tiny_onnx.tensor("kernel", kernel, elsewhere="weights.bin")],
    )
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot load .*weights.bin"):
        make_encoder(configured(path))
    found = []
    for value in (1.0, 2.0):
        kernel[:] = value
        (tmp_path / "weights.bin").write_bytes(kernel.tobytes())
        found.append(make_encoder(configured(path)))
    assert found[0].identity != found[1].identity
    picture = np.full((8, 8, 3), 255, np.uint8)
    np.testing.assert_allclose(found[1].feature_map(picture), 2 * 3 * 64 * 2.0)


@pytest.fixture
def tree(tmp_path):
    """The set `toy` of test_calibration.py, and both kinds of ONNX files."""
    kshot_tree(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG.format(root=tmp_path))
    write(tmp_path / "map", MAP)
    write(tmp_path / "crop", CROP)
    return tmp_path


def mean_colour(path, box):
    """Of a box, RGB and normalised; bicubic resizing of whole pixels keeps it nearly."""
    x, y, width, height = box
    part = cv2.imread(str(path))[y : y + height, x : x + width, ::-1] / 255
    return (part.mean((0, 1)) - 0.5) / 0.25


@pytest.mark.parametrize("kind", ["map", "crop"])
def test_scores_are_mixed_with_the_encoders_cosines(tree, kind, caplog):
    """By the configuration, with caches: star's support box is [9, 8, 7, 6] of b.png."""
    flags = [f"--test.pcb.encoder={tree / kind / 'e.yaml'}", "--pcb_modelpath=nowhere"]
    flags += [f"--test.pcb.cache_dir={tree / 'cache'}", "--test.pcb.cache_features=true"]
    config = load_config(tree / "c.yaml", flags)
    info = read_sets(config, config.data.test)[0]
    calibrate = make_calibrator(config, info, None)
    name = str(tree / "toy" / "images" / "b.png")
    boxes = np.array([[9, 8, 16, 14], [20, 4, 44, 36]], np.float32)
    scores, classes = np.array([0.5, 0.4], np.float32), np.array([1, 1])
    result = calibrate(name, boxes, scores, classes)
    assert result[0] == pytest.approx(0.75, abs=1e-4)  # its own prototype
    if kind == "crop":
        first, second = mean_colour(name, [9, 8, 7, 6]), mean_colour(name, [20, 4, 24, 32])
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert result[1] == pytest.approx(0.2 + 0.5 * cosine, abs=0.02)
    again = make_calibrator(config, info, None)
    np.testing.assert_array_equal(again(name, boxes, scores, classes), result)
    kept = sorted(path.parent.parent.name for path in (tree / "cache").rglob("*.npz"))
    assert len(kept) == (2 if kind == "map" else 1)
    assert ("nothing is kept" in caplog.text) == (kind == "crop")
    # A change of the YAML file is another encoder: neither prototypes nor maps of before are taken.
    content = {**(MAP if kind == "map" else CROP), "channels": "bgr"}
    (tree / kind / "e.yaml").write_text(yaml.safe_dump(content))
    make_calibrator(config, info, None)(name, boxes, scores, classes)
    assert len(list((tree / "cache").rglob("*.npz"))) == 2 * len(kept)


def test_on_modelarts_it_lies_among_the_weights():
    urls = {"checkpoint_url": "obs://weights", "train_url": "obs://results"}
    config = with_encoder(Config(enable_modelarts=True, **urls), "onnx/clip.yaml")
    assert on_this_machine(config).test.pcb.encoder == "/cache/checkpoint/onnx/clip.yaml"


PAGES = ("docs/encoders.md", "docs/encoders_CN.md")


@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_files_that_are_taken(name, tmp_path):
    page = (project_folder() / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "e.yaml").write_text(block, encoding="utf-8")
        model = yaml.safe_load(block)["model"]
        (tmp_path / model).touch()
        settings, path = onnx_of(tmp_path / "e.yaml", ENCODER)
        assert path == tmp_path / model and settings.std[0] < 1


@pytest.mark.parametrize("name", PAGES)
def test_the_page_lists_every_key_with_its_default(name):
    page = (project_folder() / name).read_text(encoding="utf-8")
    shown = {}
    for cells in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|(.*?)\|", page, re.MULTILINE):
        for key in re.findall(r"`(\w+)`", cells[0]):
            shown[key] = yaml.safe_load(cells[1].strip(" `") or "''")
    fields = OnnxSettings.model_fields
    assert shown.keys() == fields.keys()
    for key, field in fields.items():
        assert shown[key] == ("" if field.is_required() else field.default), key
