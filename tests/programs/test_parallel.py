# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Two processes do what one does; a dead one ends the other; signals leave nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from src.data.mindrecord_io import open_mindrecord, read_rows
from src.defrcn.de_frcn import LOSS_NAMES
from src.engine.parallel import ALONE, Group
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.model_utils.processes import descendants
from src.network_define import parameters_of
from src.tools import draw_kshot
from src.weights.checkpoint import find_latest, load_training_checkpoint
from src.weights.ckpt_format import write_ckpt
from tests.helpers import small
from tests.helpers.data_helpers import picture_records
from tests.helpers.kill_driver import losses_of, same_checkpoint

ROOT = project_folder()
WORKER = ROOT / "tests" / "helpers" / "parallel_worker.py"
SIZE = (96, 128)
STEPS = 8
ROWS = 7  # so that the steps go over the end of a pass
EVALUATION = f"eval_{STEPS}"


def launch(words, folder, workers, **variables):
    command = [sys.executable, "-m", "src.launch", "--log_dir", str(folder / "logs")]
    command += ["--worker_num", str(workers), "--cluster_time_out", "200", "--grace", "30"]
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    return subprocess.Popen(
        [*command, *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def endless(folder, **variables):
    return launch([WORKER, "endless", folder], folder, 2, **variables)


def finish(process, timeout=400):
    """The exit code and the output; nothing of it may be left."""
    text, _ = process.communicate(timeout=timeout)
    return process.returncode, text


def wait_for(condition, process, seconds=240):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)


def gone(pids, seconds=5):
    until = time.monotonic() + seconds
    left = list(pids)
    while left and time.monotonic() < until:
        left = [pid for pid in left if runs_still(pid)]
        time.sleep(0.1)
    assert [name_of(pid) for pid in left] == []
    return True


def runs_still(pid):
    """Where nobody collects orphans, as in many a container, the dead stay as zombies."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def name_of(pid):
    """A process's command and state, for messages."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return command or Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return "just gone"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Pictures of one size with one to three objects, and a detector with frozen norms.

    So no picture sees what it shares a batch with, neither by its norms nor by padding.
    """
    root = tmp_path_factory.mktemp("a folder")
    records = picture_records(root / "images", [SIZE] * ROWS)
    objects = [(record.image_id, box) for record in records for box in record.annotations]
    content = {
        "images": [
            {"id": record.image_id, "file_name": Path(record.file_name).name}
            | {"height": record.height, "width": record.width}
            for record in records
        ],
        "annotations": [
            {"id": number, "image_id": image_id, "category_id": box.category_id, "bbox": box.bbox}
            for number, (image_id, box) in enumerate(objects)
        ],
        "categories": [{"id": number, "name": "abc"[number]} for number in range(3)],
    }
    (root / "toy.json").write_text(json.dumps(content))
    model = small.section(
        backbone__freeze_at=2, roi_heads__cls_dropout=True, roi_heads__dropout_ratio=0.2
    )
    write_ckpt(root / "start.ckpt", parameters_of(small.detector(model)))
    source = {"annotations": "toy.json", "images": "images"}
    toy = {"format": "coco", "train": source, "test": source, "novel_classes": ["c"]}
    settings = {
        "seed": 3,
        "datasets_root": str(root),
        "train_mindrecord_dir": str(root / "mindrecord" / "train"),
        "test_mindrecord_dir": str(root / "mindrecord" / "test"),
        "model_pretrained_path": str(root / "start.ckpt"),
        "data": {
            "train": ["toy_train_all"],
            "test": ["toy_test_all"],
            "custom": {"toy": toy},
            "aspect_ratio_grouping": False,
        },
        "input": {
            "min_size_train": [SIZE[0]],
            "max_size_train": SIZE[1],
            "min_size_test": SIZE[0],
            "max_size_test": SIZE[1],
            # Near 1, as frozen statistics want them: else rounding grows from step to step.
            "pixel_mean": [128.0] * 3,
            "pixel_std": [60.0] * 3,
        },
        "model": model.model_dump(mode="json"),
        "solver": {
            "images_per_batch": 2,
            "images_per_card": 1,
            "base_lr": 1e-3,
            "max_iter": STEPS,
            "steps": [4],
            "warmup_iters": 2,
            "warmup_factor": 0.1,
        },
        "test": {"score_threshold": 0.0001, "detections_per_image": 20, "visualize_images": 0},
        "log": {"period": 1},
        "checkpoint": {"period": 1, "keep_last": 9},
    }
    (root / "toy.yaml").write_text(json.dumps(settings))
    return root


def flags_of(project, folder):
    return f"--config_path={project / 'toy.yaml'}", f"--save_checkpoint_path={folder}"


@pytest.fixture(scope="module")
def runs(project):
    return by_one_and_by_two(project, "run")


def by_one_and_by_two(project, name, *more):
    """Results of one process on two pictures a step, and of two on one each; by train.py."""
    started, found = {}, {}
    for workers in (1, 2):
        folder = project / f"{name} {workers}"
        flags = (*flags_of(project, folder), f"--solver.images_per_card={2 // workers}", *more)
        started[workers] = folder, launch([WORKER, "train", folder, *flags], folder, workers)
    ended = [finish(process) for _, process in started.values()]
    for (workers, (folder, _)), (code, text) in zip(started.items(), ended):
        assert code == 0, text
        found[workers] = [
            (
                json.loads((folder / f"{rank}.json").read_text()),
                dict(np.load(folder / f"{rank}.npz")),
            )
            for rank in range(workers)
        ]
        found[f"log {workers}"] = (folder / "loss_0.log").read_text()
        found[f"files {workers}"] = sorted(path.name for path in folder.iterdir())
        found[f"folder {workers}"] = folder
    return found


def test_two_processes_give_the_losses_of_one(runs):
    (_, one), (_, two), (_, other) = runs[1][0], runs[2][0], runs[2][1]
    assert one["losses"].shape == (STEPS, len(LOSS_NAMES))
    assert one["losses"][0].sum() > 0.5
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(two["losses"], other["losses"])


def test_two_processes_give_the_weights_of_one(runs):
    (_, one), (_, two), (_, other) = runs[1][0], runs[2][0], runs[2][1]
    names = set(one) - {"losses"}
    moved = 0.0
    for name in names:
        np.testing.assert_array_equal(two[name], other[name], err_msg=name)
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=2e-6, err_msg=name)
        moved += float(np.abs(one[name]).sum())
    assert len(names) > 50
    assert moved > 0


@pytest.mark.slow
def test_two_processes_fine_tune_as_one_with_the_decoupled_loss(project):
    """Pictures that are labelled for different classes meet in one batch, or in two processes."""
    own = "--data.custom.toy.few_shot=split"
    words = [f"--config_path={project / 'toy.yaml'}", own, "--shots=2"]
    assert draw_kshot.main(words) == 0
    mindrecord = project / "mindrecord" / "shots"
    tuned = by_one_and_by_two(
        project,
        "tuned",
        *(own, "--data.train=[toy_train_all_2shot_seed0]", "--model.roi_heads.cls_loss=dcfs"),
        *(f"--train_mindrecord_dir={mindrecord}", "--test.eval_at_end=false"),
        *("--solver.max_iter=4", "--solver.steps=[]", "--checkpoint.period=4"),
    )
    info = open_mindrecord(mindrecord)
    labelled = {tuple(row.labelled) for row in read_rows(info, range(info.num_rows))}
    assert len(labelled) > 1
    (_, one), (_, two), (_, other) = tuned[1][0], tuned[2][0], tuned[2][1]
    assert one["losses"].shape == (4, len(LOSS_NAMES)) and (one["losses"][:, 2] > 0.1).all()
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=2e-5, atol=1e-6)
    for name in one:
        np.testing.assert_array_equal(two[name], other[name], err_msg=name)
        np.testing.assert_allclose(two[name], one[name], rtol=2e-5, atol=2e-6, err_msg=name)


def test_shared_pictures_give_the_same_rows(runs):
    (one, _), (two, _), (other, _) = runs[1][0], runs[2][0], runs[2][1]
    assert len({row["image_id"] for row in one["rows"]}) >= 2
    assert [row["image_id"] for row in two["rows"]] == [row["image_id"] for row in one["rows"]]
    for found, wanted in zip(two["rows"], one["rows"]):
        # the weights differ by rounding, so scores and boxes do
        assert found["category_id"] == wanted["category_id"]
        np.testing.assert_allclose(found["score"], wanted["score"], atol=1e-5)
        np.testing.assert_allclose(found["bbox"], wanted["bbox"], atol=1e-2)
    assert other["rows"] == two["rows"]
    for content, workers in ((one, 1), (two, 2)):
        written = runs[f"folder {workers}"] / EVALUATION / "detections.json"
        assert json.loads(written.read_text()) == content["rows"]


def test_rank_0_writes_for_all(runs):
    assert len(runs["log 2"].splitlines()) == STEPS
    strip = [line.split("|")[1] for line in runs["log 2"].splitlines()]
    wanted = [line.split("|")[1] for line in runs["log 1"].splitlines()]
    assert [line.split("total_loss")[0] for line in strip] == [
        line.split("total_loss")[0] for line in wanted
    ]
    assert "ckpt_0" in runs["files 2"]
    assert "ckpt_1" not in runs["files 2"]
    assert "loss_1.log" not in runs["files 2"]


@pytest.mark.slow
def test_both_killed_and_started_again_come_to_the_same_end(project, runs):
    """Both die with their launcher, by SIGKILL; a new launch goes on from what was saved."""
    folder = project / "killed"
    words = ["train.py", *flags_of(project, folder), "--test.eval_at_end=false"]
    victim = launch(words, folder, 2)
    log = folder / "loss_0.log"
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 3, victim)
    below = descendants(victim.pid)
    assert list(below.values()).count("MS_WORKER") == 2
    for pid in (victim.pid, *below):
        os.kill(pid, signal.SIGKILL)
    victim.communicate()
    checkpoints = folder / "ckpt_0"
    saved = load_training_checkpoint(checkpoints).step
    assert 2 <= saved < STEPS
    code, text = finish(launch([*words, "--resume=true"], folder, 2))
    assert code == 0, text
    assert re.search(rf"resumed after step {saved} of ", text)
    whole = runs["folder 2"]
    same_checkpoint(whole / "ckpt_0" / f"defrcn-{STEPS}.json", checkpoints / f"defrcn-{STEPS}.json")
    assert losses_of(whole) == losses_of(folder) and len(losses_of(folder)) == STEPS


def test_all_get_the_first_ones_statistics(runs):
    assert [content["statistics"] for content, _ in runs[2]] == [[1.0], [1.0]]


def test_small_talk(runs):
    for content, _ in runs[2]:
        assert content["bytes"] == [4, 256 * 20 + 4]
        assert content["right"]
        assert content["nothing"] == ["", ""]
        assert content["first"] is True
        assert "do not agree on the number: [0, 1]" in content["refusal"]


def test_a_group_of_one_talks_to_itself():
    row = np.arange(3, dtype=np.float32)
    assert ALONE.gather(row).tolist() == [[0, 1, 2]]
    assert ALONE.gather_bytes(b"abc") == [b"abc"]
    assert ALONE.of_first(True)
    assert not ALONE.of_first(False)
    assert ALONE.reducer(()) is None
    assert ALONE.leads
    assert not Group(1, 2).leads
    ALONE.wait()
    ALONE.check_same(3, "anything")


def test_a_failed_exchange_is_a_sentence():
    text = "Launch kernel failed, name:Default/AllGather-op0"
    with pytest.raises(InputError, match="process 1 of 2 has lost another one"):
        with Group(1, 2).speaking():
            raise RuntimeError(text)
    for group, other in ((ALONE, text), (Group(1, 2), "out of memory")):
        with pytest.raises(RuntimeError, match=other[:5]):
            with group.speaking():
                raise RuntimeError(other)


@pytest.fixture(scope="module")
def orphans(tmp_path_factory):
    """What was below a launcher that was killed. MindSpore takes half a minute to end."""
    place = tmp_path_factory.mktemp("orphans")
    process = endless(place)
    log = place / "loss_0.log"
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 2, process)
    below = descendants(process.pid)
    process.kill()
    return process, below


@pytest.mark.usefixtures("orphans")  # they end meanwhile
def test_a_dead_process_ends_the_others(tmp_path):
    process = launch([WORKER, "die", tmp_path], tmp_path, 2)
    wait_for(lambda: len(list(tmp_path.glob("pid*"))) == 2, process)
    started = time.monotonic()
    pids = [int(path.read_text()) for path in tmp_path.glob("pid*")]
    code, text = finish(process)
    assert code == 9
    assert time.monotonic() - started < 60
    assert gone(pids)
    assert "the processes ended with exit status 9" in text
    assert "Error code: 9" in text
    assert "this process dies" in text


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_lets_all_save_and_end(tmp_path, number):
    process = endless(tmp_path)
    log = tmp_path / "loss_0.log"
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 2, process)
    below = descendants(process.pid)
    assert len(below) >= 4  # msrun, its scheduler, two workers
    process.send_signal(number)
    code, text = finish(process, 60)
    assert code == 128 + number, text
    assert gone(below)
    steps = log.read_text().count("\n")
    manifest = find_latest(tmp_path / "ckpt_0")
    assert manifest is not None
    assert json.loads(manifest.read_text())["step"] == steps


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all_and_names_the_picture(tmp_path):
    code, text = finish(endless(tmp_path, NAN_AT=3))
    assert code == 1
    # step 3 has pictures 4 and 5; the second process's is the bad one
    assert "step 3: the loss or its gradient is not finite" in text
    assert "for picture5.jpg; the weights" in text
    assert "picture4.jpg" not in text


def test_a_launcher_that_is_killed_takes_its_processes_along(orphans):
    process, below = orphans
    assert gone(below, seconds=60)
    process.communicate()


@pytest.mark.slow
def test_two_launches_at_once_do_not_meet(tmp_path):
    both = [endless(tmp_path / name, NAN_AT=2) for name in ("one", "two")]
    for process in both:
        code, text = finish(process)
        assert code == 1
        assert "step 2: the loss" in text
