# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A CUDA without a card: libraries whose functions succeed and do (almost) nothing.

With them MindSpore's GPU plugin loads, chooses a kernel for every operator, allocates, launches:
a network runs to its end, with numbers that mean nothing, if every operator and dtype has a GPU
kernel, and fails at the first one that has none. They are compiled here from the plugin's own list
of symbols; memory is the machine's, and what sizes depend on (casts, ranges) is computed.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from src.model_utils.cuda import DRIVER, LIBRARIES

SOURCES = Path(__file__).parent
KERNELS = "libcuda_ops.so.11"  # MindSpore's own, in its package
PLUGIN = "libmindspore_gpu.so.11.6"
VERSION = "11.6"
#: What the names of a library's functions begin with; the longest that fits decides.
PREFIXES = {
    "cudart": "libcudart.so.11.0",
    "nvrtc": "libnvrtc.so.11.2",
    "cublas": "libcublas.so.11",
    "cublasLt": "libcublasLt.so.11",
    "cufft": "libcufft.so.10",
    "curand": "libcurand.so.10",
    "cusparse": "libcusparse.so.11",
    "cusolver": "libcusolver.so.11",
    "cudnn": "libcudnn.so.8",
    "cuda": "libcudart.so.11.0",
    "__cuda": "libcudart.so.11.0",
    "cu": DRIVER,
}


def plugins() -> Path:
    """The folder of MindSpore's plugins."""
    spec = find_spec("mindspore")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("lib") / "plugin"


def missing() -> str | None:
    """Why it cannot be made here; None if it can."""
    tools = [tool for tool in ("gcc", "g++", "nm") if shutil.which(tool) is None]
    if tools:
        return f"no {', '.join(tools)}"
    return None if (plugins() / PLUGIN).is_file() else f"this MindSpore has no {PLUGIN}"


def symbols(path: Path, which: str) -> set[str]:
    """The symbols of an object or a library: "--undefined-only" or "--defined-only"."""
    dynamic = [] if path.suffix == ".o" else ["-D"]
    command = ["nm", *dynamic, "--without-symbol-versions", which, str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in text.splitlines() if line.split()}


def library_of(symbol: str) -> str | None:
    """The library that a function of CUDA belongs to; None for other names."""
    fitting = [
        prefix
        for prefix in PREFIXES
        if symbol.startswith(prefix) and not symbol[len(prefix) :][:1].islower()
    ]
    return PREFIXES[max(fitting, key=len)] if fitting else None


def wanted() -> dict[str, set[str]]:
    """What the plugin asks for, by library."""
    asked = symbols(plugins() / PLUGIN, "--undefined-only")
    found: dict[str, set[str]] = {name: set() for name in (*LIBRARIES, DRIVER)}
    for symbol in asked:
        library = library_of(symbol)
        if library is not None:
            found[library].add(symbol)
    own = symbols(plugins() / "gpu" / KERNELS, "--defined-only")
    return {**found, KERNELS: asked & own}


def run(*command: object) -> None:
    """Run a compiler.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


def compile_library(name: str, asked: set[str], folder: Path) -> None:
    """Make one library: what is written by hand, and a function for every other symbol."""
    stem = name.partition(".")[0]
    parts, by_hand = [], set()
    for source in (SOURCES / f"{stem}.c", SOURCES / f"{stem}.cc"):
        if source.exists():
            parts.append(folder / f"{source.name}.o")
            compiler = "g++" if source.suffix == ".cc" else "gcc"
            run(compiler, "-w", "-fPIC", "-O1", "-c", source, "-o", parts[-1])
            by_hand |= symbols(parts[-1], "--defined-only")
    rest = folder / f"{stem}_rest.c"
    made = ["#include <stdlib.h>"]
    for symbol in sorted(asked - by_hand):
        # what makes a handle has to give one
        makes = "Create" in symbol and not symbol.startswith("_Z")
        made.append(
            f"int {symbol}(void **p) {{ *p = calloc(1, 256); return 0; }}"
            if makes
            else f"int {symbol}() {{ return 0; }}"
        )
    rest.write_text("\n".join(made) + "\n")
    # the version that the plugin's references to CUDA have
    versions = folder / f"{stem}.map"
    versions.write_text(f"{name} {{ global: *; }};\n")
    named = [] if name == KERNELS else [f"-Wl,--version-script={versions}"]
    command = ("gcc", "-w", "-fPIC", "-shared", f"-Wl,-soname,{name}", *named, rest, *parts)
    run(*command, "-o", folder / name)


def make(home: Path) -> dict[str, str]:
    """Make a CUDA in `home`; return the variables with which a program uses it.

    Raises:
        RuntimeError: the compiler failed.
    """
    folder = home / "lib64"
    folder.mkdir(parents=True)
    for name, asked in wanted().items():
        compile_library(name, asked, folder)
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {VERSION}, V{VERSION}"\n')
    nvcc.chmod(0o755)
    # The two that are not looked for in CUDA's folder: what is loaded first is what counts.
    first = [str(folder / name) for name in (DRIVER, KERNELS)]
    return {"CUDA_HOME": str(home), "LD_PRELOAD": ":".join(first), "LD_LIBRARY_PATH": str(folder)}
