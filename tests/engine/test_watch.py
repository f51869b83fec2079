# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What is shown while a run goes on: files that are read back, pictures, profile, refusals."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import mindspore  # noqa: F401 - before anything that uses protobuf, see watch.tensorboard
import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.assembly import watch as assembly_watch
from src.assembly.watch import open_watch, show_evaluation, step_of
from src.engine.watch.tensorboard import TensorBoardWatch
from src.model_utils.config import Config, load_config
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder

PROJECT = project_folder()
EVERYTHING = {"images": 0, "scalars": 0, "tensors": 0}  # TensorBoard keeps a sample otherwise


def read_back(folder):
    return EventAccumulator(str(folder), size_guidance=EVERYTHING).Reload()


def scalars(events, name):
    return [(event.step, event.value) for event in events.Scalars(name)]


@pytest.fixture
def picture(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "seven.png"
    Image.fromarray(rng.integers(20, 200, (7, 9, 3), np.uint8)).save(path)
    return path


def test_tensorboard_reads_what_was_written(tmp_path, picture):
    writer = TensorBoardWatch(tmp_path / "watch")
    values = {1: 0.1, 2: 3.25, 30: 1e-7}
    for step, value in values.items():
        writer.scalars(step, {"loss/total": value, "lr": value / 2})
    writer.picture(30, "set/seven", picture)
    writer.settings("a: 1\nb:\n  c: [2, 3]\n")
    writer.close()
    events = read_back(tmp_path / "watch")
    assert scalars(events, "loss/total") == [(s, np.float32(v)) for s, v in values.items()]
    assert scalars(events, "lr") == [(s, np.float32(v / 2)) for s, v in values.items()]
    (image,) = events.Images("set/seven")
    assert (image.step, image.width, image.height) == (30, 9, 7)
    assert image.encoded_image_string == picture.read_bytes()
    (text,) = events.Tensors("configuration/text_summary")
    assert yaml.safe_load(text.tensor_proto.string_val[0]) == {"a": 1, "b": {"c": [2, 3]}}


def test_a_resumed_run_hides_what_was_done_in_vain(tmp_path):
    for first, steps in ((0, (1, 2, 3, 4)), (3, (3, 4, 5))):
        writer = TensorBoardWatch(tmp_path, first)
        for step in steps:
            writer.scalars(step, {"lr": step + 0.5 * bool(first)})
        writer.close()
        (newest,) = set(tmp_path.iterdir()) - {tmp_path / "events.1"}
        newest.rename(tmp_path / f"events.{1 if not first else 2}")
    for number in (1, 2):  # names in the order of time, of runs within one second
        (tmp_path / f"events.{number}").rename(tmp_path / f"events.out.tfevents.{number}.host")
    assert scalars(read_back(tmp_path), "lr") == [(1, 1), (2, 2), (3, 3.5), (4, 4.5), (5, 5.5)]


def test_what_is_no_png_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"GIF89a")
    with pytest.raises(ValueError, match="not a PNG"):
        TensorBoardWatch(tmp_path).picture(1, "a", path)


def test_a_full_disk_ends_the_curves_and_not_the_training(tmp_path, caplog):
    watch = TensorBoardWatch(tmp_path)
    watch._file._py_recordio_writer._writer = open("/dev/full", "wb", buffering=0)
    watch.scalars(1, {"lr": 1.0})
    watch.scalars(2, {"lr": 2.0})
    watch.close()
    (message,) = caplog.messages
    assert "TensorBoard's event file cannot be written, going on without" in message
    assert "No space left" in message


def in_a_process(script, *arguments, tmp_path):
    path, said = tmp_path / "script.py", tmp_path / "stderr.txt"
    path.write_text(script)
    with said.open("w") as handle:  # a pipe would be held open by orphans
        done = subprocess.run(
            [sys.executable, str(path), *map(str, arguments)],
            cwd=PROJECT,
            env={"PYTHONPATH": str(PROJECT), "GLOG_v": "3", "PATH": ""},
            stdout=subprocess.DEVNULL,
            stderr=handle,
            timeout=120,
            check=False,
        )
    done.stderr = said.read_text()
    return done


PROFILE = """
import sys
import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from src.engine.watch.profile import ProfileWindow

ms.set_device("CPU")
ms.set_context(mode=ms.PYNATIVE_MODE)
first, count, steps = map(int, sys.argv[2:])
window = ProfileWindow(sys.argv[1], first=first, count=count, target="CPU")
# Another operator at each step, so that the profile says which steps it has.
actions = [ops.exp, ops.sin, ops.tanh, ops.sqrt, ops.floor, ops.cos]
values = Tensor(np.ones((4, 4), np.float32))


def compiled_action(action):
    @ms.jit
    def run(x):
        return action(x)

    return run


compiled = [compiled_action(action) for action in actions]
for action in compiled[:steps]:
    window.before_step()
    action(values).asnumpy()
    window.after_step()
window.close()
"""
NAMES = ["Exp", "Sin", "Tanh", "Sqrt", "Floor", "Cos"]


