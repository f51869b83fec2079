# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Model surgery: every kind of data set, what is refused, what lies beside the result."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from src import model_surgery
from src.defrcn.built_datacategory import resolve_dataset
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.weights import checkpoint as ck
from src.weights import note as weights_note
from src.weights.ckpt_format import write_ckpt

PROJECT = project_folder()
CHANNELS = 6
CLS, BOX = model_surgery.PARAM_NAMES


def detector(num_classes, seed=0):
    """Parameters of a small detector; rows can be told apart."""
    rng = np.random.default_rng(seed)

    def layer(rows):
        return rng.normal(size=(rows, CHANNELS)).astype(np.float32) + np.arange(rows)[:, None]

    return {
        "backbone.res4.0.conv1.weight": rng.normal(size=(3, 2, 1, 1)).astype(np.float32),
        f"{CLS}.weight": layer(num_classes + 1).astype(np.float32),
        f"{CLS}.bias": np.arange(num_classes + 1, dtype=np.float32) + 1,
        f"{BOX}.weight": layer(4 * num_classes).astype(np.float32),
        f"{BOX}.bias": np.arange(4 * num_classes, dtype=np.float32) + 1,
    }


def run(*flags):
    return model_surgery.main([str(flag) for flag in flags])


def write(tmp_path, num_classes):
    return write_ckpt(tmp_path / "base.ckpt", detector(num_classes))


# Category ids are not in the order of the list, and ids of base and novel classes alternate.
CATEGORIES = [(7, "ring"), (2, "cube"), (9, "disc"), (4, "star"), (5, "cone")]
NOVEL = ["disc", "cube"]


@pytest.fixture
def own(tmp_path):
    """The configuration of a data set of one's own in COCO format; classes by id:
    cube* star cone ring disc*, those with a star are novel."""
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    source = {"annotations": "train.json", "images": "."}
    config = {
        "datasets_root": str(tmp_path),
        "data": {
            "train": ["toys_train_base"],
            "test": ["toys_test_base"],
            "custom": {
                "toys": {
                    "format": "coco",
                    "train": dict(source),
                    "test": dict(source),
                    "novel_classes": NOVEL,
                }
            },
        },
    }
    path = tmp_path / "toys.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_own_data(tmp_path, own):
    run(f"--dataset={own}", "--method=randinit", "--src-path", write(tmp_path, 3))
    old, new = detector(3), ck.load_weights(tmp_path / "model_reset_surgery.ckpt")
    for part in ("weight", "bias"):
        scores, boxes = new[f"{CLS}.{part}"], new[f"{BOX}.{part}"]
        assert len(scores) == 6 and len(boxes) == 20
        # star, cone and ring are 1, 2, 3 of all; the background is last.
        np.testing.assert_array_equal(scores[[1, 2, 3, 5]], old[f"{CLS}.{part}"])
        np.testing.assert_array_equal(boxes[4:16], old[f"{BOX}.{part}"])
    assert not new[f"{CLS}.bias"][[0, 4]].any()
    assert 0 < np.abs(new[f"{CLS}.weight"][[0, 4]]).max() < 0.06
    names = weights_note.class_names_of(tmp_path / "model_reset_surgery.ckpt")
    assert names == ("cube", "star", "cone", "ring", "disc")


def test_own_data_in_voc_format(tmp_path, own):
    """Classes in alphabetical order, over the XML files: cone cube* disc* ring star."""
    config = yaml.safe_load(own.read_text())
    config["data"]["custom"]["toys"].update(
        {
            "format": "voc",
            "train": {"annotations": "xml", "images": "."},
            "test": {"annotations": "xml", "images": "."},
        }
    )
    own.write_text(yaml.safe_dump(config))
    (tmp_path / "xml").mkdir()
    for name in ("ring", "cube", "disc", "star", "cone"):
        (tmp_path / "xml" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename>"
            "<size><width>9</width><height>9</height><depth>3</depth></size>"
            f"<object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax>"
            "<ymax>5</ymax></bndbox></object></annotation>"
        )
    run(f"--dataset={own}", "--method=randinit", "--src-path", write(tmp_path, 3))
    old, new = detector(3), ck.load_weights(tmp_path / "model_reset_surgery.ckpt")
    np.testing.assert_array_equal(new[f"{CLS}.bias"][[0, 3, 4, 5]], old[f"{CLS}.bias"])
    np.testing.assert_array_equal(new[f"{BOX}.bias"][12:20], old[f"{BOX}.bias"][4:])
    assert not new[f"{BOX}.bias"][4:12].any()


