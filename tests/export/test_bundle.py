# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Bundles as files: written whole or not at all; whatever is not whole is refused by its name."""

import errno
import io
import json
import os
import shutil
import tarfile

import numpy as np
import pytest

from src.export import bundle_files as module
from src.export.bundle import detector_values, encoder_values, open_bundle
from src.export.bundle_files import bundle_place, new_bundle, write_content
from src.model_utils.errors import InputError
from src.util import sha256_file

ARRAYS = {
    "projection_weight": np.arange(15, dtype=np.float32).reshape(3, 5),
    "projection_bias": np.array([0.5, -1, 2], np.float32),
    "prototypes": np.array([[0, 0, 0], [1, 2, 3]], np.float32),
}


def values(named):
    return [{"name": v.name, "dtype": v.dtype, "shape": list(v.shape)} for v in named]


def content():
    """Of a detector of two classes and an encoder of five channels."""
    inputs, outputs = detector_values(48, 80, 7, 2)
    given, features = encoder_values(64, 96, 5)
    return {
        "mindspore": "2.8.0",
        "graph_format": "ONNX",
        "mindir_version": None,
        "classes": [
            {"label": "cat", "category_id": 17, "novel": False},
            {"label": "Gnu", "category_id": 3, "novel": True},
        ],
        "input": {"height": 48, "width": 80, "min_size": 40, "max_size": 80, "max_pixels": 10**6},
        "detection": {"score_threshold": 0.05, "nms_threshold": 0.5, "detections_per_image": 9},
        "detector": {
            "file": "detector.onnx",
            "inputs": values(inputs),
            "outputs": values(outputs),
        },
        "calibration": {
            "encoder": {
                "file": "encoder.onnx",
                "height": 64,
                "width": 96,
                "stride": 32,
                "inputs": values(given),
                "outputs": values(features),
            },
            **{k: {"file": f"{k}.f32", "shape": list(a.shape)} for k, a in ARRAYS.items()},
            "calibrated": [False, True],
            "alpha": 0.25,
            "lower": 0.05,
            "upper": 1,
        },
        "checkpoint": {"file": "defrcn-3.ckpt", "sha256": "0" * 64},
        "support_set": None,
    }


def write(place, graph=b"graph"):
    with new_bundle(place) as folder:
        (folder / "detector.onnx").write_bytes(graph)
        (folder / "encoder.onnx").write_bytes(b"other")
        for name, array in ARRAYS.items():
            array.astype("<f4").tofile(folder / f"{name}.f32")
        write_content(folder, content())
    return place


@pytest.fixture
def made(tmp_path):
    """The folder of a bundle, with its tar file beside it."""
    return write(tmp_path / "gnu")


@pytest.mark.parametrize("suffix", ["", ".tar"])
def test_what_was_written_is_read(made, suffix):
    with open_bundle(f"{made}{suffix}") as found:
        assert found.class_names == ("cat", "Gnu") and found.category_ids == (17, 3)
        assert found.shape == (48, 80) and found.max_detections == 9
        assert found.detector.path.read_bytes() == b"graph"
        assert found.detector.outputs[1].shape == (1, 7, 3)
        part = found.calibration
        assert part.canvas == (64, 96) and part.encoder.outputs[0].shape == (1, 2, 3, 5)
        np.testing.assert_array_equal(part.weight, ARRAYS["projection_weight"])
        np.testing.assert_array_equal(part.prototypes, ARRAYS["prototypes"])
        assert part.calibrated.tolist() == [False, True] and part.alpha == 0.25
        place = found.detector.path
    assert place.exists() is (suffix == "")


def test_the_tar_file_is_that_folder(made):
    with tarfile.open(f"{made}.tar") as archive:
        members = archive.getmembers()
        assert {one.name for one in members} == {f"gnu/{p.name}" for p in made.iterdir()}
        last = [one.name for one in members[-2:]]
        assert last == ["gnu/bundle.json", "gnu/bundle.sha256"]
        for one in members:
            assert archive.extractfile(one).read() == (made / one.name[4:]).read_bytes()
    listed = json.loads((made / "bundle.json").read_text())["files"]
    assert listed["detector.onnx"] == {
        "bytes": 5,
        "sha256": sha256_file(made / "detector.onnx"),
    }


def test_one_without_calibration(made):
    rewrite(made, lambda c: c.update(calibration=None))
    with open_bundle(made) as found:
        assert found.calibration is None


def rewrite(folder, change):
    """Change what bundle.json says; the list of files stays as it is."""
    path = folder / "bundle.json"
    values_ = json.loads(path.read_text())
    change(values_)
    path.write_text(json.dumps(values_))
    module.write_sum(folder)


def both_forms(folder):
    """The folder as it is now, and as a tar file."""
    path = folder.with_name("now.tar")
    module._write_tar(folder, "now", path)
    return folder, path


def refused(folder, message):
    for one in both_forms(folder):
        with pytest.raises(InputError, match=message) as caught, open_bundle(one):
            pass
        assert "\n" not in str(caught.value) and str(one) in str(caught.value)


