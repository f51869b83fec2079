# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Waiting for a folder that another process builds: once built, with a message, not for ever."""

import logging
import threading
import time

import pytest

from src.data import mindrecord_wait
from src.data.mindrecord_wait import locked
from src.dataset import build_mindrecord
from src.model_utils.errors import InputError
from tests.helpers.data_helpers import picture_records

SECOND = 1 / 60  # in minutes


def build(records, folder, **changes):
    settings = {"class_names": ("ring", "cross", "star"), "training": True}
    return build_mindrecord(records, folder, show_progress=False, **{**settings, **changes})


@pytest.fixture
def records(tmp_path):
    return picture_records(tmp_path / "images", [(20, 30), (33, 20), (24, 24)])


def test_the_others_wait_until_one_has_built(tmp_path, records, caplog):
    caplog.set_level(logging.INFO)
    folder, found = tmp_path / "m", []
    waiting = [
        threading.Thread(target=lambda: found.append(build(records, folder, builds=False)))
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.7)
    assert not folder.exists()
    assert not found
    built = build(records, folder)
    for thread in waiting:
        thread.join(20)
    assert [info.files for info in found] == [built.files] * 3
    said = [record.message for record in caplog.records]
    assert sum("waiting for another process that builds it" in text for text in said) == 3
    assert sum("building, because" in text for text in said) == 1


def test_a_folder_of_other_inputs_is_not_taken(tmp_path, records):
    build(records[:2], tmp_path / "m")
    with pytest.raises(InputError, match="waited 0.01 minutes for another process to build it"):
        build(records, tmp_path / "m", builds=False, wait_minutes=0.01)
    assert build(records[:2], tmp_path / "m", builds=False, wait_minutes=0.01).num_rows == 2


def test_waiting_ends_and_says_what_to_do(tmp_path, records, monkeypatch, caplog):
    monkeypatch.setattr(mindrecord_wait, "TELL_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(InputError, match=r"look at that one's log, or set data.wait_minutes"):
        build(records, tmp_path / "m", builds=False, wait_minutes=2 * SECOND)
    assert 1.5 < time.monotonic() - started < 10
    texts = [record.message for record in caplog.records]
    assert len([text for text in texts if "waiting for another process" in text]) in (3, 4)


def test_a_builder_waits_for_another_one_no_longer(tmp_path, records):
    with locked(tmp_path / "m", 1.0):
        with pytest.raises(InputError, match="waited"):
            build(records, tmp_path / "m", wait_minutes=SECOND)
    assert build(records, tmp_path / "m", wait_minutes=SECOND).num_rows == 3