def test_flags_change_the_configuration(tmp_path, own):
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "train.json").rename(moved / "train.json")
    source = write(tmp_path, 3)
    with pytest.raises(InputError, match=r"train\.json does not exist"):
        run(f"--dataset={own}", "--method=remove", f"--src-path={source}")
    run(f"--dataset={own}", "--method=remove", f"--src-path={source}", f"--datasets_root={moved}")
    assert (tmp_path / "model_reset_remove.ckpt").is_file()


@pytest.mark.parametrize("name", ["toys_train_novel_5shot_seed0", "toys_train_all"])
def test_any_training_set_of_the_data_set_will_do(tmp_path, own, name):
    flags = [f"--dataset={own}", "--method=remove", f"--data.train={name}"]
    assert run(*flags, "--src-path", write(tmp_path, 3)) == 0


@pytest.mark.parametrize(
    ("train", "count", "total"),
    [("coco14_trainval_base", 60, 80), ("voc_2012_trainval_novel2_5shot_seed3", 15, 20)],
)
def test_configuration_of_a_known_data_set(tmp_path, own, train, count, total):
    flags = [f"--dataset={own}", "--method=randinit", f"--data.train={train}"]
    run(*flags, "--src-path", write(tmp_path, count))
    new = ck.load_weights(tmp_path / "model_reset_surgery.ckpt")
    assert len(new[f"{CLS}.bias"]) == total + 1


def test_without_novel_classes(tmp_path, own):
    config = yaml.safe_load(own.read_text())
    del config["data"]["custom"]["toys"]["novel_classes"]
    own.write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="'toys' names no novel classes"):
        run(f"--dataset={own}", "--method=remove", "--src-path", write(tmp_path, 3))


def save_run(tmp_path, names, steps=(1, 2)):
    """A training run's folder; the later checkpoint has other numbers."""
    for step in steps:
        params = detector(len(names), seed=step)
        state = {"seed": np.array(0)}
        ck.save_checkpoint(tmp_path / "run/ckpt_0", step, params, state, {"class_names": names})
    return tmp_path / "run"


def coco_base():
    return list(resolve_dataset("coco14_test_base").class_names)


@pytest.mark.parametrize("inner", ["", "ckpt_0"])
def test_newest_valid_checkpoint_of_a_run(tmp_path, inner):
    folder = save_run(tmp_path, coco_base(), (1, 2, 3))
    damaged = folder / "ckpt_0" / "defrcn-3.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    run("--dataset=coco", "--method=randinit", f"--src-path={folder / inner}", "--tar-name=my")
    new = ck.load_weights(folder / inner / "my_surgery.ckpt")
    np.testing.assert_array_equal(new[f"{CLS}.bias"][-1], 61)
    expected = detector(60, seed=2)
    for name in set(new) - {n for n in new if "box_predictor" in n}:
        np.testing.assert_array_equal(new[name], expected[name])
    # A bicycle is novel, a truck is class 7 of all and 0 of the base classes.
    np.testing.assert_array_equal(new[f"{CLS}.weight"][7], expected[f"{CLS}.weight"][0])
    note = weights_note.read_note(folder / inner / "my_surgery.ckpt")
    assert note["class_names"] == list(resolve_dataset("coco14_test_all").class_names)
    assert note["origin"]["source"] == "defrcn-2.ckpt"