def setter(*keys, value):
    def change(tree):
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setter("format", value="zip"), "is no bundle: its format is 'zip', not defrcn-bundle"),
        (setter("format_version", value=2), "format version 2, and this program reads version 1"),
        (setter("files", "../x", value={"bytes": 1, "sha256": ""}), r"lists the file '\.\./x'"),
        (setter("files", "/etc/x", value={"bytes": 1, "sha256": ""}), "lists the file '/etc/x'"),
        (setter("files", "a\\x", value={"bytes": 1, "sha256": ""}), "lists the file"),
        (setter("files", "detector.onnx", "bytes", value=4), "detector.onnx has 5 bytes.* says 4"),
        (setter("files", "detector.onnx", "bytes", value=True), "bytes is True, not a whole"),
        (setter("files", "gone.f32", value={"bytes": 1, "sha256": "x"}), "lacks gone.f32"),
        (setter("detector", "file", value="../x"), r"detector\.file is '\.\./x', which files does"),
        (setter("calibration", "prototypes", "shape", value=[3, 3]), r"is \[3, 3\], not \[2, 3\]"),
        (setter("calibration", "projection_bias", "shape", value=[4]), r"is \[4\], not \[3\]"),
        (
            setter("calibration", "projection_weight", "shape", value=[4, 5]),
            r"projection_weight.shape is \[4, 5\], 80 bytes, but projection_weight.f32 has 60",
        ),
        (setter("calibration", "calibrated", value=[True]), "has 1 values for 2 classes"),
        (setter("calibration", "calibrated", value=[1, 0]), "0 is not true or false"),
        (setter("calibration", "alpha", value=1.5), "alpha is 1.5, not a number from 0 to 1"),
        (setter("calibration", "alpha", value=float("nan")), "alpha is nan, not a number"),
        (setter("calibration", "encoder", "stride", value=16), "no stride of 32"),
        (setter("calibration", "encoder", "height", value=65), "no stride of 32"),
        (setter("calibration", "encoder", "width", value=128), r"is \[1, 2, 3, 5\], not"),
        (setter("detector", "outputs", 1, "shape", value=[1, 8, 3]), r"not \[1, 7, 3\]"),
        (setter("detector", "outputs", 0, "shape", value=[1, 7, 4]), "not"),
        (setter("detector", "inputs", 0, "shape", value=[1, 3, 48, 81]), r"not \[1, 3, 48, 80\]"),
        (setter("detector", "inputs", 1, "dtype", value="int64"), "is 'int64', not int32"),
        (setter("detector", "inputs", value=[]), "is not a list of values"),
        (setter("classes", 1, "category_id", value=17), "has a category_id twice"),
        (setter("classes", 1, value="dog"), "classes.1 has no category_id"),
        (setter("input", value={}), "input has no height"),
        (setter("input", "height", value=0), "height is 0, not a whole number from 1"),
        (setter("graph_format", value="AIR"), "graph_format is 'AIR', not MINDIR or ONNX"),
        (setter("files", value=[]), "files is not an object"),
    ],
)
def test_descriptions_that_are_refused(made, change, message):
    rewrite(made, change)
    refused(made, message)


def test_a_flipped_bit(made):
    for name in ("detector.onnx", "encoder.onnx", "prototypes.f32"):
        path = made / name
        before = path.read_bytes()
        path.write_bytes(bytes([before[0] ^ 4]) + before[1:])
        refused(made, f"{name} was changed: its SHA-256 is not the one in bundle.json")
        path.write_bytes(before)


def test_a_flipped_bit_of_the_description(made):
    """Wherever it is: what reads well would be other figures without a word."""
    before = (made / "bundle.json").read_bytes()
    place = before.index(b'"alpha": 0.25') + 11
    for position in (place, *range(0, len(before), len(before) // 20)):
        spoilt = bytearray(before)
        spoilt[position] ^= 4
        (made / "bundle.json").write_bytes(spoilt)
        refused(made, "bundle")
        if position == place:
            refused(made, "bundle.json was changed: its SHA-256 is not the one in bundle.sha256")
    (made / "bundle.json").write_bytes(before)
    for text in ("", "0" * 64, "x" * 2000):
        (made / "bundle.sha256").write_text(text)
        with pytest.raises(InputError, match=r"bundle\.sha256"), open_bundle(made):
            pass
    (made / "bundle.sha256").unlink()
    refused(made, "lacks bundle.sha256")


def test_numbers_that_are_not_finite(made):
    path = made / "prototypes.f32"
    np.full((2, 3), np.nan, "<f4").tofile(path)
    rewrite(made, setter("files", path.name, "sha256", value=sha256_file(path)))
    refused(made, r"holds numbers that are not finite \(prototypes.f32\)")


def test_files_that_are_not_there(made, tmp_path):
    (made / "encoder.onnx").unlink()
    refused(made, "lacks encoder.onnx")
    (made / "bundle.json").unlink()
    refused(made, "is no bundle: it has no bundle.json")
    with (
        pytest.raises(InputError, match=r"--bundle: \S+gone does not exist"),
        open_bundle(tmp_path / "gone"),
    ):
        pass


def test_what_is_no_regular_file(made):
    (made / "encoder.onnx").unlink()
    os.mkfifo(made / "encoder.onnx")
    with pytest.raises(InputError, match="encoder.onnx is no regular file"), open_bundle(made):
        pass
    (made / "bundle.json").write_text("{")
    with pytest.raises(InputError, match="bundle.json is damaged"), open_bundle(made):
        pass


def tar_with(path, *entries):
    with tarfile.open(path, "w") as archive:
        for info in entries:
            archive.addfile(info, io.BytesIO(b"x" * info.size) if info.size else None)
    return path


def entry(name, kind=tarfile.REGTYPE, size=0):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("gnu/../../x", size=1)], "is no file in the bundle's own folder"),
        ([entry("/gnu/x", size=1)], "is no file in the bundle's own folder"),
        ([entry("gnu/bundle.json", tarfile.SYMTYPE)], "is no file in the bundle's own folder"),
        ([entry("gnu/a", tarfile.LNKTYPE)], "is no file in the bundle's own folder"),
        ([entry("a", size=1)], "is no file in the bundle's own folder"),
        ([entry("gnu/a", size=1), entry("gnu/a", size=1)], "holds a twice"),
        ([entry("gnu/a", size=1), entry("gnat/b", size=1)], "holds several folders"),
        ([entry("gnu", tarfile.DIRTYPE), entry("gnu/a", size=1)], "it has no bundle.json"),
        ([], "it has no bundle.json"),
    ],
)
def test_tar_files_that_are_refused(tmp_path, entries, message):
    path = tar_with(tmp_path / "x.tar", *entries)
    with pytest.raises(InputError, match=message) as caught, open_bundle(path):
        pass
    assert str(path) in str(caught.value)


