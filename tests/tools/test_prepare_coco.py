# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The COCO tree out of the official downloads, and the check of a tree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.dataset import load_dataset
from src.defrcn.built_datacategory import COCO_CATEGORIES
from src.model_utils.errors import InputError
from src.tools import prepare_coco
from tests.helpers.data_helpers import shared, write_image

TEST_IDS = sorted(prepare_coco.read_test_ids())
CATEGORIES = [{"id": number, "name": name} for number, name in COCO_CATEGORIES]


def entry(number, image_id, **values):
    return {"id": number, "image_id": image_id, "category_id": 1, "bbox": [1, 1, 5, 5], **values}


@pytest.fixture
def downloads(tmp_path):
    """Official downloads in small: two test images of the split, one without objects."""
    source = tmp_path / "down loads"
    train_ids, val_ids = (9, 25, 30), (TEST_IDS[0], TEST_IDS[1], 42, 73)
    parts = {"train2014": train_ids, "val2014": val_ids}
    annotations = {
        "train2014": [entry(1, 9), entry(2, 25, iscrowd=1, area=3.5, segmentation=[[1, 2]])],
        "val2014": [entry(3, TEST_IDS[0]), entry(4, TEST_IDS[0]), entry(5, 42)],
    }
    for part, ids in parts.items():
        images = [
            {"id": i, "file_name": f"COCO_{part}_{i:012d}.jpg", "height": 20, "width": 30}
            for i in ids
        ]
        for image in images:
            write_image(source / part / image["file_name"], 20, 30, image["id"])
        content = {
            "info": {"part": part},
            "licenses": [],
            "images": images,
            "annotations": annotations[part],
            "categories": CATEGORIES,
        }
        path = source / "annotations" / f"instances_{part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return source


def run(root, *flags):
    return prepare_coco.main([f"--datasets_root={root}", *flags])


def splits(root):
    folder = root / "cocosplit" / "datasplit"
    names = ("5k", "trainvalno5k")
    return [json.loads((folder / f"{name}.json").read_text()) for name in names]


def test_the_ids_are_the_published_ones():
    assert len(TEST_IDS) == 5000 and not {42, 73} & set(TEST_IDS)
    path = shared("tfa_splits") / "tfa_coco_5k_image_ids.txt"
    assert TEST_IDS == sorted(int(line) for line in path.read_text().split())


def test_split_rule(downloads, tmp_path, capsys):
    root = tmp_path / "data sets"
    assert run(root, f"--source={downloads}", "--allow_partial") == 0
    test, trainval = splits(root)
    # the test part has its images with and without objects, the training part only those with
    assert [image["id"] for image in test["images"]] == TEST_IDS[:2]
    assert [annotation["id"] for annotation in test["annotations"]] == [3, 4]
    assert [image["id"] for image in trainval["images"]] == [9, 25, 42]
    assert trainval["annotations"][1] == entry(2, 25, iscrowd=1, area=3.5, segmentation=[[1, 2]])
    assert test["categories"] == trainval["categories"] == CATEGORIES
    assert "only 2 of the 5000 published test images" in capsys.readouterr().out


def test_links(downloads, tmp_path):
    root = tmp_path / "d"
    assert run(root, f"--source={downloads}", "--allow_partial") == 0
    links = sorted((root / "coco" / "trainval2014").iterdir())
    assert len(links) == 7 and all(link.is_symlink() for link in links)
    for link in links:
        part = link.name.split("_")[1]
        assert link.read_bytes() == (downloads / part / link.name).read_bytes()
    info, records = load_dataset(["coco14_trainval_all"], datasets_root=root)
    assert all(Path(record.file_name).is_file() for record in records)
    # links within the tree are relative, so the tree may be moved
    root.rename(tmp_path / "moved")
    assert all(link.is_file() for link in (tmp_path / "moved/coco/trainval2014").iterdir())


def test_downloads_unpacked_in_place(downloads, tmp_path):
    root = tmp_path / "d"
    root.mkdir()
    downloads.rename(root / "coco")
    assert run(root, "--allow_partial") == 0
    assert not (root / "coco" / "val2014").is_symlink()
    assert run(root, "--check") == 0


def test_again_changes_nothing_and_repairs_links(downloads, tmp_path):
    root = tmp_path / "d"
    flags = (f"--source={downloads}", "--allow_partial")
    run(root, *flags)
    link = next((root / "coco" / "trainval2014").iterdir())
    link.unlink()
    link.symlink_to("nowhere")
    target = root / "cocosplit" / "datasplit" / "5k.json"
    target.write_text(target.read_text() + " ")
    assert run(root, *flags) == 0
    assert link.is_file()
    assert target.read_text().endswith(" ")  # a file that is there is kept
    assert run(root, *flags, "--overwrite") == 0
    assert not target.read_text().endswith(" ")


def test_part_of_coco_must_be_asked_for(downloads, tmp_path):
    with pytest.raises(InputError, match="list 7 images, not COCO 2014's 123287"):
        run(tmp_path / "d", f"--source={downloads}")
    assert not (tmp_path / "d" / "cocosplit").exists()


def test_full_set_must_give_the_published_split(downloads, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_coco, "OFFICIAL_IMAGES", 7)
    with pytest.raises(InputError, match=r"5k\.json would hold .* not the published split"):
        run(tmp_path / "d", f"--source={downloads}")


def test_missing_downloads_are_all_named(downloads, tmp_path):
    (downloads / "annotations" / "instances_val2014.json").unlink()
    (downloads / "train2014").rename(downloads / "train")
    with pytest.raises(InputError, match=r"train2014, .*instances_val2014\.json; download"):
        run(tmp_path / "d", f"--source={downloads}")


def test_check_names_what_is_missing(downloads, tmp_path, capsys):
    root = tmp_path / "d"
    assert run(root, "--check") == 1
    output = capsys.readouterr().out
    for name in ("trainvalno5k.json", "5k.json", "trainval2014", "val2014"):
        assert f"{name}" in output
    assert not root.exists()  # a check changes nothing
    run(root, f"--source={downloads}", "--allow_partial")
    capsys.readouterr()
    name = "COCO_train2014_000000000025.jpg"
    (downloads / "train2014" / name).unlink()  # its link leads nowhere now
    assert run(root, "--check") == 1
    output = capsys.readouterr().out
    assert "missing: 1 images" in output and name in output


def test_check_notices_test_images_in_the_training_part(downloads, tmp_path, capsys):
    root = tmp_path / "d"
    run(root, f"--source={downloads}", "--allow_partial")
    folder = root / "cocosplit" / "datasplit"
    (folder / "trainvalno5k.json").write_text((folder / "5k.json").read_text())
    assert run(root, "--check") == 1
    assert "published test images are in" in capsys.readouterr().out


def test_check_of_real_data(capsys):
    root = shared("coco_mini") / "datasets"
    assert run(root, "--check") == 0
    output = capsys.readouterr().out
    assert "200 images, 1698 annotations" in output and "100 images, 888 annotations" in output


def test_as_a_program(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prepare_coco", f"--datasets_root={tmp_path}"])
    with pytest.raises(SystemExit) as error:
        prepare_coco.run_main(prepare_coco.main)
    assert error.value.code == 1
    assert "error: missing: " in capsys.readouterr().err