def test_result_beside_a_run_does_not_disturb_it(tmp_path):
    folder = save_run(tmp_path, coco_base()) / "ckpt_0"
    run("--dataset=coco", "--method=remove", f"--src-path={folder}")
    assert ck.find_latest(folder).name == "defrcn-2.json"
    ck.save_checkpoint(folder, 3, detector(60), {}, {"class_names": coco_base()}, keep_last=1)
    assert (folder / "model_reset_remove.ckpt").is_file()


@pytest.mark.parametrize("split", [1, 2, 3])
def test_voc_split_is_told_by_the_classes(tmp_path, split):
    base = list(resolve_dataset(f"voc_2007_test_base{split}").class_names)
    folder = save_run(tmp_path, base)
    run("--dataset=voc", "--method=randinit", f"--src-path={folder}")
    names = weights_note.class_names_of(folder / "model_reset_surgery.ckpt")
    assert names == resolve_dataset(f"voc_2007_test_all{split}").class_names
    other = split % 3 + 1
    with pytest.raises(InputError, match=f"voc split {other}.* differ from number"):
        run("--dataset=voc", "--method=remove", f"--src-path={folder}", f"--split={other}")


def test_converted_voc_checkpoint_needs_no_split(tmp_path):
    source = write(tmp_path, 15)
    run("--dataset=voc", "--method=randinit", f"--src-path={source}")
    new, old = ck.load_weights(tmp_path / "model_reset_surgery.ckpt"), detector(15)
    np.testing.assert_array_equal(new[f"{CLS}.weight"][:15], old[f"{CLS}.weight"][:15])
    assert weights_note.class_names_of(tmp_path / "model_reset_surgery.ckpt") == ()
    run("--dataset=voc", "--method=randinit", f"--src-path={source}", "--split=2")
    names = weights_note.class_names_of(tmp_path / "model_reset_surgery.ckpt")
    assert names[15:] == ("aeroplane", "bottle", "cow", "horse", "sofa")


def test_seeds(tmp_path):
    source = write(tmp_path, 60)
    rows = []
    for seed in (0, 0, 1):
        run("--dataset=coco", "--method=randinit", f"--src-path={source}", f"--seed={seed}")
        new = ck.load_weights(tmp_path / "model_reset_surgery.ckpt")
        rows.append((new[f"{CLS}.weight"][:7], new[f"{BOX}.weight"][:28]))
    for first, second, third in zip(*rows):
        np.testing.assert_array_equal(first, second)
        assert (first != third).all()
    assert (rows[0][0] != rows[0][1][:7]).all()


def test_other_classes_of_the_same_number_are_refused(tmp_path):
    names = coco_base()
    names[4] = "unicorn"
    with pytest.raises(InputError, match=r"number 4 on \('unicorn' instead of '.*'\)"):
        run("--dataset=coco", "--method=remove", f"--src-path={save_run(tmp_path, names)}")


@pytest.mark.parametrize(
    ("count", "dataset", "message"),
    [
        (15, "coco", "trained on 15 classes.* has 60 base classes"),
        (60, "voc", "trained on 60 classes.* has 15 base classes"),
        (80, "coco", "trained on 80 classes.* 60 base classes; it has the novel ones already"),
    ],
)
@pytest.mark.parametrize("method", ["remove", "randinit"])
def test_class_count(tmp_path, count, dataset, message, method):
    with pytest.raises(InputError, match=message):
        run(f"--dataset={dataset}", f"--method={method}", "--src-path", write(tmp_path, count))
    assert [path.name for path in tmp_path.iterdir()] == ["base.ckpt"]


def refused(tmp_path, params, message):
    source = write_ckpt(tmp_path / "base.ckpt", params)
    with pytest.raises(InputError, match=message) as caught:
        run("--dataset=coco", "--method=remove", f"--src-path={source}")
    assert "\n" not in str(caught.value)


