# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""MindRecord folders: exact content, tied to their inputs, whole or absent."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from src.data import mindrecord_io
from src.data.batching import Preprocessing
from src.data.mindrecord_build import input_key
from src.data.mindrecord_io import FolderWriter, Row, read_rows
from src.data.transforms import PILLOW_MAX_PIXELS as PIXELS
from src.dataset import TrainLoader, build_mindrecord, open_mindrecord
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from tests.helpers.data_helpers import picture_records, record, write_image

NAMES = ("ring", "cross", "star")
SIZES = [(20, 30), (33, 20), (24, 24), (18, 40), (25, 31)]


def build(records, folder, **changes):
    settings = {"class_names": NAMES, "training": True, "show_progress": False}
    return build_mindrecord(records, folder, **{**settings, **changes})


@pytest.fixture
def records(tmp_path):
    return picture_records(tmp_path / "images", SIZES)


def stamp(folder: Path) -> dict:
    """Inode and time of every file: equal only if nothing was written anew."""
    stats = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (value.st_ino, value.st_mtime_ns) for name, value in stats.items()}


def row(index, content, num_boxes=0):
    rng = np.random.default_rng(index)
    boxes = rng.normal(0, 1e3, (num_boxes, 4)).astype(np.float32)
    classes = np.arange(num_boxes, dtype=np.int32)
    image_id = index if index % 2 else f"bild {index} ä"
    return Row(content, boxes, classes, 5 + index, 6, image_id, f"/a b/{index} ü.png")


def test_rows_come_back_exactly(tmp_path, monkeypatch):
    """Zeros at the end of an image, no boxes, odd ids, several files, repeated rows."""
    monkeypatch.setattr(mindrecord_io, "SHARD_BYTES", 5_000)
    contents = [b"x\0\0\0", b"\0", b"a" * 4000, b"b" * 4000, b"last\0"]
    rows = [row(index, content, index % 3) for index, content in enumerate(contents)]
    writer = FolderWriter(tmp_path, 4_000)
    for entry in rows:
        writer.write(entry)
    writer.finish("key", NAMES, {})
    info = open_mindrecord(tmp_path)
    assert len(info.files) == 2 and info.num_rows == 5 and info.max_boxes == 2
    assert info.sizes.tolist() == [[5 + index, 6] for index in range(5)]
    order = [4, 0, 0, 3, 1, 2, 2, 2, 4, 1, 0, 3]
    found = list(read_rows(info, order))
    assert len(found) == len(order)
    for index, entry in zip(order, found):
        expected = rows[index]
        for field in dataclasses.fields(Row):
            one, other = getattr(entry, field.name), getattr(expected, field.name)
            np.testing.assert_array_equal(one, other)
        assert (entry.boxes.dtype, entry.boxes.shape) == (np.float32, expected.boxes.shape)


def test_image_bytes_and_boxes_of_a_data_set(tmp_path, records):
    info = build(records, tmp_path / "m")
    found = list(read_rows(info, range(5)))
    for entry, source in zip(found, records):
        assert entry.content == Path(source.file_name).read_bytes()
        corners = [(x, y, x + w, y + h) for x, y, w, h in (a.bbox for a in source.annotations)]
        np.testing.assert_array_equal(entry.boxes, np.array(corners, np.float32))
        assert (entry.image_id, entry.file_name) == (source.image_id, source.file_name)
    assert info.num_boxes.tolist() == [1, 2, 3, 1, 2] and info.max_boxes == 3


def test_a_large_image_has_room(tmp_path):
    """MindRecord's own page would be too small for a row of more than 32 MB."""
    content = bytes(40 << 20)
    writer = FolderWriter(tmp_path, len(content))
    writer.write(row(0, content))
    writer.finish("key", NAMES, {})
    assert next(read_rows(open_mindrecord(tmp_path), [0])).content == content


def test_same_inputs_are_not_built_again(tmp_path, records):
    build(records, tmp_path / "m")
    before = stamp(tmp_path / "m")
    build(records, tmp_path / "m")
    assert stamp(tmp_path / "m") == before


def changed_box(records):
    entry = records[2].annotations[0]
    moved = dataclasses.replace(entry, bbox=(1.0, 2.0, 3.0, 4.0000001))
    return [
        *records[:2],
        dataclasses.replace(records[2], annotations=(moved, *records[2].annotations[1:])),
        *records[3:],
    ]


def changed_image(records):
    write_image(Path(records[1].file_name), *SIZES[1], seed=99)
    return records


@pytest.mark.parametrize(
    "change",
    [
        changed_box,
        changed_image,
        lambda records: records[::-1],
        lambda records: records[:-1],
    ],
)
def test_changed_inputs_are_noticed(tmp_path, records, change):
    build(records, tmp_path / "m")
    before = stamp(tmp_path / "m")
    records = change(records)
    info = build(records, tmp_path / "m")
    assert not set(stamp(tmp_path / "m").values()) & set(before.values())
    assert info.num_rows == len(records)


