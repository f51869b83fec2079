# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Files between the network's surroundings: inputs with a manifest, results checked against it."""

import json
import shutil

import numpy as np
import pytest

from src.data.batching import Batch
from src.export.manifest import read_manifest, write_inputs
from src.export.results import StoredResults
from src.model_utils.errors import InputError
from src.util import write_json

CLASSES, SLOTS = 2, 3
IDS = ("000007", 2**40, 2**31 - 1, 12)
SHAPES = ((1, SLOTS, CLASSES, 4), (1, SLOTS, CLASSES + 1), (1, SLOTS), (1, 4))
DTYPES = ("float32", "float32", "int32", "int32")


def batch(identity):
    empty = np.zeros((1, 0), np.int32)
    return Batch(
        images=np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4),
        image_sizes=np.array([[4, 3]], np.float32),
        padded_size=np.array([4, 3], np.int32),
        gt_boxes=np.zeros((1, 0, 4), np.float32),
        gt_classes=empty,
        gt_valid=empty > 0,
        image_ids=[identity],
        file_names=[f"{identity}.png"],
        original_sizes=np.array([[8, 6]], np.int32),
    )


def write(folder, ids=IDS, num_images=None):
    return write_inputs(
        folder,
        map(batch, ids),
        num_images=num_images or len(ids),
        dataset="some_test_all",
        input_shape=(4, 4),
        config_digest="digest",
    )


@pytest.fixture
def inputs(tmp_path):
    return write(tmp_path / "in")


@pytest.fixture
def results(tmp_path, inputs):
    """What an inference program would leave, boxes not restored."""
    folder = tmp_path / "out"
    folder.mkdir()
    for number, entry in enumerate(inputs.entries):
        values = [np.full(shape, number, dtype) for shape, dtype in zip(SHAPES, DTYPES)]
        values[2][:] = [[1, 1, 0]]
        values[3][:] = [[entry.number, 2, 0, 0]]
        for index, value in enumerate(values):
            value.tofile(folder / f"{entry.stem}_{index}.bin")
    # in any order: they have their numbers
    listed = [
        {"index": i, "name": f"Stack-{i}", "dtype": DTYPES[i], "shape": list(SHAPES[i])}
        for i in (2, 0, 3, 1)
    ]
    write_json(folder / "outputs.json", {"outputs": listed})
    write_json(folder / "done.json", {"stems": [entry.stem for entry in inputs.entries]})
    return folder


def test_inputs(tmp_path, inputs):
    """VOC's ids are words, and a data set of one's own may have ids beyond int32."""
    assert inputs == read_manifest(tmp_path / "in")
    assert [entry.number for entry in inputs.entries] == [0, 1, 2**31 - 1, 12]
    assert tuple(entry.image_id for entry in inputs.entries) == IDS
    image, identity, meta = (
        np.fromfile(tmp_path / "in" / f"eval_{kind}_bin" / "00002.bin", dtype).tolist()
        for kind, dtype in (("img", "<f4"), ("id", "<i4"), ("meta", "<f4"))
    )
    assert image == list(range(48))
    assert identity == [2**31 - 1]
    assert meta == [4, 3, 8, 6]
    content = json.loads(inputs.path.read_text())
    assert [one["shape"] for one in content["inputs"]] == [[1, 3, 4, 4], [1], [1, 4]]
    assert content["images"][0]["scale"] == [0.5, 0.5]


def test_outputs(inputs, results):
    stored = StoredResults(results, inputs, CLASSES)
    assert len(stored) == 4 and not stored.restored
    for number, one in enumerate(stored):
        assert one.image_ids == [IDS[number]]
        assert one.image_sizes.tolist() == [[4, 3]]
        assert one.original_sizes.tolist() == [[8, 6]]
        boxes, scores, valid = stored(one)
        assert boxes.shape == (SLOTS, CLASSES, 4) and (boxes == number).all()
        assert scores.shape == (SLOTS, CLASSES + 1) and (scores == number).all()
        assert valid.tolist() == [True, True, False]


def test_restored_boxes_need_no_way_back(inputs, results):
    for entry in inputs.entries:
        np.array([[entry.number, 2, 0, 1]], np.int32).tofile(results / f"{entry.stem}_3.bin")
    stored = StoredResults(results, inputs, CLASSES)
    assert stored.restored
    assert all(one.image_sizes.tolist() == [[8, 6]] for one in stored)