def test_file_without_class_layers(tmp_path):
    params = model_surgery.removed(detector(60))
    refused(tmp_path, params, rf"has no {CLS}\.weight.*give a whole detector")


def test_layers_that_contradict_each_other(tmp_path):
    refused(tmp_path, {**detector(60), f"{BOX}.bias": np.ones(12)}, r"shapes.*\(12,\)")


def test_file_of_the_older_port(tmp_path):
    params = {"rcnn.cls_scores.weight": np.ones((61, 2), np.float32)}
    refused(tmp_path, params, "older MindSpore port")


def test_damaged_file(tmp_path):
    source = write(tmp_path, 60)
    source.write_bytes(source.read_bytes()[:-30])
    with pytest.raises(InputError, match="damaged"):
        run("--dataset=coco", "--method=remove", f"--src-path={source}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--src-path=absent.ckpt"], "--src-path: absent.ckpt does not exist"),
        (["--dataset=voic"], "'voic' is neither coco nor voc.*did you mean 'voc'"),
        (["--split=1"], "--split goes with --dataset=voc"),
        (["--datasets_root=x"], "--datasets_root=x: unknown flag"),
        (["--seed=-1"], "--seed: -1 is negative"),
        (["--tar-name=a/b"], "--save-dir"),
        ([f"--param-name={CLS}"], "name both"),
    ],
)
def test_flags(tmp_path, flags, message):
    given = ["--dataset=coco", "--method=remove", f"--src-path={write(tmp_path, 60)}"]
    with pytest.raises(InputError, match=message):
        run(*given, *flags)


def test_result_may_not_replace_its_source(tmp_path):
    source = write_ckpt(tmp_path / "a_remove.ckpt", detector(60))
    with pytest.raises(InputError, match="would replace"):
        run("--dataset=coco", "--method=remove", f"--src-path={source}", "--tar-name=a")


def test_note_vouches_for_its_file_only(tmp_path):
    run("--dataset=coco", "--method=randinit", "--src-path", write(tmp_path, 60))
    target = tmp_path / "model_reset_surgery.ckpt"
    write_ckpt(target, detector(80))
    with pytest.raises(InputError, match="is not the file that model_reset_surgery.note.json"):
        weights_note.class_names_of(target)
    weights_note.note_path(target).write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        weights_note.class_names_of(target)


@pytest.mark.parametrize("command", [["-m", "src.model_surgery"], ["src/model_surgery.py"]])
def test_as_a_user_runs_it(tmp_path, command):
    source = write(tmp_path, 60)
    words = ["--dataset", "coco", "--method", "randinit", "--src-path", source]
    words += ["--save-dir", tmp_path / "out", "--device-target", "Ascend"]
    words += ["--param-name", BOX, CLS]
    done = subprocess.run(
        [sys.executable, *command, *map(str, words)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--device-target Ascend: not needed" in done.stdout
    assert "60 base classes" in done.stdout and "80 classes" in done.stdout
    assert "order is taken on trust" in done.stdout
    assert len(ck.load_weights(tmp_path / "out" / "model_reset_surgery.ckpt")) == 5


def test_a_copy_in_another_folder(tmp_path):
    """It finds the project from a folder inside, and elsewhere says what it needs."""
    copy = shutil.copy(PROJECT / "src" / "model_surgery.py", tmp_path)
    source = write(tmp_path, 60)
    words = [sys.executable, copy, "--dataset=coco", "--method=remove", f"--src-path={source}"]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run_in(folder, **environment):
        environment = {**clean, **environment}
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environment)

    done = run_in(tmp_path)
    assert done.returncode == 1 and "PYTHONPATH" in done.stderr and done.stderr.count("\n") == 1
    assert run_in(PROJECT / "configs" / "coco").returncode == 0
    assert run_in(tmp_path, PYTHONPATH=str(PROJECT)).returncode == 0


def test_it_needs_no_mindspore():
    code = "import sys, src.model_surgery; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0
