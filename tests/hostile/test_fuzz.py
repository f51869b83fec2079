# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Readers of foreign files, fed with whatever hypothesis thinks of: a result or an `InputError`.

DEFRCN_FUZZ_EXAMPLES=20000 pytest tests/hostile/test_fuzz.py searches for minutes, each time
elsewhere; what it found stands below as an example or in the tables of `test_hostile_*`.
"""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from src.data.mindrecord_build import BuildReport, usable_boxes
from src.data.mindrecord_io import open_mindrecord
from src.data.transforms import decode, header
from src.dataset import load_dataset
from src.evaluation.detection_rows import read_rows
from src.model_utils.config import describe_keys, load_config
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.weights.checkpoint import load_weights, read_manifest, save_checkpoint
from src.weights.ckpt_format import read_ckpt, write_ckpt
from src.weights.restricted_pickle import load_pickle, named_arrays
from src.weights.torch_file import load_torch
from tests.helpers import fake_torch
from tests.helpers.data_helpers import coco_content, encoded, pixels, voc_xml, write_image

EXAMPLES = int(os.environ.get("DEFRCN_FUZZ_EXAMPLES", "0"))
fuzz = settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    deadline=5000,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def accepted(read, *arguments, **named):
    """What a reader gives; None if it refuses. Anything else it raises fails the test."""
    try:
        return read(*arguments, **named)
    except InputError as error:
        text = str(error)
        assert text and "\n" not in text.split("problems")[0][:400]
        return None


# ---- mutations ----

numbers = st.one_of(
    st.integers(-(10**3), 10**3),
    st.sampled_from([0, -1, 2**31, 2**32, 2**63, 2**64, 10**309, 10**400, True, False]),
    st.floats(),
)
texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", " ", "..", "/", "../a.png", "a.png", "\0", "\ud800", "nan", "ring"]),
)
values = st.recursive(
    st.one_of(st.none(), numbers, texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(texts, st.sampled_from(["id", "bbox", "file_name", "name"])),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


def paths_of(tree, path=()):
    """Every place in a tree of dictionaries and lists."""
    yield path
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from paths_of(value, (*path, key))


@st.composite
def mutated(draw, good):
    """A tree with some of its places changed, dropped or doubled."""
    tree = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(sorted(paths_of(tree), key=repr)))
        if not path:
            continue
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["change", "change", "drop", "double"]))
        if kind == "change":
            parent[path[-1]] = draw(values)
        elif kind == "drop":
            del parent[path[-1]]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:
            parent[draw(texts)] = copy.deepcopy(parent[path[-1]])
    return tree


@st.composite
def bent(draw, good: bytes):
    """Bytes with some flipped, cut out, doubled or put in."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "set", "cut", "end", "insert", "double"]))
        length = draw(st.integers(1, 40))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and content:
            content[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "end":
            del content[at:]
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=20))
        else:
            content[at:at] = content[at : at + length]
    return bytes(content)


# ---- annotations ----


def custom(form, annotations, images, **named):
    source = CustomSource(annotations=annotations, images=images)
    return {"toy": CustomDataset(format=form, train=source, test=source, **named)}


def check_records(records):
    """What the rest of the program relies on."""
    report = BuildReport()
    for one in records:
        assert one.height > 0 and one.width > 0
        assert ".." not in Path(one.file_name).parts
        boxes, classes = usable_boxes(one, report)
        assert np.isfinite(boxes).all() and (classes >= 0).all()
        assert all(math.isfinite(value) for item in one.annotations for value in item.bbox)


@fuzz
@given(mutated(coco_content()))
@example({**coco_content(), "annotations": [{"id": 1, "image_id": 5}]})
def test_coco(place, tree):
    (place / "coco.json").write_text(json.dumps(tree))
    sets = custom("coco", "coco.json", "images", novel_classes=())
    found = accepted(load_dataset, ["toy_train_all"], datasets_root=place, custom=sets)
    if found is not None:
        check_records(found[1])


@fuzz
@given(bent(json.dumps(coco_content()).encode()))
def test_coco_bytes(place, content):
    (place / "coco.json").write_bytes(content)
    sets = custom("coco", "coco.json", "images")
    found = accepted(load_dataset, ["toy_train_all"], datasets_root=place, custom=sets)
    if found is not None:
        check_records(found[1])


