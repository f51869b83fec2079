# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The launchers in scripts/: commands, arguments, folders, exit codes, signals, what they leave."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.launch import __main__ as launch
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.sweep.__main__ import parse as parse_sweep

ROOT = project_folder()
KINDS = ("standalone_train", "distribute_train", "eval_pretrain")
KINDS += ("standalone_finetune", "distribute_finetune", "eval_finetune")
TARGETS = {"ascend": "Ascend", "gpu": "GPU", "cpu": "CPU"}


def script(kind, target="cpu"):
    return f"run_{kind}_{target}.sh"


def run(name, *arguments, root=ROOT, cwd="/", **variables):
    keep = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    environment = {**keep, "PYTHON": sys.executable}
    environment.update({key: str(value) for key, value in variables.items()})
    return subprocess.run(
        ["bash", str(root / "scripts" / name), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def commands(name, *arguments, **variables):
    """What a launcher would run, as lists of words after the interpreter."""
    done = run(name, *arguments, DRY_RUN=1, **variables)
    assert done.returncode == 0, done.stderr
    found = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(words[0] == sys.executable for words in found)
    return [words[1:] for words in found]


def flags(words):
    return dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_launcher_has_its_device_and_folders(kind, target):
    if kind == "eval_finetune":
        done = run(script(kind, target), DRY_RUN=1)
        assert done.returncode == 1
        assert "no fine-tuned checkpoint in checkpoints/coco/defrcn" in done.stderr
        return
    for words in commands(script(kind, target), "my exp"):
        given = flags(words)
        assert given["device_target"] == TARGETS[target]
        folder = given.get("output") or given["save_checkpoint_path"]
        assert folder.startswith("checkpoints/coco/my exp/defrcn_")
        assert given["log_dir"] == f"{folder}/logs"
        assert ("--worker_num" in " ".join(words)) == kind.startswith("distribute")


def test_base_training():
    (words,) = commands(script("standalone_train"))
    assert words[:2] == ["-m", "src.launch"]
    program = words[words.index("train.py") :]
    assert program == [
        "train.py",
        "--config_path=configs/coco/defrcn_det_r101_base.yaml",
        "--device_target=CPU",
        "--save_checkpoint_path=checkpoints/coco/defrcn/defrcn_det_r101_base",
    ]
    (words,) = commands(script("standalone_train"), "--dataset=voc", "--split=3", "--a.b=c d")
    assert "--config_path=configs/voc/defrcn_det_r101_base3.yaml" in words
    assert "--save_checkpoint_path=checkpoints/voc/defrcn/defrcn_det_r101_base3" in words
    assert words[-1] == "--a.b=c d"
    (words,) = commands(script("standalone_train", "ascend"), DEVICE_ID=5)
    assert "--device_id=5" in words


def test_cards():
    (words,) = commands(script("distribute_train", "gpu"))
    assert "--worker_num=8" in words
    (words,) = commands(script("distribute_train"), "x", "--cards=3")
    assert "--worker_num=3" in words
    several = ["--worker_num=16", "--local_worker_num=8", "--master_addr=10.0.0.1"]
    several += ["--master_port=9000", "--node_rank=1", "--engine=msrun"]
    (words,) = commands(script("distribute_train", "ascend"), *several)
    assert set(several) <= set(words[: words.index("train.py")])
    (words,) = commands(script("eval_pretrain", "gpu"), "x", "--cards=4")
    assert "--worker_num=4" in words


def test_fine_tuning_is_a_sweep_for_each_setting():
    fsod, gfsod = commands(script("standalone_finetune"), "e", "--seeds=0-2", "--shots=1,5")
    base = "--base_checkpoint=checkpoints/coco/e/defrcn_det_r101_base"
    assert base in fsod
    assert base in gfsod
    assert flags(fsod)["output"] == "checkpoints/coco/e/defrcn_fsod_r101_novel"
    assert flags(gfsod)["output"] == "checkpoints/coco/e/defrcn_gfsod_r101_novel"
    options, words = parse_sweep(fsod[fsod.index("src.sweep") + 1 :])
    assert (options.protocol, options.shots, options.training_seeds) == ("fsrw", (1, 5), (0, 1, 2))
    assert str(options.root) == "checkpoints/coco/e/defrcn_fsod_r101_novel/fsrw-like"
    assert words == ["--device_target=CPU"]
    options, _ = parse_sweep(gfsod[gfsod.index("src.sweep") + 1 :])
    assert (options.protocol, options.setting) == ("tfa", "gfsod")
    assert options.training_seeds == (0, 1, 2)


def test_fine_tuning_on_request():
    (words,) = commands(
        script("distribute_finetune"),
        "--dataset=voc",
        "--split=2",
        "--setting=fsod",
        "--protocol=tfa",
        "--cards=4",
        "--model_pretrained_path=a b.ckpt",
        "--keep_going",
        PYTHON=sys.executable,
    )
    options, others = parse_sweep(words[words.index("src.sweep") + 1 :])
    assert options.keep_going
    assert options.model_pretrained_path == "a b.ckpt"
    assert (options.dataset, options.split, options.protocol) == ("voc", 2, "tfa")
    assert str(options.output) == "checkpoints/voc/defrcn/defrcn_fsod_r101_novel2"
    assert others == ["--run_distribute=true", "--device_num=4", "--device_target=CPU"]
    assert shlex.split(options.train_command) == [
        sys.executable,
        "-m",
        "src.launch",
        "--device_target=CPU",
        "--worker_num=4",
        str(ROOT / "train.py"),
    ]


def test_ones_own_data(tmp_path):
    config = tmp_path / "own {setting}_{shot}.yaml"
    done = run(
        script("standalone_finetune"),
        "--dataset=cells",
        "--shots=5",
        f"--config_path={config.name}",
        cwd=tmp_path,
        DRY_RUN=1,
    )
    fsod, gfsod = (flags(shlex.split(line)) for line in done.stdout.splitlines())
    assert fsod["config_path"] == f"{tmp_path}/own fsod_{{shot}}.yaml"
    assert gfsod["config_path"] == f"{tmp_path}/own gfsod_{{shot}}.yaml"
    assert fsod["dataset"] == "own"
    assert fsod["output"] == "checkpoints/cells/defrcn/defrcn_fsod_novel"


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("standalone_train", ["a", "b"], "'b' is not an option"),
        ("standalone_train", ["-x"], "'-x' is not an option"),
        ("standalone_train", ["../x"], "EXP_NAME '../x'"),
        ("standalone_train", ["--split=1"], "--split goes with"),
        ("standalone_train", ["--dataset=voc", "--split=4"], "--split=4: give one of 1 2 3"),
        ("standalone_train", ["--dataset=mine"], "needs --config_path"),
        ("standalone_train", ["--cards=2"], "scripts/run_distribute_train_cpu.sh"),
        ("standalone_train", ["--shots=1"], "--shots is no option of"),
        ("distribute_train", ["--cards=0"], "--cards=0"),
        ("distribute_train", ["--device_target=GPU"], "--device_target is set by the launcher"),
        ("standalone_finetune", ["--setting=x"], "--setting=x"),
        ("standalone_finetune", ["--shots=1;2"], "--shots=1;2"),
        ("standalone_finetune", ["--protocol=x"], "--protocol=x"),
        ("distribute_finetune", ["--node_rank=1"], "one machine"),
        ("eval_pretrain", ["--node_rank=1"], "needs --cards"),
    ],
)
def test_wrong_arguments_show_the_usage(kind, arguments, words):
    done = run(script(kind), *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert f"usage: bash scripts/{script(kind)} [EXP_NAME]" in done.stderr


def test_help():
    done = run(script("distribute_finetune"), "--help")
    assert done.returncode == 0
    assert "--setting=fsod|gfsod|both" in done.stdout
    assert "--node_rank" in done.stdout


def test_what_an_interpreter_has_to_have(tmp_path):
    """Commands and help need the standard library only; running them needs MindSpore."""
    python = tmp_path / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    kind = script("standalone_train")
    done = run(kind, DRY_RUN=1, PYTHON=python)
    assert done.stdout.startswith(f"{python} -m src.launch "), done.stderr
    assert run(kind, "--help", PYTHON=python).returncode == 0
    done = run(kind, PYTHON=python)
    assert done.returncode == 1
    assert f"{python} has no MindSpore; run bash scripts/setup_env.sh" in done.stderr
    done = run(kind, PYTHON=tmp_path / "none")
    assert done.returncode == 1
    assert "none is no Python 3.9 or newer; run bash scripts/setup_env.sh" in done.stderr


@pytest.fixture
def project(tmp_path):
    """A copy of the launchers in a folder with a space, with programs that only say their words."""
    root = tmp_path / "a project"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        "import os, signal, sys, time\n"
        "print('words', sys.argv[1:], flush=True)\n"
        "if os.environ.get('WAIT'):\n"
        "    def end(number, frame):\n"
        "        print('signal', number, flush=True)\n"
        "        sys.exit(128 + number)\n"
        "    signal.signal(signal.SIGTERM, end)\n"
        "    signal.signal(signal.SIGINT, end)\n"
        "    os.system('sleep 300 & echo $! > sleeper')\n"
        "    print('ready', os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
        "sys.exit(int(os.environ.get('CODE', '0')))\n"
    )
    for name in ("train.py", "eval.py"):
        (root / name).write_text(program)
    return root


