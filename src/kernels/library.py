# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The library of kernels: where it lies, and how it is built.

It lies in the folder of the Python environment, under a name made of all that it depends on: a
changed source gets a new file, and one that some process has loaded is never written to.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from src.model_utils.errors import InputError

SOURCES = Path(__file__).parent
# No contraction: products and sums round as MindSpore's own operators do.
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fPIC")
LIBRARIES = ("-shared", "-ldl", "-lpthread")
COMMAND = "python -m src.tools.build_kernels"


def place() -> Path:
    """Where the library of this source, these flags and this MindSpore is, or would be."""
    digest = hashlib.sha256()
    for path in _sources("*.h", "*.cc"):
        digest.update(path.read_bytes())
    digest.update(f"{FLAGS} {platform.machine()} {_mindspore_version()}".encode())
    return Path(sys.prefix, "lib", "defrcn", f"detector-{digest.hexdigest()[:16]}.so")


def _sources(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in SOURCES.glob(pattern))


def _mindspore_version() -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("mindspore")
    return None


def built() -> Path | None:
    """The library, if it has been built."""
    path = place()
    return path if path.is_file() else None


def has_fast_products(path: Path) -> bool:
    """Whether the library found, in this process, the matrix products that its blocks need."""
    return bool(ctypes.CDLL(str(path)).HasFastProducts())


def missing() -> bool:
    """Whether there is something to build: MindSpore is here, and the library is not."""
    return _mindspore_version() is not None and built() is None


def build(trial: Callable[[Path], None]) -> Path:
    """Compile the kernels, try them, and put the library in its place.

    Args:
        trial: raises if the library that it is given does not work; nothing is kept then.

    Raises:
        InputError: no compiler, or it failed, or the environment's folder cannot be written.
    """
    compiler = shutil.which(os.environ.get("CXX") or "g++") or shutil.which("c++")
    if compiler is None:
        raise InputError(
            "there is no C++ compiler (g++; another one is named by CXX); without the kernels "
            "everything runs, with more to compile at every start"
        )
    path = place()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            part = _compiled(compiler, Path(folder))
            trial(part)
            part.replace(path)
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written ({error.strerror}); use an environment of your own, "
            "as scripts/setup_env.sh makes one"
        ) from error
    return path


def _compiled(compiler: str, folder: Path) -> Path:
    """A library in `folder`; its sources are compiled at the same time."""

    def run(*arguments: object) -> None:
        done = subprocess.run(  # noqa: S603 - the user's own compiler
            [compiler, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise InputError(f"{compiler} cannot compile {SOURCES}: {done.stderr[-500:].strip()}")

    sources = _sources("*.cc")
    objects = [folder / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda one, to: run(*FLAGS, "-c", one, "-o", to), sources, objects))
    path = folder / "detector.so"
    run(*objects, *LIBRARIES, "-o", path)
    return path