XML = voc_xml(40, 60, [("ring", 2, 3, 30, 30, 0), ("cross", 1, 1, 9, 9, 1)], "one.png").encode()


@fuzz
@given(bent(XML))
def test_voc(place, content):
    (place / "voc").mkdir(exist_ok=True)
    (place / "voc" / "one.xml").write_bytes(content)
    sets = custom("voc", "voc", "voc", classes=("ring", "cross"))
    found = accepted(load_dataset, ["toy_train_all"], datasets_root=place, custom=sets)
    if found is not None:
        check_records(found[1])


LABELS = b"0 0.5 0.5 0.25 0.5\n1 0.125 0.25 0.5 0.25 0.5 0.75\n"
DATA_YAML = b"train: images\nnc: 2\nnames:\n  0: ring\n  1: 'cross'\n"


@fuzz
@given(bent(LABELS), bent(DATA_YAML))
@example(b"0 0.5 0.5 1e999 0", DATA_YAML)
@example(LABELS, b"names: {0: ring, 10000000000000000000000000: cross}")
def test_yolo(place, labels, settings):
    folder = place / "yolo"
    if not folder.is_dir():
        write_image(folder / "one.png", 40, 60)
    (folder / "one.txt").write_bytes(labels)
    sets = custom("yolo", "yolo/data.yaml", "yolo")
    for content in (DATA_YAML, settings):
        (folder / "data.yaml").write_bytes(content)
        found = accepted(load_dataset, ["toy_train_all"], datasets_root=place, custom=sets)
        if found is not None:
            check_records(found[1])


ROW = {"image_id": 5, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5}


@fuzz
@given(mutated([ROW, dict(ROW, image_id=3)]))
@example([dict(ROW, bbox=[1, 2, 10**400, 4])])  # was an OverflowError
@example([dict(ROW, score=10**400)])
def test_rows(place, tree):
    (place / "rows.json").write_text(json.dumps(tree))
    for one in accepted(read_rows, place / "rows.json") or ():
        assert all(math.isfinite(float(value)) for value in (*one["bbox"], one["score"]))


# ---- configuration ----

KEYS = [line.split("=")[0].strip(" -") for line in describe_keys().splitlines()]
BASE = {
    "seed": 3,
    "data": {"train": ["toy_train_all"], "custom": {"toy": {"format": "coco"}}},
    "solver": {"max_iter": 5, "steps": [2], "warmup_iters": 0},
    "input": {"input_shapes": [[32, 64]]},
    "model": {"anchors": {"sizes": [16.0, 32.0]}, "backbone": {"depth": 26}},
}


@fuzz
@given(mutated(BASE))
@example({"data": {"custom": {"\ud800": None}}})  # was a UnicodeEncodeError
def test_configuration(place, tree):
    try:
        text = yaml.safe_dump(tree)
    except (UnicodeEncodeError, yaml.YAMLError):
        return
    (place / "c.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    accepted(load_config, place / "c.yaml")


@fuzz
@given(bent(yaml.safe_dump(BASE).encode()))
def test_configuration_bytes(place, content):
    (place / "c.yaml").write_bytes(content)
    accepted(load_config, place / "c.yaml")


@fuzz
@given(st.lists(st.tuples(st.sampled_from(KEYS), values, texts), max_size=4))
def test_flags(place, flags):
    (place / "c.yaml").write_text("seed: 1\n")
    words = [
        f"--{key}={json.dumps(value) if text != 'nan' else text}" for key, value, text in flags
    ]
    accepted(load_config, place / "c.yaml", words)


# ---- weights ----

PARAMS = {
    "affine_rpn.weight": np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1),
    "half": np.ones((2, 3), np.float16),
    "count": np.arange(3, dtype=np.int64),
}


def weights_bytes(place):
    path = write_ckpt(place / "good.ckpt", PARAMS)
    return path.read_bytes()