def missing(folder):
    (folder / "00002_1.bin").unlink()


def short(folder):
    path = folder / "00003_0.bin"
    path.write_bytes(path.read_bytes()[:-4])


def several_missing(folder):
    for path in folder.glob("*_2.bin"):
        path.unlink()


def unfinished(folder):
    (folder / "done.json").unlink()


def without_outputs(folder):
    (folder / "outputs.json").unlink()


def partly_done(folder):
    write_json(folder / "done.json", {"stems": ["00000", "00001"]})


def of_others(folder):
    stems = [f"{number:05d}" for number in range(5)]
    write_json(folder / "done.json", {"stems": stems})


def unlisted(folder):
    write_json(folder / "done.json", {"count": 4})


def damaged(folder):
    (folder / "outputs.json").write_text("{")


def damaged_inside(folder):
    write_json(folder / "outputs.json", {"outputs": [{"index": 0}]})


def no_outputs(folder):
    write_json(folder / "outputs.json", {"outputs": []})


def mixed(folder):
    for index in range(4):
        shutil.copy(folder / f"00000_{index}.bin", folder / f"00001_{index}.bin")


def half_restored(folder):
    np.array([[12, 2, 0, 1]], np.int32).tofile(folder / "00003_3.bin")


def unsettled(folder):
    np.array([[12, 2, 7, 0]], np.int32).tofile(folder / "00003_3.bin")


def other_classes(folder):
    content = json.loads((folder / "outputs.json").read_text())
    content["outputs"][1]["shape"][2] = 80
    write_json(folder / "outputs.json", content)


def other_dtype(folder):
    content = json.loads((folder / "outputs.json").read_text())
    content["outputs"][1]["dtype"] = "float16"
    write_json(folder / "outputs.json", content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, r"out: 1 result files are missing or cut short \(00002_1.bin\)"),
        (short, r"out: 1 result files are missing or cut short \(00003_0.bin\)"),
        (several_missing, r"4 result files .*00000_2.bin, 00001_2.bin, 00002_2.bin, and 1 more"),
        (unfinished, "no done.json: the inference program did not finish"),
        (without_outputs, "no outputs.json: the inference program did not finish"),
        (partly_done, r"lack 2 of 4 pictures \(00002, 00003\)"),
        (of_others, r"of other pictures than \S+manifest.json lists \(00004\)"),
        (unlisted, "does not list the pictures"),
        (damaged, "outputs.json is damaged"),
        (damaged_inside, "outputs.json is damaged"),
        (no_outputs, "outputs.json is damaged"),
        (mixed, r"00001_3.bin is of image 0, the manifest has 1 there"),
        (half_restored, r"00003_3.bin is of image 12"),
        (unsettled, r"not complete in 1 pictures \(12.png\)"),
        (other_classes, "not those of a detector of 2 classes"),
        (other_dtype, r"float16 .*not those of a detector of 2 classes"),
    ],
)
def test_results_that_are_refused(inputs, results, spoil, message):
    spoil(results)
    with pytest.raises(InputError, match=message) as caught:
        StoredResults(results, inputs, CLASSES)
    assert "\n" not in str(caught.value)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"holds other files \(thesis.tex\)"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_interrupted_run_is_not_whole(tmp_path, inputs):
    """The old manifest goes first, so that old and new files are never taken for one set."""

    def stopping():
        yield batch(1)
        raise KeyboardInterrupt

    folder = inputs.path.parent
    with pytest.raises(KeyboardInterrupt):
        write_inputs(
            folder,
            stopping(),
            num_images=2,
            dataset="some_test_all",
            input_shape=(4, 4),
            config_digest="digest",
        )
    with pytest.raises(InputError, match=r"has no manifest.json: preprocess.py did not finish"):
        read_manifest(folder)
    assert len(write(folder).entries) == 4


def test_fewer_pictures_than_announced(tmp_path):
    with pytest.raises(InputError, match="4 of 5 pictures"):
        write(tmp_path / "in", num_images=5)


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(InputError, match=r"needs 0.0 GB, the disk has 0.0 GB left"):
        write(tmp_path / "in")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "else", "format_version": 1}'])
def test_damaged_manifests(inputs, text):
    inputs.path.write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is damaged .*run preprocess\.py again"):
        read_manifest(inputs.path.parent)
