# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Results of one run only, and nobody else's file lost."""

import errno
import os
import shutil

import pytest

from src.evaluation import result_folder as module
from src.evaluation.result_folder import INDEX, new_results


def write(place, *names, publish=True):
    with new_results(place) as results:
        for name in names:
            path = results.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{names}")
        if publish:
            results.publish()


def files(place):
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def test_earlier_results_go_and_a_users_files_stay(tmp_path):
    write(tmp_path, "pictures/a.png", "pictures/sub/b.png", "metrics.json")
    (tmp_path / "pictures" / "mine.png").write_text("mine")
    (tmp_path / "log_0.txt").write_text("log")
    write(tmp_path, "pictures/c.png", "metrics.json")
    assert files(tmp_path) == {
        *("pictures/c.png", "pictures/mine.png", "metrics.json", "log_0.txt", INDEX)
    }
    assert not (tmp_path / "pictures" / "sub").exists()
    assert "c.png" in (tmp_path / "metrics.json").read_text()


def test_what_is_not_published_leaves_the_earlier_results(tmp_path):
    write(tmp_path / "out", "a.json")
    before = (tmp_path / "out" / "a.json").read_text()
    write(tmp_path / "out", "a.json", "b.json", publish=False)
    assert files(tmp_path / "out") == {"a.json", INDEX}
    assert (tmp_path / "out" / "a.json").read_text() == before
    with new_results(tmp_path / "never"):
        pass
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("after", range(3))
def test_publishing_that_is_broken_off_leaves_nothing_behind(tmp_path, monkeypatch, after):
    write(tmp_path, "pictures/a.png", "metrics.json")
    replace, done = os.replace, []

    def failing(source, target):
        if ".writing-" in str(source):
            if len(done) == after:
                raise KeyboardInterrupt
            done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", failing)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, "pictures/b.png", "pictures/c.png", "metrics.json")
    assert ("metrics.json" in files(tmp_path)) and "pictures/a.png" not in files(tmp_path)
    write(tmp_path, "pictures/d.png", "metrics.json")
    assert files(tmp_path) == {"pictures/d.png", "metrics.json", INDEX}


def test_what_a_killed_process_was_writing_is_cleared(tmp_path):
    (tmp_path / ".writing-dead").mkdir()
    (tmp_path / ".writing-dead" / "a.png").write_text("half")
    write(tmp_path, "b.png")
    assert files(tmp_path) == {"b.png", INDEX}


@pytest.mark.parametrize("text", ["{", '{"files": 3}', '{"files": ["../x", "/etc/x", ""]}'])
def test_an_index_that_is_not_ours_removes_nothing(tmp_path, text):
    (tmp_path / "x").write_text("mine")
    place = tmp_path / "out"
    place.mkdir()
    (place / INDEX).write_text(text)
    write(place, "a.png")
    assert (tmp_path / "x").exists() and files(place) == {"a.png", INDEX}


def test_nothing_is_removed_through_a_link(tmp_path, caplog):
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    write(place, "pictures/a.png", "b.png", "c.png")
    (elsewhere / "a.png").write_text("mine")
    shutil.rmtree(place / "pictures")
    (place / "pictures").symlink_to(elsewhere)
    (place / "b.png").unlink()
    (place / "b.png").symlink_to(elsewhere / "a.png")
    (place / "c.png").unlink()
    (place / "c.png").mkdir()  # a user's own, where a file of ours was
    (place / "c.png" / "mine").write_text("mine")
    write(place, "d.png")
    assert files(place) == {"b.png", "c.png/mine", "d.png", INDEX}
    assert (elsewhere / "a.png").read_text() == "mine"
    assert "pictures/a.png lies behind a link and stays" in caplog.text


def test_a_users_link_to_another_disk(tmp_path, monkeypatch):
    replace = os.replace

    def across(source, target):
        if ".writing-" in str(source) and ".writing-" not in str(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", across)
    write(tmp_path, "pictures/a.png")
    assert files(tmp_path) == {"pictures/a.png", INDEX}


def test_a_folder_may_become_a_file(tmp_path):
    write(tmp_path, "pictures/a/b.png")
    write(tmp_path, "pictures/a")
    assert files(tmp_path) == {"pictures/a", INDEX}


@pytest.mark.parametrize("name", ["detections.json", "metrics.json", "index.html"])
def test_results_without_an_index_stay_and_the_log_says_so(tmp_path, caplog, name):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "old.png").write_text("old")
    (tmp_path / name).write_text("old")
    write(tmp_path, "pictures/new.png", name)
    assert files(tmp_path) == {"pictures/old.png", "pictures/new.png", name, INDEX}
    assert f"{tmp_path} holds results of a version that did not list its files" in caplog.text
    caplog.clear()
    write(tmp_path, name)
    assert files(tmp_path) == {"pictures/old.png", name, INDEX} and not caplog.text