@pytest.mark.parametrize(
    ("first", "count", "steps", "expected"),
    [
        (3, 2, 6, ["Tanh", "Sqrt"]),
        (1, 1, 2, ["Exp"]),
        (2, 4, 3, ["Sin", "Tanh"]),  # ends inside the window
    ],
)
def test_the_profile_holds_the_steps_of_the_window(tmp_path, first, count, steps, expected):
    folder = tmp_path / "profile"
    done = in_a_process(PROFILE, folder, first, count, steps, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    (trace,) = folder.rglob("trace_view.json")
    names = {entry["name"] for entry in json.loads(trace.read_text()) if entry["ph"] == "X"}
    found = [name for name in NAMES if any(name in one for one in names)]
    assert found == expected, names


def test_a_profile_that_is_not_reached_leaves_nothing(tmp_path):
    folder = tmp_path / "profile"
    done = in_a_process(PROFILE, folder, 5, 1, 2, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not folder.exists()


# --- from the configuration


@pytest.fixture
def load(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("")
    return lambda *flags: load_config(path, flags)


def test_nothing_is_written_unless_it_is_asked_for(tmp_path):
    watch = open_watch(Config(), tmp_path / "run", num_steps=100)
    watch.before_step()
    watch.after_step()
    watch.scalars(1, {"lr": 1.0})
    watch.close()
    assert not (tmp_path / "run").exists()


def test_the_configuration_is_the_first_thing_to_see(tmp_path, load):
    config = load("--watch.tensorboard=true", "--solver.base_lr=0.0125", "--data.test=[x]")
    open_watch(config, tmp_path / "run").close()
    (text,) = read_back(tmp_path / "run" / "watch").Tensors("configuration/text_summary")
    again = tmp_path / "again.yaml"
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    again.write_text("\n".join(line.removeprefix("    ") for line in lines))
    assert load_config(again) == config


def test_only_rank_0_writes_curves_and_every_rank_profiles(tmp_path, load, monkeypatch):
    made = []
    monkeypatch.setattr(assembly_watch, "ProfileWindow", lambda *a, **k: made.append((a, k)))
    config = load("--watch.tensorboard=true", "--enable_profiling=true", "--profile.start_step=4")
    open_watch(config, tmp_path / "run", rank=3, num_steps=8).close()
    assert not (tmp_path / "run").exists()
    place = tmp_path / "run" / "profile" / "rank_3"
    assert made == [((place,), {"first": 4, "count": 5, "target": "CPU"})]


def test_steps_to_profile_that_never_come_are_refused(tmp_path, load):
    config = load("--enable_profiling=true", "--profile.start_step=7", "--profile.steps=2")
    with pytest.raises(InputError, match=r"steps 7 to 8 .* only 7 are to be trained"):
        open_watch(config, tmp_path, num_steps=7)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, load):
    (tmp_path / "file").write_text("")
    config = load(f"--watch.dir={tmp_path / 'file' / 'inner'}", "--watch.tensorboard=true")
    with pytest.raises(InputError, match=r"file/inner"):
        open_watch(config, tmp_path)


def test_a_missing_package_is_named(tmp_path, load, monkeypatch):
    monkeypatch.setitem(sys.modules, "src.engine.watch.tensorboard", None)
    with pytest.raises(InputError, match=r"watch\.tensorboard: .*requirements\.txt"):
        open_watch(load("--watch.tensorboard=true"), tmp_path)


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_figures_and_pictures_of_an_evaluation(tmp_path, load, picture, names):
    config = load("--watch.tensorboard=true", "--watch.images=2")
    figures = {}
    for number, name in enumerate(names):
        figures[name] = {"results": {"AP": 12.5 + number, "nAP": 0.0, "APl": -100.0}}
        place = tmp_path / "eval" / (name if len(names) > 1 else "") / "pictures"
        place.mkdir(parents=True)
        for file in ("00_a", "01_b", "02_c", "sheet"):
            (place / f"{file}.png").write_bytes(picture.read_bytes())
    watch = open_watch(config, tmp_path / "run")
    show_evaluation(config, watch, 40, figures, tmp_path / "eval")
    watch.close()
    events = read_back(tmp_path / "run" / "watch")
    wanted = {f"{name}/{metric}" for name in names for metric in ("AP", "nAP")}
    assert set(events.Tags()["scalars"]) == wanted
    for number, name in enumerate(names):
        assert scalars(events, f"{name}/AP") == [(40, 12.5 + number)]
    assert events.Tags()["images"] == [
        f"{name}/{one}" for name in names for one in ("00_a", "01_b")
    ]


def test_step_of_a_checkpoint():
    assert step_of(Path("a/defrcn-120.ckpt")) == step_of(Path("a/defrcn-120.json")) == 120
    assert step_of(Path("a/model_final.ckpt")) == 0


def test_a_watch_is_quiet_about_what_goes_well(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        TensorBoardWatch(tmp_path).close()
    assert not caplog.messages
