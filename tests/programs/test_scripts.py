# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The shell scripts: what they say when something is missing, and what they leave behind.

Nothing here installs a package or runs the suite: the environments are stand-ins, an empty
requirements file or a Python that only reports a version.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from src.demo.summary import FROM_SCRATCH, STEPS
from src.model_utils.paths import project_folder

ROOT = project_folder()
SCRIPTS = sorted([*ROOT.glob("scripts/*.sh"), ROOT / ".ci" / "run"])
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "requirements-build.txt")


@pytest.fixture
def project(tmp_path):
    """A copy of the scripts in a folder with a space in its name, with nothing to install."""
    folder = tmp_path / "a project"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    for name in REQUIREMENTS:
        (folder / name).write_text("")
    return folder


def environment_of(variables):
    """Without the settings of this process."""
    keep = ("PATH", "HOME", "TMPDIR", "LANG", "PYENV_ROOT")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment.update(PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
    return environment | {name: str(value) for name, value in variables.items()}


def run(project, script, *arguments, **variables):
    """Run a script from another folder."""
    return subprocess.run(
        ["bash", str(project / "scripts" / script), *arguments],
        cwd=project.parent,
        env=environment_of(variables),
        capture_output=True,
        text=True,
        timeout=120,
    )


def fake_python(folder, version, *, has_venv=True):
    """An executable that answers the scripts' questions as that version of Python would."""
    path = folder / "python3"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        f"  *version_info*) echo {version} ;;\n"
        f"  *) exit {0 if has_venv else 1} ;;\n"
        "esac\n"
    )
    path.chmod(0o755)
    return path


