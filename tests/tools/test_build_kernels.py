# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The command that builds the kernels, and its trial."""

import shutil
import subprocess
import sys

import pytest

from src.kernels import library
from src.model_utils.errors import InputError
from src.tools import build_kernels


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    """An environment of one's own; what is built there is compiled in less time than for use."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    flags = [flag for flag in library.FLAGS if flag != "-O3"]
    monkeypatch.setattr(library, "FLAGS", (*flags, "-O1"))


def test_without_a_compiler(nothing_built, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="compiler"):
        build_kernels.main([])
    assert build_kernels.main(["--if_possible"]) == 0
    assert "kernels were not built: there is no C++ compiler" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_it_builds_once(nothing_built, capsys, monkeypatch):
    assert build_kernels.main([]) == 0
    path = library.built()
    assert capsys.readouterr().out == f"kernels: {path}\n"
    monkeypatch.setattr(library, "build", None)  # not called again
    assert build_kernels.main([]) == 0


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
@pytest.mark.parametrize(
    ("source", "before", "after"),
    [
        ("detector.cc", "best[i] >= high", "best[i] > 2 * high"),
        pytest.param(
            "products.cc",
            "to[5 * step][l] = 4.0f * d1",
            "to[5 * step][l] = 4.1f * d1",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_numbers_are_found_out(nothing_built, tmp_path, monkeypatch, source, before, after):
    monkeypatch.setattr(library, "SOURCES", shutil.copytree(library.SOURCES, tmp_path / "changed"))
    changed = library.SOURCES / source
    text = changed.read_text()
    assert text.count(before) == 1
    changed.write_text(text.replace(before, after))
    with pytest.raises(InputError, match="other numbers"):
        build_kernels.main([])
    assert library.built() is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_a_library_without_the_kernels_is_found_out(nothing_built, tmp_path):
    source, path = tmp_path / "empty.cc", tmp_path / "empty.so"
    source.write_text("")
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", path], check=True)
    with pytest.raises(InputError, match="cannot run the kernels"):
        build_kernels.try_kernels(path)
