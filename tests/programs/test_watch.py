# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""train.py and eval.py, watched and as on ModelArts: the files say what the log says."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import mindspore  # noqa: F401 - before what uses protobuf
import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import eval as evaluation
import export
from src.defrcn.de_frcn import LOSS_NAMES
from src.demo.make_data import make_demo_data
from src.model_utils.paths import project_folder
from tests.helpers import trained as plain

PROJECT = project_folder()
FAKE_MOXING = PROJECT / "tests" / "helpers" / "fake_moxing"
SHAPE = ("--img_height=64", "--img_width=64")
SET = "shapes_test_base"


def read_back(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def by_step(events, name):
    return {event.step: event.value for event in events.Scalars(name)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A bucket with a small data set, and a configuration with relative paths."""
    root = tmp_path_factory.mktemp("model arts")
    make_demo_data(root / "obs" / "data" / "shapes", seed=0, num_train=6, num_test=3)
    settings = plain.configuration(Path("unused"))
    for key in ("datasets_root", "train_mindrecord_dir", "test_mindrecord_dir"):
        del settings[key]
    settings |= {
        "save_checkpoint_path": "run",
        "enable_modelarts": True,
        "data_url": str(root / "obs" / "data"),
        "train_url": str(root / "obs" / "out"),
        "modelarts": {"cache_dir": str(root / "cache"), "leave_seconds": 1.0},
    }
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def trained(place):
    """The output of a run of three steps, the last one profiled."""
    flags = ["--watch.tensorboard=true", "--enable_profiling=true"]
    flags += ["--profile.start_step=3", "--profile.steps=1"]
    done = subprocess.run(
        [sys.executable, str(PROJECT / "train.py"), f"--config_path={place}", *flags],
        cwd=place.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(PROJECT), str(FAKE_MOXING)))},
        capture_output=True,
        text=True,
        timeout=plain.TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_curves_are_the_log(place, trained):
    folder = place.parent / "obs" / "out" / "run"
    events = read_back(folder / "watch")
    lines = re.findall(r" step (\d)/3  total (\S+)  (.*?)  lr (\S+)  (\S+) images/s", trained)
    assert [line[0] for line in lines] == ["1", "2", "3"]
    total = by_step(events, "loss/total")
    for number, text, losses, lr, speed in lines:
        step = int(number)
        named = dict(zip(*[iter(losses.split())] * 2))
        assert tuple(named) == LOSS_NAMES
        for name, value in named.items():
            assert f"{by_step(events, f'loss/{name}')[step]:.4f}" == value
        assert f"{total[step]:.4f}" == text
        assert f"{by_step(events, 'lr')[step]:.6f}" == lr
        assert f"{by_step(events, 'speed/images_per_second')[step]:.2f}" == speed
    written = re.findall(r"total_loss: (\S+)  lr", (folder / "loss_0.log").read_text())
    assert written == [f"{total[step]:.5f}" for step in (1, 2, 3)]


def test_figures_pictures_and_configuration_are_there(place, trained):
    folder = place.parent / "obs" / "out" / "run"
    events = read_back(folder / "watch")
    (figures,) = json.loads((folder / "eval_3" / "metrics.json").read_text()).values()
    known = {name: value for name, value in figures["results"].items() if value >= 0}
    assert known
    for name, value in known.items():
        assert by_step(events, f"{SET}/{name}") == {3: np.float32(value)}
    (name,) = events.Tags()["images"]
    (image,) = events.Images(name)
    drawn = folder / "eval_3" / "pictures" / f"{name.partition('/')[2]}.png"
    assert image.encoded_image_string == drawn.read_bytes()
    (text,) = events.Tensors("configuration/text_summary")
    assert f"save_checkpoint_path: {place.parent}/cache/train/run" in str(
        text.tensor_proto.string_val[0], "utf-8"
    )


def test_the_profile_is_of_one_step(place, trained):
    folder = place.parent / "obs" / "out" / "run" / "profile" / "rank_0"
    (path,) = folder.rglob("cpu_op_type_info_0.csv")
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    counts = {row[0]: int(row[1]) for row in rows}
    # The average over a box's positions, and its gradient.
    assert counts["ReduceMean"] == 1
    assert counts["Tile"] >= 1
    assert list(folder.rglob("trace_view.json"))


def test_everything_came_and_went_through_the_copies(place, trained):
    root = place.parent
    assert (root / "cache" / "data" / "shapes" / "annotations" / "train.json").is_file()
    copied = {str(path.relative_to(root / "obs/out")) for path in (root / "obs/out").rglob("*")}
    assert {
        "run/ckpt_0/defrcn-3.ckpt",
        "run/ckpt_0/defrcn-3.json",
        "run/loss_0.log",
        "run/log_0.txt",
    } <= copied
    assert not any("mindrecord" in name for name in copied)
    assert {path.name for path in root.iterdir()} == {"obs", "cache", "tiny.yaml"}


@pytest.fixture
def own_logging():
    """Handlers that an entry point sets, and that end with the test."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(before):
        handler.close()
    root.handlers[:], root.level = before, level


def test_evaluation_is_watched_and_copied(place, trained, monkeypatch, capsys, own_logging):
    """eval.py as assembled; the detections themselves are the business of other tests."""
    root = place.parent
    figures = {SET: {"results": {"AP": 12.5, "APl": -100.0}}}
    seen = {}

    def evaluate_sets(config, step, sets, folder, checkpoint, group):
        seen.update(folder=folder, checkpoint=checkpoint.name, names=[s.info.name for s in sets])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text("{}")
        return "the table", figures

    monkeypatch.setattr(evaluation, "evaluate_sets", evaluate_sets)
    monkeypatch.setattr(evaluation, "make_inference", lambda *_: None)
    monkeypatch.syspath_prepend(str(FAKE_MOXING))
    code = evaluation.main(
        [
            f"--config_path={place}",
            "--eval_checkpoint_path=run/ckpt_0",
            f"--checkpoint_url={root / 'obs' / 'out'}",
            "--result_path=judged",
            "--watch.tensorboard=true",
            "--test.visualize_images=0",
        ]
    )
    assert code == 0
    assert seen == {
        "folder": root / "cache/train/judged",
        "checkpoint": "defrcn-3.json",
        "names": [SET],
    }
    assert "the table" in capsys.readouterr().out
    assert by_step(read_back(root / "obs/out/judged/watch"), f"{SET}/AP") == {3: 12.5}
    assert "loaded" in (root / "obs/out/judged/log_0.txt").read_text()


def test_an_exported_file_is_copied(tmp_path, monkeypatch, own_logging):
    weights = tmp_path / "obs" / "weights"
    weights.mkdir(parents=True)
    (weights / "a.ckpt").write_text("weights")
    loaded = []

    def load_network(config):
        loaded.append(Path(config.export_ckpt_file).read_text())
        return None, (), None

    def write_network(config, network, names, source, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("network")
        return {"input_shape": (8, 9), "left_out": []}

    monkeypatch.setattr(export, "load_network", load_network)
    monkeypatch.setattr(export, "write_network", write_network)
    monkeypatch.setattr(export, "start_device", lambda *_, **__: None)
    monkeypatch.syspath_prepend(str(FAKE_MOXING))
    path = tmp_path / "run.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "enable_modelarts": True,
                "train_url": str(tmp_path / "obs" / "out"),
                "checkpoint_url": str(weights),
                "modelarts": {"cache_dir": str(tmp_path / "cache")},
            }
        )
    )
    code = export.main([f"--config_path={path}", "--export_ckpt_file=a.ckpt", *SHAPE])
    assert (code, loaded) == (0, ["weights"])
    assert (tmp_path / "obs" / "out" / "defrcn.mindir").read_text() == "network"
