# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Building the kernels: once, whole or not at all, and one clear sentence where it cannot be."""

import shutil
import sys

import pytest

from src.kernels import library
from src.model_utils.errors import InputError


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment's folder of one's own, and a compiler that writes what it is told."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "an environment"))
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\nfor last; do :; done\necho library > "$last"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    return compiler


def files(path):
    return sorted(one.name for one in path.parent.iterdir()) if path.parent.exists() else []


def test_it_is_tried_before_it_counts(environment):
    assert library.built() is None and library.missing()
    tried = []
    path = library.build(lambda part: tried.append((part.read_text(), library.built())))
    assert tried == [("library\n", None)]
    assert library.built() == path and files(path) == [path.name]
    assert not library.missing()


def test_nothing_is_left_of_one_that_does_not_work(environment):
    def trial(_):
        raise InputError("other numbers")

    with pytest.raises(InputError, match="other numbers"):
        library.build(trial)
    assert library.built() is None and files(library.place()) == []


def test_another_source_is_another_file(environment, tmp_path, monkeypatch):
    before = library.place()
    monkeypatch.setattr(library, "SOURCES", shutil.copytree(library.SOURCES, tmp_path / "changed"))
    assert library.place() == before
    for name in ("detector.cc", "parallel.h"):
        with (library.SOURCES / name).open("a") as handle:
            handle.write("\n")
        assert library.place() != before and library.place().parent == before.parent
        before = library.place()


def test_a_compiler_that_fails_is_quoted(environment):
    environment.write_text("#!/bin/sh\necho 'no such header' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"cannot compile .*kernels: no such header"):
        library.build(lambda part: None)
    assert files(library.place()) == []


def test_no_compiler(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "there-is-none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no C.. compiler"):
        library.build(lambda part: None)


def test_a_folder_that_cannot_be_made(environment, tmp_path):
    (tmp_path / "an environment").write_text("a file\n")
    with pytest.raises(InputError, match="cannot be written"):
        library.build(lambda part: None)