@pytest.mark.parametrize(
    "settings",
    [{"training": False}, {"class_names": ("a", "b", "c")}, {"max_image_pixels": 10_000}],
)
def test_changed_settings_are_noticed(tmp_path, records, settings):
    build(records, tmp_path / "m")
    before = stamp(tmp_path / "m")
    build(records, tmp_path / "m", **settings)
    assert not set(stamp(tmp_path / "m").values()) & set(before.values())


def labelled_records(tmp_path):
    """A crowd, a box without area, no object at all, one of two classes twice."""
    plain = picture_records(tmp_path / "images", SIZES)[:3]
    entry = plain[0].annotations[0]
    odd = (
        dataclasses.replace(entry, category_id=1, iscrowd=1),
        dataclasses.replace(entry, category_id=2, bbox=(5.0, 5.0, 0.0, 4.0)),
    )
    twice = (entry, entry, dataclasses.replace(entry, category_id=2))
    changed = ((entry, *odd), (), twice)
    return [dataclasses.replace(one, annotations=a) for one, a in zip(plain, changed)]


def test_labelled_classes_are_those_of_all_annotations(tmp_path):
    info = build(labelled_records(tmp_path), tmp_path / "m", training=False, labelled=True)
    found = list(read_rows(info, [2, 0, 1]))
    assert [row.labelled.tolist() for row in found] == [
        [True, False, True],
        [True, True, True],
        [False, False, False],
    ]
    assert [row.classes.tolist() for row in found] == [[0, 0, 2], [0], []]
    # what is left out says what a picture is labelled for, and is in the key
    records = labelled_records(tmp_path)
    crowd = dataclasses.replace(records[0].annotations[1], category_id=2)
    annotations = (records[0].annotations[0], crowd)
    records[0] = dataclasses.replace(records[0], annotations=annotations)
    info = build(records, tmp_path / "m", training=False, labelled=True)
    assert next(read_rows(info, [0])).labelled.tolist() == [True, False, True]


@pytest.mark.parametrize("shapes", [(), ((48, 64),)])
def test_labels_go_with_their_pictures(tmp_path, shapes):
    """In one process and in two, with exact and with fixed shapes."""
    info = build(labelled_records(tmp_path), tmp_path / "m", training=False, labelled=True)
    known = {row.image_id: row.labelled.tolist() for row in read_rows(info, range(3))}
    settings = {"batch_size": 1, "min_sizes": (20,), "labelled": True}
    settings |= {"settings": Preprocessing(shapes=shapes), "aspect_ratio_grouping": False}
    loaders = [
        TrainLoader(tmp_path / "m", **{**settings, "batch_size": 2}),
        TrainLoader(tmp_path / "m", **settings, rank=0, world_size=2),
        TrainLoader(tmp_path / "m", **settings, rank=1, world_size=2),
    ]
    for _ in range(6):
        whole, first, second = map(next, loaders)
        assert whole.labelled.tolist() == [known[name] for name in whole.image_ids]
        shared = np.concatenate((first.labelled, second.labelled))
        np.testing.assert_array_equal(whole.labelled, shared)
    for loader in loaders:
        loader.close()


def test_labelled_classes_are_under_the_checksum(tmp_path, monkeypatch):
    build(labelled_records(tmp_path), tmp_path / "m", training=False, labelled=True)
    info = open_mindrecord(tmp_path / "m")
    stored = mindrecord_io._row

    def changed(raw, expected, info):
        raw["labelled"] = 1 - raw["labelled"]
        return stored(raw, expected, info)

    monkeypatch.setattr(mindrecord_io, "_row", changed)
    with pytest.raises(InputError, match="row 0 .* is damaged"):
        next(read_rows(info, [0]))


def test_a_folder_without_labels_stays_valid_without_them(tmp_path, records):
    """Those with labels serve both; the key of one without is what it always was."""
    folder = tmp_path / "m"
    assert not build(records, folder).labelled
    key = json.loads((folder / "meta.json").read_text())["key"]
    assert key == input_key(records, training=True, class_names=NAMES, max_pixels=PIXELS)
    assert "labelled" not in json.loads((folder / "meta.json").read_text())
    before = stamp(folder)
    assert build(records, folder, labelled=True).labelled
    after = stamp(folder)
    assert not set(before.values()) & set(after.values())
    assert build(records, folder).labelled and stamp(folder) == after
    with contextlib.closing(TrainLoader(folder, labelled=True)) as loader:
        assert next(loader).labelled.shape == (1, 3)
    with contextlib.closing(TrainLoader(folder)) as loader:
        assert next(loader).labelled is None
    build(records, tmp_path / "without")
    with pytest.raises(InputError, match="does not say what its images are labelled for"):
        TrainLoader(tmp_path / "without", labelled=True)


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


def data_file(folder):
    return folder / "data-0000.mindrecord"


def image_position(folder, records) -> int:
    """Where the third picture lies in the data file."""
    return data_file(folder).read_bytes().index(Path(records[2].file_name).read_bytes()) + 40


