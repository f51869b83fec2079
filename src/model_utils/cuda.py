# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""CUDA 11 for MindSpore's GPU plugin: found, and loaded before the plugin is.

The plugin is in MindSpore's package; what it stands on, CUDA 11 and cuDNN 8, is a CUDA that the
machine has, or the one that `scripts/setup_env.sh --gpu` puts into the Python environment. The
libraries are loaded here by their paths: what the plugin asks for by name is in the process then,
whatever LD_LIBRARY_PATH was when it started. The driver (`libcuda.so.1`) belongs to the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from src.model_utils.errors import InputError

SETUP = "bash scripts/setup_env.sh --gpu"
HOME_VARIABLE = "CUDA_HOME"
DRIVER = "libcuda.so.1"
MAJOR = 11  # of CUDA: MindSpore's plugins are made with 11.1 and 11.6, and refuse 12
#: What the plugin needs, each after those that it needs itself, and the package that brings it.
LIBRARIES = {
    "libcudart.so.11.0": "nvidia-cuda-runtime-cu11",
    "libnvrtc.so.11.2": "nvidia-cuda-nvrtc-cu11",
    "libcublasLt.so.11": "nvidia-cublas-cu11",
    "libcublas.so.11": "nvidia-cublas-cu11",
    "libcufft.so.10": "nvidia-cufft-cu11",
    "libcurand.so.10": "nvidia-curand-cu11",
    "libcusparse.so.11": "nvidia-cusparse-cu11",
    "libcusolver.so.11": "nvidia-cusolver-cu11",
    "libcudnn.so.8": "nvidia-cudnn-cu11",
}
_SYSTEM_HOMES = ("/usr/local/cuda-11*", "/usr/local/cuda", "/opt/cuda-11*", "/opt/cuda")
_SYSTEM_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/lib", "/usr/lib")
_OF_A_HOME = ("lib64", "lib", "targets/x86_64-linux/lib")


def environment_home() -> Path:
    """Where the set-up puts CUDA: in the Python environment."""
    return Path(sys.prefix, "cuda")


@dataclass(frozen=True)
class Cuda:
    """A CUDA, whole or not.

    Attributes:
        home: its folder, with bin/nvcc.
    """

    home: Path

    @cached_property
    def version(self) -> str | None:
        """What its nvcc says, such as "11.8"; None without an answer.

        MindSpore asks the same, and for nothing else.
        """
        nvcc = self.home / "bin" / "nvcc"
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(  # noqa: S603 - the user's own CUDA
                [nvcc, "--version"], capture_output=True, text=True, timeout=20, check=True
            )
            found = re.search(r"release (\d+\.\d+)", done.stdout)
            return found[1] if found else None
        return None

    @cached_property
    def libraries(self) -> dict[str, Path | None]:
        """Where each of `LIBRARIES` is; None for what was not found."""
        folders = [self.home / name for name in _OF_A_HOME]
        folders += [Path(x) for x in os.environ.get("LD_LIBRARY_PATH", "").split(":") if x]
        folders += [Path(name) for name in _SYSTEM_FOLDERS]
        return {name: _first_existing(folder / name for folder in folders) for name in LIBRARIES}

    @property
    def is_right_version(self) -> bool:
        """Whether it is a CUDA 11."""
        return self.version is not None and int(self.version.split(".")[0]) == MAJOR

    def problem(self) -> str | None:
        """What is wrong with it, in words; None if it fits."""
        if self.version is None:
            return f"{self.home}/bin/nvcc does not say a version"
        if not self.is_right_version:
            return f"{self.home} is CUDA {self.version}, and MindSpore takes {MAJOR}"
        missing = [name for name, path in self.libraries.items() if path is None]
        return f"{self.home} lacks {', '.join(missing)}" if missing else None


def _first_existing(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def candidates() -> Iterator[Cuda]:
    """CUDAs in the order of preference: named by CUDA_HOME, the machine's, the environment's."""
    named = os.environ.get(HOME_VARIABLE)
    if named:
        yield Cuda(Path(named))
    for pattern in _SYSTEM_HOMES:
        # the newest first; a folder without compiler is a part of some other package
        for home in sorted(Path("/").glob(pattern[1:]), reverse=True):
            if (home / "bin" / "nvcc").exists():
                yield Cuda(home)
    if environment_home().is_dir():
        yield Cuda(environment_home())


def find() -> Cuda:
    """The first CUDA that MindSpore can use.

    Raises:
        InputError: there is none; it says what each that is there lacks.
    """
    problems = []
    for cuda in candidates():
        problem = cuda.problem()
        if problem is None:
            return cuda
        problems.append(problem)
    reason = "; ".join(dict.fromkeys(problems)) or "there is none"
    raise InputError(
        f"device_target GPU needs CUDA {MAJOR} with cuDNN 8 ({reason}); {SETUP} installs both into "
        "the project's environment"
    )


def use() -> Cuda:
    """Find CUDA and have this process, and those that it starts, use it.

    Call it before MindSpore looks for devices. A second call changes nothing.

    Raises:
        InputError: there is no driver or no CUDA, or a library of it cannot be loaded.
    """
    find_driver()
    cuda = find()
    paths = [path for path in cuda.libraries.values() if path is not None]
    try:
        for path in paths:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise InputError(
            f"device_target GPU: {error}; {SETUP} installs CUDA {MAJOR} and cuDNN 8 into the "
            f"project's environment (unset {HOME_VARIABLE} if it names another)"
        ) from error
    os.environ[HOME_VARIABLE] = str(cuda.home)
    # For `ldd`, by which MindSpore looks for them, and for processes that are started here.
    before = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    folders = [str(path.parent) for path in paths]
    os.environ["LD_LIBRARY_PATH"] = ":".join(dict.fromkeys([*folders, *filter(None, before)]))
    return cuda


def find_driver() -> ctypes.CDLL:
    """The driver's library.

    Raises:
        InputError: it is not there.
    """
    try:
        return ctypes.CDLL(DRIVER, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise InputError(
            f"device_target GPU needs an NVIDIA card and its driver ({DRIVER} is not here); "
            f"install the driver, in a container start it with the card (docker run --gpus all), "
            f"then run {SETUP}; or use --device_target=CPU"
        ) from error


@dataclass(frozen=True)
class Card:
    """A GPU as the driver describes it.

    Attributes:
        name: such as "NVIDIA A100-SXM4-40GB".
        capability: of its machine code, such as (8, 0).
        memory: bytes.
    """

    name: str
    capability: tuple[int, int]
    memory: int


_NAME_BYTES = 256
_MAJOR_ATTRIBUTE, _MINOR_ATTRIBUTE = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


def describe_driver() -> tuple[str, list[Card]]:
    """The newest CUDA that the driver runs, such as "12.4", and the cards that it sees.

    Raises:
        InputError: there is no driver, or it does not start.
    """
    driver = find_driver()
    if code := driver.cuInit(0):
        raise InputError(
            f"device_target GPU: the NVIDIA driver does not start (cuInit gives {code}); look at "
            "nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    cards = [_describe(driver, number) for number in range(count.value)]
    return f"{version.value // 1000}.{version.value % 1000 // 10}", cards


def _describe(driver: ctypes.CDLL, number: int) -> Card:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), which, device)
        return value.value

    capability = (attribute(_MAJOR_ATTRIBUTE), attribute(_MINOR_ATTRIBUTE))
    return Card(name.value.decode(errors="replace"), capability, memory.value)