def only_path(tmp_path, *extra):
    """A PATH on which there is no Python but those in `extra`."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("bash", "sh", "env", "dirname", "sed", "ls", "cat", "df", "awk", "grep", "tr"):
        link = tools / name
        if not link.exists():
            link.symlink_to(shutil.which(name))
    return os.pathsep.join(map(str, (*extra, tools)))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert os.access(path, os.X_OK) or path.name.startswith("lib_")


@pytest.mark.parametrize("script", ["run_demo.sh", "run_tests.sh"])
def test_help_changes_nothing(project, script):
    before = sorted(project.rglob("*"))
    done = run(project, script, "--help")
    assert done.returncode == 0
    assert f"bash scripts/{script}" in done.stdout
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("run_demo.sh", ["a", "b"]), ("run_demo.sh", ["--output"]), ("setup_env.sh", ["dev"])]
    + [("setup_env.sh", ["--gpu", "--cpu"])],
)
def test_wrong_arguments_show_the_usage(project, script, arguments):
    done = run(project, script, *arguments)
    assert done.returncode == 2
    assert f"usage: bash scripts/{script}" in done.stderr
    assert not (project / ".venv").exists()


def test_no_python_is_said(project, tmp_path):
    done = run(project, "setup_env.sh", PATH=only_path(tmp_path), PYENV_ROOT=tmp_path / "none")
    assert done.returncode == 1
    assert "Python 3.9 to 3.12 is needed" in done.stderr
    assert "no Python at all" in done.stderr


@pytest.mark.parametrize(
    ("version", "has_venv", "words"),
    [
        ("3.13.0", True, "python3 is 3.13.0"),
        ("3.8.18", True, "python3 is 3.8.18"),
        ("3.11.2", False, "without the venv module (Debian, Ubuntu: apt-get install python3.11-"),
    ],
)
def test_a_wrong_python_is_named(project, tmp_path, version, has_venv, words):
    python = fake_python(tmp_path / "bin", version, has_venv=has_venv)
    path = only_path(tmp_path, python.parent)
    done = run(project, "run_tests.sh", PATH=path, PYENV_ROOT=tmp_path / "none")
    assert done.returncode == 1
    assert words in done.stderr
    assert "PYTHON=/path/to/python3.11" in done.stderr
    assert not (project / ".venv").exists()


def test_a_wrong_named_python_is_not_replaced_by_another(project, tmp_path):
    python = fake_python(tmp_path / "bin", "3.13.1")
    done = run(project, "setup_env.sh", PYTHON=python)
    assert done.returncode == 1
    assert f"PYTHON={python} is 3.13.1" in done.stderr


def test_the_pythons_of_pyenv_are_found(project, tmp_path):
    bad = fake_python(tmp_path / "bin", "3.13.0")
    good = fake_python(tmp_path / "pyenv" / "versions" / "3.10.13" / "bin", "3.10.13")
    good.rename(good.with_name("python"))
    done = run(
        project,
        "setup_env.sh",
        PATH=only_path(tmp_path, bad.parent),
        PYENV_ROOT=tmp_path / "pyenv",
        DEFRCN_TEST_FREE_MB=1,
    )
    assert done.returncode == 1
    assert "not enough disk space" in done.stderr


@pytest.mark.parametrize("script", ["run_demo.sh", "run_tests.sh", "setup_env.sh"])
def test_a_full_disk_is_said_before_anything_is_written(project, script):
    done = run(project, script, DEFRCN_TEST_FREE_MB=100, PYTHON=sys.executable)
    assert done.returncode == 1
    assert "not enough disk space" in done.stderr
    assert "100 MB are free" in done.stderr
    assert not (project / ".venv").exists()
    assert not (project / "demo_output").exists()


@pytest.mark.slow
def test_the_environment_is_made_once_and_reused(project):
    first = run(project, "setup_env.sh", PYTHON=sys.executable)
    assert first.returncode == 0, first.stderr
    assert "making an environment" in first.stdout
    python = project / ".venv" / "bin" / "python"
    assert python.exists()
    second = run(project, "setup_env.sh", PYTHON="/none", DEFRCN_TEST_FREE_MB=1)
    assert second.returncode == 0, second.stderr
    assert "using the environment" in second.stdout

    # Half made: the stamp, written last, is not there.
    (project / ".venv" / ".installed-requirements.txt").unlink()
    (project / ".venv" / "left over").touch()
    third = run(project, "setup_env.sh", PYTHON=sys.executable)
    assert third.returncode == 0, third.stderr
    assert "is incomplete; making it again" in third.stdout
    assert not (project / ".venv" / "left over").exists()

    # Other requirements: installed into what is there, and a failure is explained.
    (project / "requirements.txt").write_text("no-such-package-for-defrcn==1.0\n")
    fourth = run(project, "setup_env.sh")
    assert fourth.returncode == 1
    assert "the package index cannot be reached" in fourth.stderr
    assert (project / ".venv" / ".installed-requirements.txt").read_text() == "updating\n"

    # It was whole once: what was broken off is gone on with, and others may be using it.
    (project / ".venv" / "mine").touch()
    (project / "requirements.txt").write_text("")
    fifth = run(project, "setup_env.sh", PYTHON="/none")
    assert fifth.returncode == 0, fifth.stderr
    assert "installing" in fifth.stdout and (project / ".venv" / "mine").exists()

    # CUDA that is not in what was installed.
    (project / "requirements-gpu.txt").write_text("")
    sixth = run(project, "setup_env.sh", "--gpu")
    assert sixth.returncode == 1
    assert sixth.stderr.endswith("CUDA is not usable; see above.\n")


def test_two_scripts_do_not_make_the_environment_at_once(project):
    with (project / ".venv.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            ["bash", project / "scripts" / "setup_env.sh"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment_of({"PYTHON": sys.executable}),
        )
        assert "waiting for another script" in waiting.stdout.readline()
        assert not (project / ".venv").exists()
    assert "making an environment" in waiting.communicate()[0]
    assert waiting.returncode == 0


def test_someone_elses_folder_is_not_removed(project):
    (project / ".venv").mkdir()
    (project / ".venv" / "notes.txt").write_text("mine")
    done = run(project, "setup_env.sh", PYTHON=sys.executable)
    assert done.returncode == 1
    assert "remove it and try again" in done.stderr
    assert (project / ".venv" / "notes.txt").read_text() == "mine"


def stub_environment(project, body):
    """An environment whose Python is a shell script; every requirement counts as installed."""
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    for name in REQUIREMENTS:
        (project / ".venv" / f".installed-{name}").write_text("stamp\n")
    return python


ANSWERS = """
case "$1" in
  -c) echo 3.11.7 ;;
  -) echo stamp ;;