def trained(folder):
    """Give a run's folder what the launchers take for a checkpoint."""
    (folder / "ckpt_0").mkdir(parents=True)
    (folder / "ckpt_0" / "defrcn-3.json").write_text("{}")


def test_output_is_shown_and_kept_and_the_status_is_the_programs(project):
    for code in (0, 7):
        done = run(script("standalone_train"), "an exp", "--x=y z", root=project, CODE=code)
        assert done.returncode == code, done.stderr
        assert "'--x=y z'" in done.stdout
    folder = project / "checkpoints" / "coco" / "an exp" / "defrcn_det_r101_base"
    logs = sorted((folder / "logs").glob("*/output.txt"))
    assert len(logs) == 2
    assert all("'--x=y z'" in path.read_text() for path in logs)


def test_a_training_that_is_there_is_not_trained_over(project, tmp_path):
    """By the real train.py, whose refusal is the launcher's; the words to go on reach it."""
    folder = tmp_path / "results" / "shapes" / "defrcn" / "defrcn_det_base"
    trained(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    config = ROOT / "configs" / "demo" / "shapes_base.yaml"
    options = ["--dataset=shapes", f"--config_path={config}", f"--checkpoints={tmp_path}/results"]
    done = run(script("standalone_train"), *options)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"{folder} holds a" in said
    assert "go on with it by --resume=true" in said
    for word in ("--resume=true", "--overwrite=true"):
        done = run(script("standalone_train"), *options, word, root=project)
        assert done.returncode == 0, done.stderr
        assert f"'{word}'" in done.stdout
    assert {path: path.read_bytes() for path in before} == before


def test_fine_tuned_runs_with_checkpoints_are_evaluated(project):
    root = project / "checkpoints" / "coco" / "defrcn"
    first = root / "defrcn_fsod_r101_novel" / "fsrw-like" / "5shot_seed0"
    second = root / "defrcn_gfsod_r101_novel" / "tfa-like"
    runs = [first / "repeat1", first / "repeat10", second / "10shot_seed3", second / "5shot_seed2"]
    for folder in runs:
        trained(folder)
    (first / "repeat2").mkdir()
    done = run(script("eval_finetune"), root=project)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("words")]
    assert len(lines) == 4
    assert "defrcn_fsod_r101_novel_5shot.yaml" in lines[0]
    assert "'--shot_seed=0', '--seed=1'" in lines[0]
    assert "'--shot_seed=0', '--seed=10'" in lines[1]
    assert "defrcn_gfsod_r101_novel_5shot.yaml" in lines[2]
    assert "'--shot_seed=3', '--seed=3'" in lines[3]
    done = run(script("eval_finetune"), "--setting=gfsod", "--shots=5", root=project)
    assert done.stdout.count("words") == 1
    done = run(script("eval_finetune"), root=project, CODE=3)
    assert done.returncode == 3
    assert done.stdout.count("words") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", ["standalone_train", "eval_finetune"])
