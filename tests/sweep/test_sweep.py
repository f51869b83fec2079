# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""`python -m src.sweep` with real processes, a stand-in for train.py, and its kills and resumes."""

import json

import pytest

from src.model_utils.config import load_config, to_plain
from src.model_utils.errors import InputError
from src.sweep import __main__ as sweep
from src.sweep.plan import WITHOUT_EFFECT, completed, config_files, identity
from src.sweep.runs import digest
from src.util import numbers
from tests.helpers import tiny_onnx, toy_sweep
from tests.helpers.toy_sweep import (
    PROJECT,
    ROOT,
    START,
    checkpoints,
    events,
    go,
    run_folder,
    starts,
    words,
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    return toy_sweep.enter(tmp_path, monkeypatch)


def test_shots_times_seeds(place, capsys):
    assert go() == 0
    # every shot of a seed before the next seed; training seed = number of the set
    assert starts(place) == ["1/0/0 start 0", "2/0/0 start 0", "1/1/1 start 0", "2/1/1 start 0"]
    out = capsys.readouterr().out
    root = place / "out dir" / ROOT
    # 1-shot gives 10 and 11: mean 10.5, s 0.7071, t 12.706 * 0.5
    assert "| 10.50 |" in out and "± 6.35" in out
    assert "fsod, tfa-like: nAP in percent on toy_test_all. COCO box AP; without PCB" in out
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


def test_a_launcher_may_add_cards(place, monkeypatch):
    monkeypatch.setenv("FAKE_CARDS", "8")
    assert go(shots="1", seeds="0") == 0
    result = json.loads((run_folder(place) / "sweep_result.json").read_text())
    assert (result["iterations"], result["images"]) == (2, 64)


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


def test_a_refusal_writes_nothing(place):
    assert go(shots="1", seeds="0") == 0
    files = {path: path.read_bytes() for path in (place / "out dir").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="other settings"):
        go("--solver.base_lr=0.01", shots="1", seeds="0-1")
    after = {path: path.read_bytes() for path in (place / "out dir").rglob("*") if path.is_file()}
    lock = place / "out dir" / ROOT / ".sweep.lock"
    assert {**files, lock: b""} == {**after, lock: b""}


@pytest.fixture
def older(place):
    """A finished run as an older version recorded it: without keys that came later."""
    content = json.loads((PROJECT / "tests" / "data" / "older_sweep_result.json").read_text())

    def write(**solver):
        content["settings"]["solver"].update(solver)
        content["hash"] = digest(content["settings"])
        run_folder(place).mkdir(parents=True)
        for name in ("sweep_run.json", "sweep_result.json"):
            (run_folder(place) / name).write_text(json.dumps(content))

    return write


def test_a_finished_sweep_of_an_older_version_is_accepted(place, older, capsys):
    older(a_key_that_is_gone=1)
    assert go(shots="1", seeds="0") == 0
    assert starts(place) == []
    assert "| 10.00 |" in capsys.readouterr().out


def test_a_sweep_of_an_older_version_with_other_settings_is_refused(place, older):
    older(base_lr=0.5)
    with pytest.raises(InputError, match=r"other settings \(solver\.base_lr 0\.5 -> 0\.02\)"):
        go(shots="1", seeds="0")
    assert starts(place) == []


def test_a_new_key_counts_with_its_default():
    stored = {
        "seed": 3,
        "data": {"custom": {"a": {"format": "voc", "gone": 1}}},
        "sha256": {"x": "y"},
    }
    found = completed(stored)
    assert found["seed"] == 3 and found["solver"]["base_lr"] == 0.02
    assert found["data"]["custom"]["a"]["format"] == "voc"
    assert found["data"]["custom"]["a"]["novel_classes"] == []
    assert "gone" not in found["data"]["custom"]["a"] and found["sha256"] == {"x": "y"}


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
        (["--overwrite=true"], r"--overwrite is set by the sweep"),
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
    assert numbers("0-3,7", "--seeds") == (0, 1, 2, 3, 7)
    assert numbers("10 30", "--shots") == (10, 30)
    for text in ("", "a", "-1", "1-", "0-200000", "1,2,1"):
        with pytest.raises(InputError, match="--seeds"):
            numbers(text, "--seeds")


def test_one_file_for_each_shot():
    assert config_files(["c_{shot}.yaml"], (1, 5)) == {1: "c_1.yaml", 5: "c_5.yaml"}
    assert config_files(["a", "b"], (1, 5)) == {1: "a", 5: "b"}


def test_identity_leaves_out_what_has_no_effect():
    settings = {"seed": 1, "resume": True, "log": {"period": 2}, "test": {"report": True, "x": 1}}
    found = identity(settings, {"b": "2", "a": "1"})
    assert found == {"seed": 1, "test": {"x": 1}, "sha256": {"a": "1", "b": "2"}}
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})


def test_keys_without_effect_exist():
    from src.model_utils.config import Config, to_plain

    def known(tree, prefix=""):
        for key, value in tree.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from known(value, f"{prefix}{key}.")

    assert set(WITHOUT_EFFECT) <= set(known(to_plain(Config())))


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


def test_an_encoder_counts_by_its_content(tmp_path):
    """Of an ONNX file its settings and its arrays; in a dry run it need not be there."""
    (tmp_path / "m.onnx").write_bytes(tiny_onnx.map_model())
    settings = "model: m.onnx\nfeatures: map\nmean: [0.5, 0.5, 0.5]\nstd: [0.2, 0.2, 0.2]\n"
    (tmp_path / "c.yaml").write_text("test: {pcb: {enable: true}}")

    def configured(name):
        return load_config(tmp_path / "c.yaml", [f"--test.pcb.encoder={tmp_path / name}"])

    found = []
    for name, text in (("d", settings), ("e", settings), ("f", settings + "channels: bgr\n")):
        (tmp_path / f"{name}.yaml").write_text(text)
        config = configured(f"{name}.yaml")
        checksums = sweep._encoder(config, dry_run=False)
        assert list(checksums) == ["test.pcb.encoder"]
        found.append(identity(to_plain(config), checksums))
    assert found[0] == found[1] != found[2]
    assert sweep._encoder(configured("gone.yaml"), dry_run=True) == {"test.pcb.encoder": ""}
    with pytest.raises(InputError, match=r"gone\.yaml does not exist"):
        sweep._encoder(configured("gone.yaml"), dry_run=False)
