"""`python -m src.sweep` with real processes, a stand-in for train.py, and its kills and resumes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from src import sweep, sweep_plan, sweep_runs, sweep_surgery
from src.checkpoint import save_checkpoint
from src.model_utils.errors import InputError

PROJECT = Path(__file__).resolve().parents[1]
FAKE = f"'{sys.executable}' '{PROJECT / 'tests' / 'fake_train.py'}'"
ROOT = "tfa-like"


def write_toy(path, content=None, shot=2):
    """An annotation file with classes a and b, or a K-shot file of b."""
    boxes = [{"id": k, "image_id": 1, "category_id": 2, "bbox": [k, k, 9, 9]} for k in range(shot)]
    if content is None:
        image = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
        categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
        content = {"images": [image], "categories": categories}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, "annotations": boxes}))
    return content


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a configuration and a start checkpoint; children write to events.log."""
    content = write_toy(tmp_path / "datasets" / "a.json")
    for seed, shot in ((seed, shot) for seed in range(2) for shot in (1, 2)):
        name = f"split/seed{seed}/full_box_{shot}shot_b_trainval.json"
        write_toy(tmp_path / "datasets" / name, content, shot)
    half = {"annotations": "a.json", "images": "images"}
    config = {
        "data": {
            "train": ["toy_train_novel_1shot_seedx"],
            "test": ["toy_test_all"],
            "custom": {"toy": {"format": "coco", "train": half, "test": dict(half)}},
        },
        "solver": {"images_per_batch": 4, "images_per_card": 4, "max_iter": 2, "steps": []},
    }
    config["data"]["custom"]["toy"].update(novel_classes=["b"], few_shot="split")
    config["solver"]["warmup_iters"] = 0
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "start.ckpt").write_bytes(b"weights")
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "events.log"))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*more, shots="1,2", seeds="0-1"):
    return [
        "--output=out dir",
        "--dataset=own",
        "--setting=fsod",
        f"--shots={shots}",
        f"--seeds={seeds}",
        "--config_path=toy.yaml",
        "--data.train=[toy_train_novel_{shot}shot_seedx]",
        f"--train_command={FAKE}",
        *([] if any("base_checkpoint" in word for word in more) else START),
        *more,
    ]


START = ["--model_pretrained_path=start.ckpt"]


def go(*more, **which):
    return sweep.main(words(*more, **which))


def events(place):
    path = place / "events.log"
    return path.read_text().splitlines() if path.exists() else []


def starts(place):
    """Which runs were started at which step, in order."""
    return [line.partition(" pid")[0] for line in events(place) if " start " in line]


def run_folder(place, name="1shot_seed0"):
    return place / "out dir" / ROOT / name


def checkpoints(folder):
    return sorted(path.name for path in (folder / "ckpt_0").glob("defrcn-*.ckpt"))