def test_a_signal_ends_everything(project, kind, number):
    if kind == "eval_finetune":
        root = project / "checkpoints" / "coco" / "defrcn" / "defrcn_gfsod_r101_novel" / "tfa-like"
        trained(root / "5shot_seed1")
    process = subprocess.Popen(
        ["bash", str(project / "scripts" / script(kind))],
        env={**os.environ, "PYTHON": sys.executable, "WAIT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("ready"):
            pid = int(line.split()[1])
            break
    process.send_signal(number)
    text = process.communicate(timeout=30)[0]
    assert process.returncode == 128 + number, text
    assert f"signal {int(number)}" in text
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{(project / 'sleeper').read_text().strip()}").exists()


# --- src/launch/__main__.py itself


def options(*words):
    return launch.parse([*words, "train.py", "--a=b"])


def test_ports_of_two_launches_differ():
    with launch.free_port() as one, launch.free_port() as two:
        assert one != two


def test_flags_for_several_processes_are_added_once():
    one = launch.parse(["train.py", "--save_checkpoint_path=x/y"])
    assert launch.program_words(one) == ["train.py", "--save_checkpoint_path=x/y"]
    assert one.log_dir.parent == Path("x/y/logs")
    two = launch.parse(["--worker_num", "2", "train.py", "--device_num=2"])
    assert launch.program_words(two) == ["train.py", "--device_num=2", "--run_distribute=true"]
    assert launch.program_words(launch.parse(["src.sweep", "--x"])) == ["-m", "src.sweep", "--x"]


def test_several_machines_need_an_address_and_a_number():
    words = ["--worker_num", "4", "--local_worker_num", "2"]
    for more in ([], ["--node_rank", "0"], ["--master_addr", "10.0.0.1"]):
        with pytest.raises(InputError, match="--node_rank .* and --master_addr"):
            options(*words, *more)
    found = options(*words, "--node_rank", "1", "--master_addr", "10.0.0.1")
    command = launch.msrun_command(found, found.master_port, Path("l"))
    assert "--master_port=8118" in command.words
    assert "--node_rank=1" in command.words
    assert command.words[-2:] == ("--run_distribute=true", "--device_num=4")
    with pytest.raises(InputError, match="from 1 to --worker_num 2"):
        options("--worker_num", "2", "--local_worker_num", "3")


def table(path, *servers):
    numbers = iter(range(100))
    content = [
        {
            "server_id": name,
            "device": [
                {"device_id": str(card), "device_ip": "1.1.1.1", "rank_id": str(next(numbers))}
                for card in cards
            ],
        }
        for name, cards in servers
    ]
    path.write_text(json.dumps({"version": "1.0", "server_list": content}))
    return path


def test_rank_table(tmp_path, monkeypatch):
    path = table(tmp_path / "t.json", ("10.0.0.1", (0, 1)), ("10.0.0.2", (4, 5)))
    monkeypatch.setenv("RANK_TABLE_FILE", str(path))
    found = options("--worker_num", "4", "--device_target", "Ascend", "--node_rank", "1")
    assert found.engine == "ranktable"
    ids = [
        [command.environment[name] for name in ("RANK_ID", "DEVICE_ID", "RANK_SIZE")]
        for command in launch.table_commands(found)
    ]
    assert ids == [["2", "4", "4"], ["3", "5", "4"]]
    with pytest.raises(InputError, match="has the machines 10.0.0.1, 10.0.0.2; say which"):
        launch.table_commands(options("--worker_num", "4", "--device_target", "Ascend"))
    with pytest.raises(InputError, match="has 4 cards, but 2 were asked for"):
        launch.table_commands(
            options("--worker_num", "2", "--device_target", "Ascend", "--node_rank", "0")
        )
    path.write_text("{}")
    with pytest.raises(InputError, match="is no rank table"):
        launch.table_commands(found)
    assert options("--worker_num", "4", "--device_target", "GPU").engine == "msrun"


@pytest.mark.parametrize("target", ["CPU", "GPU", "Ascend"])
def test_processes_beside_cards_keep_to_cores_of_their_own(target, tmp_path):
    given = options("--worker_num", "2", "--device_target", target, "--engine", "msrun")
    command = launch.msrun_command(given, 8118, tmp_path)
    assert ("--bind_core=True" in command.words) == (target != "CPU")


def test_rank_table_processes_end_together(tmp_path, monkeypatch, capfd):
    program = tmp_path / "a program.py"
    program.write_text(
        "import os, sys, time\n"
        "print('rank', os.environ['RANK_ID'], 'card', os.environ['DEVICE_ID'], flush=True)\n"
        "if os.environ['RANK_ID'] == '1':\n"
        "    time.sleep(1)\n"
        "    sys.exit('this one fails')\n"
        "time.sleep(300)\n"
    )
    monkeypatch.setenv("RANK_TABLE_FILE", str(table(tmp_path / "t.json", ("h", (6, 7)))))
    monkeypatch.setattr("src.model_utils.processes._KILL_SECONDS", 1.0)
    words = ["--worker_num", "2", "--device_target", "Ascend", "--log_dir", str(tmp_path / "l")]
    started = time.monotonic()
    assert launch.main([*words, str(program)]) == 1
    assert time.monotonic() - started < 30
    out, err = capfd.readouterr()
    assert "rank 0 card 6" in out
    assert "worker_1.log: this one fails" in err


def test_the_status_is_that_of_the_worker_that_failed(tmp_path):
    output = tmp_path / "output.txt"
    assert launch.worker_code(output) == 1
    for number, code in ((7, 7), (143, 143), (-9, 137)):
        output.write_text(
            "Start worker process with rank id:0\n"
            f"[ERROR] ME(1,python): Worker process 32 exit with exception. Error code: {number}.\n"
            "[WARNING] There's worker exits with exception, kill all other workers.\n"
        )
        assert launch.worker_code(output) == code


def test_mpirun(monkeypatch):
    monkeypatch.setenv("MPIRUN_ARGS", "--hostfile 'my hosts'")
    found = options("--worker_num", "2", "--engine", "mpirun", "--device_target", "GPU")
    words = launch.mpirun_command(found).words
    assert words[:3] == ("mpirun", "-n", "2")
    assert words[words.index("--hostfile") + 1] == "my hosts"
    assert words[-5:] == (
        sys.executable,
        "train.py",
        "--a=b",
        "--run_distribute=true",
        "--device_num=2",
    )
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="mpirun is not on the PATH"):
        launch.run_direct(found)
