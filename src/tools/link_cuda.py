# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Make the CUDA of requirements-gpu.txt usable: a folder `cuda` in the Python environment.

    python -m src.tools.link_cuda

It holds links to the libraries, and a `bin/nvcc` that says their version: MindSpore loads its GPU
plugin only if one answers. `scripts/setup_env.sh --gpu` calls this.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from src.model_utils import cuda
from src.model_utils.command_line import command_parser
from src.model_utils.errors import InputError
from src.util import run_main, writing

NVCC = """#!/bin/sh
# Not a compiler. MindSpore loads its GPU plugin only where an nvcc of CUDA 11 says its version, and
# asks it for nothing else; the version is that of the runtime library beside it.
echo {text}
"""


def packages() -> Path:
    """The folder that NVIDIA's packages are installed in.

    Raises:
        InputError: there is none.
    """
    folder = Path(sysconfig.get_paths()["purelib"], "nvidia")
    if not folder.is_dir():
        raise InputError(
            f"{folder} does not exist: no package of requirements-gpu.txt is installed; run "
            f"{cuda.SETUP}"
        )
    return folder


def runtime_version() -> str:
    """The installed CUDA runtime's, such as "11.8.89"; its package says it also without a driver.

    Raises:
        InputError: it is not installed.
    """
    package = cuda.LIBRARIES["libcudart.so.11.0"]
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise InputError(f"{package} is not installed; run {cuda.SETUP}") from error


def link(source: Path, home: Path) -> None:
    """Make the folder anew, beside its place first, then moved there.

    Args:
        source: folder of NVIDIA's packages, each with a folder `lib`.
        home: the folder to make.

    Raises:
        InputError: a library is not there, or the place cannot be written.
    """
    found = {path.name: path for path in sorted(source.glob("*/lib/*.so*")) if path.is_file()}
    missing = [name for name in cuda.LIBRARIES if name not in found]
    if missing:
        raise InputError(
            f"{source} lacks {', '.join(missing)} of "
            f"{', '.join(dict.fromkeys(cuda.LIBRARIES[name] for name in missing))}; run "
            f"{cuda.SETUP}"
        )
    version = runtime_version()
    short = ".".join(version.split(".")[:2])
    # by this name MindSpore's check at start learns the version
    found[f"libcudart.so.{version}"] = found["libcudart.so.11.0"]
    with writing(home), tempfile.TemporaryDirectory(dir=home.parent, prefix=".cuda-") as work:
        made = Path(work, "cuda")
        (made / "lib64").mkdir(parents=True)
        for name, path in found.items():
            # relative, so that an environment can be moved; from where it will be
            (made / "lib64" / name).symlink_to(os.path.relpath(path, home / "lib64"))
        (made / "bin").mkdir()
        nvcc = made / "bin" / "nvcc"
        text = shlex.quote(f"Cuda compilation tools, release {short}, V{version}")
        nvcc.write_text(NVCC.format(text=text), encoding="utf-8")
        nvcc.chmod(0o755)
        if home.exists():
            home.rename(Path(work, "old"))
        made.rename(home)


def main(argv: Sequence[str] | None = None) -> int:
    """Link, and say where."""
    parser = command_parser({}, program="python -m src.tools.link_cuda", description=__doc__)
    parser.parse_args(argv)
    home = cuda.environment_home()
    link(packages(), home)
    if problem := cuda.Cuda(home).problem():
        shutil.rmtree(home)
        raise InputError(f"{problem}; run {cuda.SETUP} again")
    sys.stdout.write(f"CUDA {cuda.Cuda(home).version}: {home}\n")
    return 0


if __name__ == "__main__":
    run_main(main)