DAMAGE = {
    "bit": lambda folder, records: flip_bit(data_file(folder), image_position(folder, records)),
    "cut": lambda folder, _: os.truncate(data_file(folder), 1000),
    "no data": lambda folder, _: data_file(folder).unlink(),
    "no index": lambda folder, _: Path(f"{data_file(folder)}.db").unlink(),
    "index bit": lambda folder, _: flip_bit(Path(f"{data_file(folder)}.db"), 5000),
    "no meta": lambda folder, _: (folder / "meta.json").unlink(),
    "cut meta": lambda folder, _: os.truncate(folder / "meta.json", 100),
    "odd meta": lambda folder, _: (folder / "meta.json").write_text('{"format_version": 1}'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_noticed_and_repaired(tmp_path, records, damage):
    folder = tmp_path / "m"
    build(records, folder)
    damage(folder, records)
    info = build(records, folder)
    assert [entry.image_id for entry in read_rows(info, range(5))] == [100, 101, 102, 103, 104]


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind != "bit"])
def test_damage_is_refused_when_opening(tmp_path, records, kind):
    folder = tmp_path / "m"
    build(records, folder)
    DAMAGE[kind](folder, records)
    with pytest.raises(InputError, match="m is not a whole MindRecord folder"):
        open_mindrecord(folder)


def test_a_flipped_bit_is_noticed_in_its_row(tmp_path, records):
    folder = tmp_path / "m"
    build(records, folder)
    DAMAGE["bit"](folder, records)
    info = open_mindrecord(folder)
    assert len(list(read_rows(info, [0, 1, 3, 4]))) == 4
    with pytest.raises(InputError, match=r"row 2 \(.*002\.png\) is damaged"):
        list(read_rows(info, [0, 1, 2]))


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_mindrecord(tmp_path / "nothing")


def test_copied_and_renamed_folder_reads_its_own_files(tmp_path, records):
    build(records, tmp_path / "m")
    shutil.copytree(tmp_path / "m", tmp_path / "other name")
    shutil.rmtree(tmp_path / "m")
    info = open_mindrecord(tmp_path / "other name")
    assert [entry.image_id for entry in read_rows(info, [4, 0])] == [104, 100]


def test_foreign_folder_is_not_removed(tmp_path, records):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a MindRecord folder"):
        build(records, tmp_path / "m")
    assert (tmp_path / "m" / "thesis.txt").read_text() == "years of work"


def test_full_disk_is_told_before(tmp_path, records, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="MB are needed .* 0 MB are free"):
        build(records, tmp_path / "m")


BUILD = """
import sys
from pathlib import Path
from tests.helpers.data_helpers import record
from src.dataset import build_mindrecord
source, folder = sys.argv[1:]
records = [record(path, 60, 80, image_id=index)
           for index, path in enumerate(sorted(Path(source).iterdir()))]
build_mindrecord(records, folder, class_names=("a",), training=True)
"""


def start_build(source, folder):
    command = [sys.executable, "-c", BUILD, str(source), str(folder)]
    root = project_folder()
    return subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL)


def test_killed_build_leaves_nothing_that_passes_for_whole(tmp_path):
    for index in range(800):
        path = tmp_path / "images" / f"{index:04d}.png"
        if index:
            os.link(tmp_path / "images" / "0000.png", path)
        else:
            write_image(path, 60, 80)
    process = start_build(tmp_path / "images", tmp_path / "m")
    deadline = time.time() + 60
    while not list(tmp_path.glob(".m.building-*/data-0000.mindrecord")):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "m").exists()
    assert list(tmp_path.glob(".m.building-*"))
    records = [
        record(path, 60, 80, image_id=index)
        for index, path in enumerate(sorted((tmp_path / "images").iterdir()))
    ]
    assert build(records, tmp_path / "m", class_names=("a",)).num_rows == 800
    assert not list(tmp_path.glob(".m.building-*"))


def test_two_processes_at_once(tmp_path):
    picture_records(tmp_path / "images", [(60, 80)] * 40)
    processes = [start_build(tmp_path / "images", tmp_path / "m") for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert open_mindrecord(tmp_path / "m").num_rows == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.lock", "images", "m"]


def test_two_threads_at_once(tmp_path, records):
    """The same within a process: one builds, the other finds it built."""
    threads = [threading.Thread(target=build, args=(records, tmp_path / "m")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert open_mindrecord(tmp_path / "m").num_rows == 5


def test_meta_tells_what_was_found(tmp_path, records):
    build(records, tmp_path / "m")
    meta = json.loads((tmp_path / "m" / "meta.json").read_text())
    assert meta["class_names"] == list(NAMES) and meta["num_boxes"] == [1, 2, 3, 1, 2]
    assert set(meta["files"]) == {"data-0000.mindrecord", "data-0000.mindrecord.db"}


@pytest.mark.parametrize("show", [True, False])
def test_progress_bar(tmp_path, records, capsys, show):
    build(records, tmp_path / "m", show_progress=show, num_workers=3)
    assert ("5/5" in capsys.readouterr().err) == show