def spawn(*more, **which):
    """The sweep as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "src.sweep", *words(*more, **which)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(place, text, seconds=30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(text in line for line in events(place)):
            return
        time.sleep(0.02)
    raise AssertionError(f"no {text!r} in {events(place)}")


def gone(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def child_pid(place):
    return int([line for line in events(place) if " pid " in line][-1].rpartition(" ")[2])


def test_shots_times_seeds(place, capsys):
    assert go() == 0
    # every shot of a seed before the next seed; training seed = number of the set
    assert starts(place) == ["1/0/0 start 0", "2/0/0 start 0", "1/1/1 start 0", "2/1/1 start 0"]
    out = capsys.readouterr().out
    root = place / "out dir" / ROOT
    # 1-shot gives 10 and 11: mean 10.5, s 0.7071, t 12.706 * 0.5
    assert "| 10.50 |" in out and "± 6.35" in out
    table = (root / "table.md").read_text()
    assert (
        "4 of 4 runs" in table
        and "± 0.69" in table
        and "on toy_test_all. COCO box AP; without PCB" in table
    )
    assert "20.50 ± 6.35" in table
    assert (root / "runs.csv").read_text().count("\n") == 5
    assert (root / "plot.png").stat().st_size > 10000
    result = json.loads((run_folder(place) / "sweep_result.json").read_text())
    assert result["iterations"] == 2 and result["images"] == 8 and result["seed"] == 0
    assert result["settings"]["data"]["train"] in (
        ["toy_train_novel_1shot_seedx"],
        ["toy_train_novel_1shot_seed0"],
    )
    assert len(result["settings"]["sha256"]["model_pretrained_path"]) == 64


def test_finished_runs_are_not_repeated(place, capsys):
    assert go(seeds="0") == 0
    assert go() == 0
    assert starts(place) == ["1/0/0 start 0", "2/0/0 start 0", "1/1/1 start 0", "2/1/1 start 0"]
    capsys.readouterr()
    assert go() == 0
    assert len(starts(place)) == 4
    assert "| 10.50 |" in capsys.readouterr().out


def test_repeats_of_one_set(place):
    flags = [word for word in words("--protocol=fsrw", "--repeats=3,5") if "--seeds" not in word]
    assert sweep.main(flags) == 0
    assert [line.split()[0] for line in starts(place)] == ["1/0/3", "2/0/3", "1/0/5", "2/0/5"]
    folder = place / "out dir" / "fsrw-like" / "1shot_seed0" / "repeat5"
    assert json.loads((folder / "sweep_result.json").read_text())["seed"] == 5


@pytest.mark.parametrize(
    ("keep", "left"),
    [("none", []), ("last", ["defrcn-3.ckpt"]), ("all", [f"defrcn-{n}.ckpt" for n in (1, 2, 3)])],
)
def test_checkpoints_that_are_kept(place, monkeypatch, keep, left):
    monkeypatch.setenv("FAKE_STEPS", "3")
    assert go(f"--keep_checkpoints={keep}", shots="1", seeds="0") == 0
    folder = run_folder(place)
    assert checkpoints(folder) == left
    assert len(list((folder / "ckpt_0").glob("*"))) == 3 * len(left)
    assert not (folder / "mindrecord").exists()
    assert (folder / "eval_3" / "metrics.json").is_file()
    # what was kept stays, whatever a later call would keep
    assert go("--keep_checkpoints=none", shots="1", seeds="0") == 0
    assert checkpoints(folder) == left


def test_files_of_others_stay(place):
    assert go(shots="1", seeds="0") == 0
    folder = run_folder(place)
    (folder / "sweep_result.json").unlink()  # as if it had been killed before
    for name in ("ckpt_0/mine.txt", "mindrecord/mine.txt", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    assert go("--keep_checkpoints=none", shots="1", seeds="0") == 0
    for name in ("ckpt_0/mine.txt", "mindrecord/mine.txt", "notes.txt"):
        assert (folder / name).read_text() == "mine"
    assert checkpoints(folder) == []


def test_killed_outright_and_resumed(place, monkeypatch):
    monkeypatch.setenv("FAKE_STEPS", "4")
    monkeypatch.setenv("FAKE_DELAY", "0.1")
    process = spawn()
    wait_for(place, "2/0/0 step 2")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(child_pid(place))  # no training goes on without its sweep
    monkeypatch.setenv("FAKE_DELAY", "0")
    assert go() == 0
    found = starts(place)
    assert found[:2] == ["1/0/0 start 0", "2/0/0 start 0"]
    assert found[2] in ("2/0/0 start 1", "2/0/0 start 2")
    assert found[3:] == ["1/1/1 start 0", "2/1/1 start 0"]
    assert "4 of 4 runs" in (place / "out dir" / ROOT / "table.md").read_text()


def test_killed_before_a_checkpoint_starts_anew(place, monkeypatch):
    monkeypatch.setenv("FAKE_STEPS", "9")
    monkeypatch.setenv("FAKE_LATE", "8")
    monkeypatch.setenv("FAKE_DELAY", "0.1")
    process = spawn(shots="1", seeds="0")
    wait_for(place, "1/0/0 step 2")
    process.kill()
    process.wait()
    assert gone(child_pid(place))
    monkeypatch.setenv("FAKE_DELAY", "0")
    assert go(shots="1", seeds="0") == 0
    assert starts(place) == ["1/0/0 start 0", "1/0/0 start 0"]
    folder = run_folder(place)
    # logs of the two attempts are apart
    assert (folder / "loss_0.log").read_text() == "loss\n"
    assert (folder / "interrupted-1" / "loss_0.log").read_text() == "loss\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_handed_on(place, monkeypatch, number, code):
    monkeypatch.setenv("FAKE_STEPS", "100")
    monkeypatch.setenv("FAKE_DELAY", "0.2")
    process = spawn(shots="1", seeds="0")
    wait_for(place, "1/0/0 step 2")  # the checkpoint of step 1 is whole
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert f"1/0/0 signal {int(number)}" in events(place)
    assert "the same command goes on from here" in output and "Traceback" not in output
    assert gone(child_pid(place))
    monkeypatch.setenv("FAKE_STEPS", "2")
    monkeypatch.setenv("FAKE_DELAY", "0")
    assert go(shots="1", seeds="0") == 0
    assert not starts(place)[-1].endswith("start 0")


def test_a_launcher_may_add_cards(place, monkeypatch):
    monkeypatch.setenv("FAKE_CARDS", "8")
    assert go(shots="1", seeds="0") == 0
    result = json.loads((run_folder(place) / "sweep_result.json").read_text())
    assert (result["iterations"], result["images"]) == (2, 64)


def test_a_run_that_fails(place, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "1")
    with pytest.raises(InputError, match=r"(?s)1-shot, set 0, seed 0 failed; .*this shot fails"):
        go()
    assert len(starts(place)) == 1
    assert go("--keep_going") == 1
    ended = [line for line in events(place) if line.endswith(" end")]
    assert ended == ["2/0/0 end", "2/1/1 end"]
    assert "2 of 4 runs" in (place / "out dir" / ROOT / "table.md").read_text()


def test_a_run_of_another_process_is_left_alone(place):
    with sweep_runs.locked(run_folder(place)) as lock:
        assert lock is not None
        assert go(seeds="0") == 1
    assert starts(place) == ["2/0/0 start 0"]
    assert go(seeds="0") == 0
    assert starts(place) == ["2/0/0 start 0", "1/0/0 start 0"]


def test_other_settings_are_refused(place):
    assert go(shots="1", seeds="0") == 0
    with pytest.raises(InputError, match=r"other settings \(solver\.base_lr 0\.02 -> 0\.01\)"):
        go("--solver.base_lr=0.01", shots="1", seeds="0")
    # what has no effect on the figures may change, and data may move
    assert go("--log.period=5", "--data.num_workers=1", shots="1", seeds="0") == 0
    (place / "datasets").rename(place / "elsewhere")
    assert go("--datasets_root=elsewhere", shots="1", seeds="0") == 0
    (place / "elsewhere").rename(place / "datasets")
    (place / "start.ckpt").rename(place / "moved.ckpt")
    START[0] = "--model_pretrained_path=moved.ckpt"
    try:
        assert go(shots="1", seeds="0") == 0
        (place / "moved.ckpt").write_bytes(b"other weights")
        sweep._checksum.cache_clear()
        with pytest.raises(InputError, match=r"sha256\.model_pretrained_path"):
            go(shots="1", seeds="0")
        assert len(starts(place)) == 1
        assert go("--redo_changed", shots="1", seeds="0") == 0
    finally:
        START[0] = "--model_pretrained_path=start.ckpt"
        sweep._checksum.cache_clear()
    assert starts(place) == ["1/0/0 start 0"] * 2
    assert (run_folder(place) / "interrupted-1" / "sweep_result.json").is_file()


@pytest.mark.parametrize(
    ("name", "key"),
    [("a.json", "test"), ("split/seed0/full_box_1shot_b_trainval.json", "train")],
)
def test_other_data_of_the_same_name_are_refused(place, name, key):
    assert go(shots="1", seeds="0") == 0
    path = place / "datasets" / name
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"other settings \(sha256\.data\.{key} "):
        go(shots="1", seeds="0")
    assert go("--redo_changed", shots="1", seeds="0") == 0
    assert starts(place) == ["1/0/0 start 0"] * 2


def test_missing_data_are_named_before_any_training(place):
    (place / "datasets" / "split" / "seed1" / "full_box_2shot_b_trainval.json").unlink()
    with pytest.raises(InputError, match=r"full_box_2shot_b_trainval\.json does not exist"):
        go()
    assert starts(place) == []
    assert go("--dry_run") == 0


def test_a_folder_of_others_is_refused(place):
    run_folder(place).mkdir(parents=True)
    (run_folder(place) / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds thesis\.txt, which is not of a sweep"):
        go()
    assert starts(place) == []


@pytest.mark.parametrize("text", ['{"format": ', "[]", '{"format": "defrcn-sweep"}'])
def test_a_damaged_result_is_named(place, text):
    assert go(shots="1", seeds="0") == 0
    path = run_folder(place) / "sweep_result.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"sweep_result\.json"):
        go(shots="1", seeds="0")
    path.unlink()
    assert go(shots="1", seeds="0") == 0  # its checkpoint is there: evaluated again
    assert starts(place) == ["1/0/0 start 0", "1/0/0 start 2"]


def test_a_damaged_checkpoint_does_not_count(place, monkeypatch):
    assert go(shots="1", seeds="0") == 0
    folder = run_folder(place)
    (folder / "sweep_result.json").unlink()
    weights = folder / "ckpt_0" / "defrcn-2.ckpt"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert go(shots="1", seeds="0") == 0
    assert starts(place) == ["1/0/0 start 0"] * 2


def test_confirm(place, monkeypatch, capsys):
    answers = iter(["what\n", "n\n", "\n", "q\n"])
    monkeypatch.setattr(
        "sys.stdin", type("Input", (), {"readline": staticmethod(lambda: next(answers))})
    )
    assert go("--confirm") == 0
    assert [line.split()[0] for line in starts(place)] == ["2/0/0"]
    out = capsys.readouterr().out
    assert out.count("Start? [Y/n/q]") == 4
    assert "1-shot, set 0, seed 0: 2 iterations. Start?" in out


def test_dry_run_writes_nothing(place, capsys):
    assert go("--dry_run") == 0
    out = capsys.readouterr().out
    assert out.count("(new), 2 iterations") == 4
    assert "--shot_seed=1 --seed=1 '--save_checkpoint_path=out dir/tfa-like/2shot_seed1'" in out
    assert not (place / "out dir").exists() and events(place) == []
    assert go("--dry_run", "--base_checkpoint=start.ckpt", shots="1", seeds="0") == 0
    assert "model_reset_remove.ckpt" in capsys.readouterr().out
    assert go(shots="1", seeds="0") == 0
    assert go("--dry_run", shots="1", seeds="0") == 0
    assert "(finished), 2 iterations: nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split=1"], r"--split 1, 2 or 3 goes with --dataset voc"),
        (["--repeats=0"], r"--repeats does not go with --protocol tfa"),
        (["--protocol=fsrw"], r"--seeds does not go with --protocol fsrw"),
        (["--seed=3"], r"--seed is set by the sweep"),
        (["--resume", "true"], r"--resume is set by the sweep"),
        (["--shots=5-1"], r"--shots '5-1': write numbers"),
        (["--shots=1,1"], r"names no number, or one twice"),
        (["--shots=0"], r"0 shots cannot be trained"),
        (["--config_path=b.yaml", "--config_path=c.yaml"], r"3 files for 2 shots"),
        (["--data.train=[toy_train_novel_5shot_seed0]"], r"is not the 1-shot set 0"),
        (
            ["--test.pcb.enable=true", "--pcb_modelpath=no.ckpt"],
            r"pcb_modelpath: no\.ckpt does not",
        ),
        (["--solver.bse_lr=1"], r"did you mean --solver\.base_lr"),
        (["--model_pretrained_path=none.ckpt"], r"--model_pretrained_path: none\.ckpt does not"),
        (["--test_set=toy_test_novel"], r"--test_set: 'toy_test_novel' is not in data\.test"),
        (["--metric=nAQ"], r"--metric nAQ: write AP, .* such as nAP50"),
    ],
)
def test_wrong_flags(place, more, message):
    with pytest.raises(InputError, match=message):
        go(*more)
    assert starts(place) == []


def test_a_metric_that_the_evaluation_lacks(place):
    with pytest.raises(InputError, match=r"--metric nAP75: the evaluation on toy_test_all gives"):
        go("--metric=nAP75", shots="1", seeds="0")
    # the run itself is kept
    assert go(shots="1", seeds="0") == 0
    assert starts(place) == ["1/0/0 start 0"]


def test_numbers():
    assert sweep_plan.numbers("0-3,7", "--seeds") == (0, 1, 2, 3, 7)
    assert sweep_plan.numbers("10 30", "--shots") == (10, 30)
    for text in ("", "a", "-1", "1-", "0-200000", "1,2,1"):
        with pytest.raises(InputError, match="--seeds"):
            sweep_plan.numbers(text, "--seeds")


def test_one_file_for_each_shot():
    assert sweep_plan.config_files(["c_{shot}.yaml"], (1, 5)) == {1: "c_1.yaml", 5: "c_5.yaml"}
    assert sweep_plan.config_files(["a", "b"], (1, 5)) == {1: "a", 5: "b"}


def test_identity_leaves_out_what_has_no_effect():
    settings = {"seed": 1, "resume": True, "log": {"period": 2}, "test": {"report": True, "x": 1}}
    found = sweep_plan.identity(settings, {"b": "2", "a": "1"})
    assert found == {"seed": 1, "test": {"x": 1}, "sha256": {"a": "1", "b": "2"}}
    assert sweep_runs.digest({"a": 1, "b": 2}) == sweep_runs.digest({"b": 2, "a": 1})
    assert sweep_runs.digest({"a": 1}) != sweep_runs.digest({"a": 1.5})


def test_keys_without_effect_exist():
    from src.model_utils.config import Config, to_plain

    def known(tree, prefix=""):
        for key, value in tree.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from known(value, f"{prefix}{key}.")

    assert set(sweep_plan.WITHOUT_EFFECT) <= set(known(to_plain(Config())))


SURGEON = """
import os, sys
flags = dict(w[2:].split("=", 1) for w in sys.argv[1:])
open(os.environ["FAKE_LOG"], "a").write(f"surgery {flags['method']} {flags['dataset']}\\n")
ends = {"remove": "remove", "randinit": "surgery"}
name = f"{flags['tar-name']}_{ends[flags['method']]}.ckpt"
if "FAKE_SURGEON_FAILS" in os.environ:
    sys.exit("error: no such surgery")
