# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""An exported file and its description belong together, whatever happens while they are written."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from src.assembly import export as module
from src.model_utils.errors import InputError
from src.util import sha256_file


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write `out/net.mindir` with a content of one's own."""
    config = SimpleNamespace(
        export_file_format="MINDIR",
        mindir_version=3,
        restore_bbox=False,
        img_height=64,
        img_width=96,
        input=SimpleNamespace(input_shapes="exact"),
    )
    source = tmp_path / "weights.ckpt"
    source.write_bytes(b"weights")

    def write(content):
        made = lambda *_, file_name, file_format: Path(file_name).write_bytes(content)  # noqa: E731
        monkeypatch.setattr(module.ms, "export", made)
        path = tmp_path / "out" / "net.mindir"
        module.write_network(config, SimpleNamespace(num_proposals=4), ("a",), source, path)
        return path

    return write


def described(path):
    return json.loads(Path(f"{path}.json").read_text())["sha256"]


def test_the_description_is_that_of_the_file(write):
    for content in (b"first", b"second"):
        path = write(content)
        assert path.read_bytes() == content and described(path) == sha256_file(path)
    assert sorted(one.name for one in path.parent.iterdir()) == ["net.mindir", "net.mindir.json"]


@pytest.mark.parametrize("fails", ["describe", "write_json"])
def test_an_export_that_fails_leaves_the_earlier_one_whole(write, monkeypatch, fails):
    path = write(b"first")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, fails, full)
    with pytest.raises(InputError, match="No space left"):
        write(b"second")
    assert path.read_bytes() == b"first" and described(path) == sha256_file(path)
    assert sorted(one.name for one in path.parent.iterdir()) == ["net.mindir", "net.mindir.json"]
