# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Which CUDA is taken, what is said of those that do not fit, and how the set-up's is made."""

import os
import subprocess
from importlib.metadata import PackageNotFoundError

import pytest

from src.model_utils import cuda
from src.model_utils.cuda import LIBRARIES, Cuda
from src.model_utils.device_adapter import Runtime
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.tools import link_cuda
from tests.helpers import fake_cuda


def make(home, version="11.6", libraries=tuple(LIBRARIES), folder="lib64"):
    """A folder that looks like CUDA."""
    (home / "bin").mkdir(parents=True)
    (home / folder).mkdir()
    nvcc = home / "bin" / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.1'\n")
    nvcc.chmod(0o755)
    for name in libraries:
        (home / folder / name).write_text("")
    return home


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without CUDA, whose places are all below `tmp_path`."""
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(cuda, "_SYSTEM_FOLDERS", (str(tmp_path / "usr"),))
    monkeypatch.setattr(cuda, "_SYSTEM_HOMES", (f"{tmp_path}/local/cuda-11*",))
    monkeypatch.setattr(cuda, "environment_home", lambda: tmp_path / "venv" / "cuda")
    return tmp_path


def test_the_named_one_then_the_machines_then_the_environments(machine, monkeypatch):
    own = make(machine / "venv" / "cuda", "11.8")
    assert cuda.find() == Cuda(own)
    assert cuda.find().version == "11.8"
    old = make(machine / "local" / "cuda-11.1", "11.1", folder="lib")
    new = make(machine / "local" / "cuda-11.6")
    assert cuda.find() == Cuda(new)
    (new / "bin" / "nvcc").unlink()
    assert cuda.find() == Cuda(old)
    named = make(machine / "named", folder="elsewhere")
    monkeypatch.setenv("CUDA_HOME", str(named))
    assert cuda.find() == Cuda(old)  # what is named has no libraries where CUDA has them
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{named / 'elsewhere'}")
    assert cuda.find() == Cuda(named)


def test_what_does_not_fit_is_told(machine, monkeypatch):
    with pytest.raises(InputError, match=r"there is none\); bash scripts/setup_env\.sh --gpu"):
        cuda.find()
    make(machine / "venv" / "cuda", libraries=[n for n in LIBRARIES if "cudnn" not in n])
    monkeypatch.setenv("CUDA_HOME", str(make(machine / "twelve", "12.4")))
    with pytest.raises(InputError) as caught:
        cuda.find()
    assert f"{machine}/twelve is CUDA 12.4, and MindSpore takes 11" in str(caught.value)
    assert f"{machine}/venv/cuda lacks libcudnn.so.8" in str(caught.value)
    monkeypatch.setenv("CUDA_HOME", str(machine / "nothing"))
    with pytest.raises(InputError, match=r"nothing/bin/nvcc does not say a version"):
        cuda.find()
    # cuDNN may lie apart from CUDA
    (machine / "usr").mkdir()
    (machine / "usr" / "libcudnn.so.8").write_text("")
    assert cuda.find() == Cuda(machine / "venv" / "cuda")


def test_without_a_driver(monkeypatch):
    monkeypatch.setattr(cuda, "DRIVER", "libcuda_that_is_not_there.so.1")
    for call in (cuda.use, cuda.describe_driver, lambda: Runtime.start("GPU")):
        with pytest.raises(InputError, match=r"needs an NVIDIA card and its driver .*not here"):
            call()


def test_a_library_that_is_none(machine, monkeypatch):
    monkeypatch.setattr(cuda, "find_driver", lambda: None)
    make(machine / "venv" / "cuda")
    with pytest.raises(InputError, match=r"libcudart\.so\.11\.0: file too short; bash scripts"):
        cuda.use()
    assert "CUDA_HOME" not in os.environ


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Folders as NVIDIA's packages make them, with libraries of ours."""
    if reason := fake_cuda.missing():
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("packages")
    fake_cuda.make(place / "made")
    for name, package in LIBRARIES.items():
        folder = place / "nvidia" / package.removeprefix("nvidia-").removesuffix("-cu11") / "lib"
        folder.mkdir(parents=True, exist_ok=True)
        (place / "made" / "lib64" / name).rename(folder / name)
    return place / "nvidia"


def no_package(name):
    raise PackageNotFoundError(name)


def test_the_set_ups_cuda(packages, tmp_path, monkeypatch, capsys):
    """Links that can be moved with the environment, and an nvcc with the runtime's version."""
    monkeypatch.setattr(cuda, "_SYSTEM_FOLDERS", ())
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    home = tmp_path / "cuda"
    monkeypatch.setattr(link_cuda, "packages", lambda: packages)
    monkeypatch.setattr(cuda, "environment_home", lambda: home)
    monkeypatch.setattr("importlib.metadata.version", no_package)
    with pytest.raises(InputError, match="nvidia-cuda-runtime-cu11 is not installed"):
        link_cuda.main([])
    assert not home.exists()
    monkeypatch.setattr("importlib.metadata.version", {"nvidia-cuda-runtime-cu11": "11.8.89"}.get)
    for _ in range(2):
        assert link_cuda.main([]) == 0
        assert capsys.readouterr().out == f"CUDA 11.8: {home}\n"
        assert Cuda(home).problem() is None
        assert [path.name for path in tmp_path.iterdir()] == ["cuda"]
    assert not os.readlink(home / "lib64" / "libcudnn.so.8").startswith("/")
    text = subprocess.run([home / "bin" / "nvcc"], capture_output=True, text=True).stdout
    assert text == "Cuda compilation tools, release 11.8, V11.8.89\n"


def test_packages_that_are_not_there(packages, tmp_path, monkeypatch):
    part = tmp_path / "nvidia"
    for folder in packages.iterdir():
        if folder.name != "cudnn":
            (part / folder.name).parent.mkdir(exist_ok=True)
            (part / folder.name).symlink_to(folder)
    with pytest.raises(InputError, match=r"lacks libcudnn\.so\.8 of nvidia-cudnn-cu11; run bash"):
        link_cuda.link(part, tmp_path / "cuda")
    assert [path.name for path in tmp_path.iterdir()] == ["nvidia"]
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"purelib": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"no package of requirements-gpu\.txt is installed"):
        link_cuda.packages()


def test_the_requirements_are_those_that_are_named():
    lines = (project_folder() / "requirements-gpu.txt").read_text().splitlines()
    names = {line.partition("==")[0] for line in lines if line and not line.startswith("#")}
    assert names == set(LIBRARIES.values())