open(os.path.join(flags["save-dir"], name), "w").write("reset")
"""


@pytest.fixture
def surgeon(place, monkeypatch):
    """A stand-in for `src.model_surgery`."""
    script = place / "surgeon.py"
    script.write_text(SURGEON)
    monkeypatch.setattr(sweep_surgery, "COMMAND", (sys.executable, str(script)))
    return place


def test_surgery_is_done_once(surgeon):
    flags = ("--base_checkpoint=start.ckpt", "--setting=gfsod")
    assert go(*flags, shots="1", seeds="0") == 0
    assert go(*flags, shots="1", seeds="0-1") == 0
    done = [line for line in events(surgeon) if line.startswith("surgery")]
    assert done == ["surgery randinit toy.yaml"]
    target = surgeon / "out dir" / "surgery" / "model_reset_surgery.ckpt"
    result = json.loads((run_folder(surgeon) / "sweep_result.json").read_text())
    assert result["settings"]["sha256"]["model_pretrained_path"] == sweep._checksum(str(target))
    target.write_text("damaged")
    sweep._checksum.cache_clear()
    assert go(*flags, shots="1", seeds="0") == 0
    assert target.read_text() == "reset"
    (surgeon / "start.ckpt").write_bytes(b"another base")
    with pytest.raises(InputError, match="made of another base checkpoint"):
        go(*flags, shots="1", seeds="0")


def test_surgery_that_fails(surgeon, monkeypatch):
    monkeypatch.setenv("FAKE_SURGEON_FAILS", "1")
    with pytest.raises(InputError, match=r"(?s)surgery of start\.ckpt failed .*no such surgery"):
        go("--base_checkpoint=start.ckpt", shots="1", seeds="0")
    assert starts(surgeon) == []


def test_a_reset_file_of_others_is_not_replaced(surgeon):
    target = surgeon / "out dir" / "surgery" / "model_reset_remove.ckpt"
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    with pytest.raises(InputError, match="was not made by a sweep"):
        go("--base_checkpoint=start.ckpt", shots="1", seeds="0")
    assert target.read_text() == "mine"


def test_the_base_may_be_a_folder(surgeon):
    save_checkpoint(
        surgeon / "base" / "ckpt_0", 7, {"w": _one()}, {"seed": _one()}, {"class_names": ["a"]}
    )
    assert go("--base_checkpoint=base", shots="1", seeds="0") == 0
    (surgeon / "nothing").mkdir()
    with pytest.raises(InputError, match="there is no checkpoint in nothing"):
        go("--base_checkpoint=nothing", shots="1", seeds="0")


def _one():
    import numpy as np

    return np.ones(1, np.float32)


def test_official_configurations_are_the_defaults():
    for dataset, split in (("coco", 0), ("voc", 3)):
        options, _ = sweep.parse(
            [
                "--output=x",
                f"--dataset={dataset}",
                "--setting=gfsod",
                "--model_pretrained_path=y",
                *([f"--split={split}"] if split else []),
            ]
        )
        name = f"defrcn_gfsod_r101_novel{split or ''}_{{shot}}shot.yaml"
        assert options.config_path == [str(PROJECT / "configs" / dataset / name)]
        assert options.training_seeds == tuple(range(10))
        assert options.shots == ((1, 2, 3, 5, 10, 30) if dataset == "coco" else (1, 2, 3, 5, 10))


def test_nothing_of_a_childs_group_is_left(place, monkeypatch):
    """A command that starts others: SIGTERM reaches them all, nothing stays."""
    script = f"sh -c '{FAKE.replace(chr(39), '')} \"$@\"; exit 9' sh"
    monkeypatch.setenv("FAKE_STEPS", "100")
    monkeypatch.setenv("FAKE_DELAY", "0.2")
    process = spawn(f"--train_command={script}", shots="1", seeds="0")
    wait_for(place, "1/0/0 step 1")
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert gone(child_pid(place))