"""


def test_run_tests_hands_on_its_arguments_and_the_exit_status(project):
    stub_environment(project, ANSWERS + '*) printf "<%s>" "$@"; exit 5 ;;\nesac')
    done = run(project, "run_tests.sh", "-k", "two words")
    assert done.returncode == 5
    assert "<-m><pytest><-m><not slow><-k><two words>" in done.stdout


def test_constraints_of_the_machine_stay_in_force(project):
    stub_environment(
        project,
        ANSWERS + '-m) [ "$3" = install ] && echo "[$PIP_CONSTRAINT]" ;;\nesac',
    )
    (project / ".venv" / ".installed-requirements.txt").write_text("older\n")
    done = run(project, "setup_env.sh", PIP_CONSTRAINT="/etc/site.txt")
    assert "[requirements-build.txt /etc/site.txt]" in done.stdout
    assert done.returncode == 0, done.stderr


def demo_answers(train="exit 0"):
    return ANSWERS + f'train.py) echo "$@"; {train} ;;\n*) echo "$@" ;;\nesac'


def test_run_demo_calls_its_steps_in_order(project, tmp_path):
    stub_environment(project, demo_answers())
    words = ("out put", "--from-scratch")
    done = run(project, "run_demo.sh", *words, DEFRCN_DEMO_ARGS="--a.b=1 --c=2")
    assert done.returncode == 0, done.stderr
    output = tmp_path / "out put"  # below the caller's folder
    lines = [line for line in done.stdout.splitlines() if not line.startswith("==")]
    checkpoints = f"{output}/checkpoints"
    expected = (
        ("-m src.demo.make_data ", f" --output {output}/data/shapes --seed 0"),
        ("train.py --config_path=configs/demo/shapes_base.yaml ", " --a.b=1 --c=2 "),
        ("eval.py --config_path=configs/demo/shapes_base.yaml ", f"={checkpoints}/base/ckpt_0 "),
        ("-m src.tools.draw_kshot --config_path=configs/demo/shapes_base.yaml ", " --shots 5 "),
        ("-m src.model_surgery ", f" --save-dir={checkpoints} --datasets_root={output}/data"),
        ("-m src.tools.pretrain_encoder ", f" --output {checkpoints}/encoder.ckpt "),
        (
            "train.py --config_path=configs/demo/shapes_fsod_5shot.yaml ",
            f" --model_pretrained_path={checkpoints}/model_reset_remove.ckpt",
        ),
        (
            "eval.py --config_path=configs/demo/shapes_fsod_5shot.yaml ",
            f" --test.pcb.enable=false --eval_checkpoint_path={checkpoints}/novel/ckpt_0 ",
        ),
        (
            "eval.py --config_path=configs/demo/shapes_fsod_5shot.yaml ",
            f" --pcb_modelpath={checkpoints}/encoder.ckpt ",
        ),
        ("-m src.demo.make_data ", f" --output {output}/data/new --seed 1 "),
        ("-m src.predict ", f" --input_path={output}/data/new/images/test "),
        ("-m src.demo.summary ", f" --output {output} "),
    )
    assert len(lines) == len(expected), lines
    for line, (start, part) in zip(lines, expected):
        assert line.startswith(start), line
        assert part in f"{line} ", line
    steps = (output / "steps.txt").read_text().splitlines()
    assert steps[0] == "settings --from-scratch --a.b=1 --c=2 "
    assert [line.split()[0] for line in steps[1:]] == list(STEPS)


def test_run_demo_uses_the_detector_and_encoder_of_the_project(project, tmp_path):
    stub_environment(project, demo_answers())
    done = run(project, "run_demo.sh", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train.py ") == 1
    assert "pretrain_encoder" not in done.stdout
    assert done.stdout.count("left out, as configs/demo has it") == 2
    assert "--src-path=configs/demo/shapes_base.ckpt " in done.stdout
    assert "--eval_checkpoint_path=configs/demo/shapes_base.ckpt " in done.stdout
    assert done.stdout.count("--pcb_modelpath=configs/demo/shapes_encoder.ckpt ") == 4
    steps = (tmp_path / "out" / "steps.txt").read_text().splitlines()
    assert [line.split()[0] for line in steps[1:]] == [s for s in STEPS if s not in FROM_SCRATCH]
    done = run(project, "run_demo.sh", "other", DEFRCN_DEMO_ENCODER_STEPS="9")
    assert done.returncode == 1
    assert "goes with --from-scratch" in done.stderr
    assert not (tmp_path / "other").exists()


def test_a_finished_demo_is_kept(project, tmp_path):
    stub_environment(project, demo_answers())
    assert run(project, "run_demo.sh", "out").returncode == 0
    output = tmp_path / "out"
    for name in ("summary.json", "data/a.jpg", "checkpoints/base/a.ckpt", "train_base.log"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text(name)
    before = sorted(output.rglob("*"))
    done = run(project, "run_demo.sh", "out")
    assert done.returncode == 1
    assert f"{output} holds a finished demo (summary.json of " in done.stderr
    assert f"--overwrite, which moves it to {output}.old-N" in done.stderr
    assert "train.py" not in done.stdout
    assert sorted(output.rglob("*")) == before

    done = run(project, "run_demo.sh", "out", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert f"is in {output}.old-1 now" in done.stdout
    assert done.stdout.count("train.py --config_path=configs/demo/") == 1
    old = tmp_path / "out.old-1"
    for name in ("summary.json", "checkpoints/base/a.ckpt", "train_base.log"):
        assert (old / name).read_text() == name
        assert not (output / "checkpoints").exists()
    assert (output / "data" / "a.jpg").exists()  # used again
    assert not (old / "data").exists()
    assert run(project, "run_demo.sh", "--overwrite", "out").returncode == 0
    assert (tmp_path / "out.old-2").is_dir()


def test_an_interrupted_demo_goes_on(project, tmp_path):
    python = stub_environment(project, demo_answers(train="exit 3"))
    assert run(project, "run_demo.sh", "out", "--from-scratch").returncode == 3
    python.write_text(f"#!/bin/sh\n{demo_answers()}\n")
    done = run(project, "run_demo.sh", "out", "--from-scratch", DEFRCN_DEMO_ARGS="--seed=1")
    assert done.returncode == 1
    assert "interrupted demo with other settings (settings --from-scratch  )" in done.stderr
    assert run(project, "run_demo.sh", "out").returncode == 1
    done = run(project, "run_demo.sh", "out", "--from-scratch")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished before") == 1  # the pictures
    assert "-m src.demo.make_data --output" not in done.stdout.partition("train")[0]
    assert "--resume=true" in done.stdout
    log = (tmp_path / "out" / "train_base.log").read_text()
    assert len(log.splitlines()) == 2  # both attempts
    done = run(project, "run_demo.sh", "out", "--from-scratch")
    assert done.stdout.count("finished before") == len(STEPS)
    assert "-m src.demo.summary" in done.stdout
    assert not list(tmp_path.glob("out.old-*"))


@pytest.mark.skipif(shutil.which("flock") is None, reason="no flock on this system")
def test_two_demos_in_one_folder(project, tmp_path):
    stub_environment(project, demo_answers(train="sleep 60"))
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = ["bash", str(project / "scripts" / "run_demo.sh"), str(tmp_path / "out")]
    first = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        end = time.monotonic() + 30
        while not (tmp_path / "out" / "train_novel.log").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        before = (tmp_path / "out" / "steps.txt").read_text()
        done = run(project, "run_demo.sh", "out", "--overwrite")
        assert done.returncode == 1
        assert f"is in use by another demo (process {first.pid})" in done.stderr
        assert (tmp_path / "out" / "steps.txt").read_text() == before
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    stub_environment(project, demo_answers())
    assert run(project, "run_demo.sh", "out").returncode == 0  # a killed one is no obstacle


def test_run_demo_stops_when_training_fails(project):
    stub_environment(project, demo_answers(train="exit 3"))
    done = run(project, "run_demo.sh", "--from-scratch")
    assert done.returncode == 3
    assert "eval.py" not in done.stdout
    assert "train" not in (project / "demo_output" / "steps.txt").read_text()


def test_run_demo_leaves_other_peoples_folders_alone(project, tmp_path):
    stub_environment(project, demo_answers())
    checkpoint = tmp_path / "mine" / "checkpoints" / "precious.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    done = run(project, "run_demo.sh", "mine")
    assert done.returncode == 1
    assert "holds other files" in done.stderr
    assert checkpoint.exists()
