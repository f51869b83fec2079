# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Stands for ModelArts' moxing in tests: the same functions, over local folders.

The environment says more: MOXING_LOG gets a line a copy, MOXING_DELAY seconds pass in each,
MOXING_FAIL is a part of a source's name whose copy fails, MOXING_HANG of one that never ends.
"""

from __future__ import annotations

import os
import shutil
import time
from types import SimpleNamespace


def _copy(source: str, target: str, function) -> None:
    environ = os.environ
    if environ.get("MOXING_LOG"):
        with open(environ["MOXING_LOG"], "a", encoding="utf-8") as handle:
            handle.write(f"{os.getpid()} {source} {target}\n")
    while environ.get("MOXING_HANG") and environ["MOXING_HANG"] in source:
        time.sleep(0.1)
    time.sleep(float(environ.get("MOXING_DELAY", "0")))
    if environ.get("MOXING_FAIL") and environ["MOXING_FAIL"] in source:
        raise RuntimeError("the network is down")
    function(source, target)


def copy_parallel(src_url: str, dst_url: str) -> None:
    _copy(src_url, dst_url, lambda a, b: shutil.copytree(a, b, dirs_exist_ok=True))


def copy(src_url: str, dst_url: str) -> None:
    _copy(src_url, dst_url, shutil.copyfile)


file = SimpleNamespace(copy_parallel=copy_parallel, copy=copy)