@fuzz
@given(st.data())
def test_ckpt(place, data):
    """Also without its CRC, which would stop nearly everything."""
    whole = weights_bytes(place)
    plain = whole[:-17]
    content = data.draw(bent(plain))
    if data.draw(st.booleans()):
        content += b"crc_num" + zlib.crc32(content).to_bytes(10, "big")
    (place / "bent.ckpt").write_bytes(content)
    found = accepted(read_ckpt, place / "bent.ckpt")
    if found is not None:
        assert all(array.nbytes <= len(content) * 2 for array in found[0].values())
    accepted(load_weights, place / "bent.ckpt")


def torch_bytes(place, save):
    save(place / "good.pth", {"model": {"w": fake_torch.tensor("0", PARAMS["affine_rpn.weight"])}})
    return (place / "good.pth").read_bytes()


@fuzz
@given(st.data())
@pytest.mark.parametrize("save", [fake_torch.save_zip, fake_torch.save_legacy])
def test_pth(place, save, data):
    (place / "bent.pth").write_bytes(data.draw(bent(torch_bytes(place, save))))
    found = accepted(load_torch, place / "bent.pth")
    if found is not None:
        accepted(named_arrays, found, "bent.pth")


@fuzz
@given(st.one_of(bent(pickle.dumps(PARAMS, 2)), bent(pickle.dumps(PARAMS, 4)), st.binary()))
def test_pkl(place, content):
    (place / "bent.pkl").write_bytes(content)
    found = accepted(load_pickle, place / "bent.pkl")
    if found is not None:
        accepted(named_arrays, found, "bent.pkl")


OPCODES = [getattr(pickle, name) for name in dir(pickle) if name.isupper()]
OPCODES = [code for code in OPCODES if isinstance(code, bytes) and len(code) == 1]


@fuzz
@given(st.lists(st.one_of(st.sampled_from(OPCODES), st.binary(max_size=5)), max_size=30))
def test_pickle_programs(place, parts):
    (place / "program.pkl").write_bytes(b"\x80\x04" + b"".join(parts))
    accepted(load_pickle, place / "program.pkl")


# ---- files of our own ----


@pytest.fixture(scope="module")
def manifest(place):
    state = {"seed": np.array(0)}
    path = save_checkpoint(place / "ckpt", 3, PARAMS, state, {"class_names": ["a"]})
    return path.with_suffix(".json")


@fuzz
@given(st.data())
def test_manifest(place, manifest, data):
    good = manifest.read_bytes()
    (place / "bent").mkdir(exist_ok=True)
    (place / "bent" / "defrcn-3.json").write_bytes(data.draw(bent(good)))
    found = accepted(read_manifest, place / "bent" / "defrcn-3.json")
    assert found is None or found == read_manifest(manifest)


META = {
    "format_version": 1,
    "key": "k",
    "num_rows": 1,
    "class_names": ["a"],
    "max_boxes": 1,
    "files": {"data-0000.mindrecord": {"bytes": 3, "sha256": "0"}},
    "report": {},
    "sizes": [[3, 4]],
    "num_boxes": [1],
}


@fuzz
@given(mutated(META))
@example({**META, "files": {"data-0000.mindrecord": 3}})
@example({**META, "files": None})  # was an AttributeError
@example({**META, "num_rows": None})  # these three were accepted
@example({**META, "sizes": []})
@example({**META, "files": {"../data-0000.mindrecord": {"bytes": 3, "sha256": "0"}}})
@example({**META, "files": {"data-0000.mindrecord": {"bytes": 3, "sha256": "0"}}, "sizes": "x"})
def test_mindrecord_meta(place, tree):
    folder = place / "m"
    folder.mkdir(exist_ok=True)
    (folder / "data-0000.mindrecord").write_bytes(b"abc")
    (folder / "meta.json").write_text(json.dumps(tree))
    info = accepted(open_mindrecord, folder)
    if info is not None:
        assert len(info.sizes) == len(info.num_boxes) == info.num_rows


PICTURES = [
    encoded(Image.fromarray(pixels(12, 15)), kind)
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
]


@fuzz
@given(st.sampled_from(PICTURES).flatmap(bent))
def test_pictures(content):
    accepted(header, content, "x.png")
    found = accepted(decode, content, "x.png", 1 << 20)
    if found is not None:
        assert found.mode == "RGB" and np.asarray(found).dtype == np.uint8