def test_a_tar_file_that_is_cut_short(made):
    path = made.with_name("gnu.tar")
    whole = path.read_bytes()
    for size in (3, 600, whole.index(b'"alpha"'), whole.index(b"  bundle.json")):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="gnu.tar"), open_bundle(path):
            pass


def test_a_folder_in_the_tar_file_is_as_good(made):
    path = made.with_name("folder.tar")
    with tarfile.open(path, "w") as archive:
        archive.add(made, "gnu")
    with open_bundle(path) as found:
        assert found.class_names == ("cat", "Gnu")


# --- written whole or not at all


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_one_replaces_an_earlier_one(made):
    assert bundle_place(str(made)) == bundle_place(f"{made}.tar") == made
    write(made, b"second")
    assert names(made.parent) == ["gnu", "gnu.tar"]
    for suffix in ("", ".tar"):
        with open_bundle(f"{made}{suffix}") as found:
            assert found.detector.path.read_bytes() == b"second"


@pytest.mark.parametrize("fails", ["write_content", "_write_tar", "_replace"])
def test_a_failure_leaves_the_earlier_one_whole(made, monkeypatch, fails):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, fails, full)
    monkeypatch.setitem(globals(), "write_content", module.write_content)
    with pytest.raises(InputError, match="No space left"):
        write(made, b"second")
    assert names(made.parent) == ["gnu", "gnu.tar"]
    for suffix in ("", ".tar"):
        with open_bundle(f"{made}{suffix}") as found:
            assert found.detector.path.read_bytes() == b"graph"


def test_a_rename_that_fails_is_undone(made, monkeypatch):
    real = os.rename

    def once(source, target):
        if str(target) == str(made) and ".writing-" in str(source):
            raise OSError(errno.EACCES, "Permission denied")
        real(source, target)

    monkeypatch.setattr(module.os, "rename", once)
    with pytest.raises(InputError, match="Permission denied"):
        write(made, b"second")
    monkeypatch.undo()
    with open_bundle(made) as found:
        assert found.detector.path.read_bytes() == b"graph"
    assert names(made.parent) == ["gnu", "gnu.tar"]


def test_what_a_killed_process_left_is_settled(made):
    """It was killed between the two renames: the earlier one is back, then replaced."""
    os.rename(made, made.with_name(".gnu.old"))
    shutil.copytree(made.with_name(".gnu.old"), made.with_name(".gnu.writing-abc"))
    with pytest.raises(RuntimeError), new_bundle(made):
        raise RuntimeError
    assert names(made.parent) == ["gnu", "gnu.tar"]
    write(made, b"second")
    assert names(made.parent) == ["gnu", "gnu.tar"]


def test_places_that_are_refused(made, tmp_path):
    (made / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"gnu holds other files \(notes.txt\)"):
        bundle_place(str(made))
    (made / "notes.txt").unlink()
    (tmp_path / "gnu.tar").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"gnu.tar is no bundle and would be replaced"):
        bundle_place(str(made))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(made)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "bundle.json").write_text('{"format": "else"}')
    for name in ("file", "link", "other"):
        with pytest.raises(InputError, match=f"{name} is no bundle"):
            bundle_place(str(tmp_path / name))
    for name in ("", ".", "/", "..", ".tar"):
        with pytest.raises(InputError, match="names no folder"):
            bundle_place(name)
    (tmp_path / "empty").mkdir()
    assert bundle_place(str(tmp_path / "empty")) == tmp_path / "empty"
