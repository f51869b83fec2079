# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The C++ inference program, built below ascend310_infer/out with what scripts/get_lite.sh fetches.

A machine without a compiler or the libraries skips tests of it; in CI (CI=true) that is a failure.
"""

import subprocess

import pytest

from tests.helpers.infer_program import BUILD, ROOT, built, call, must_have


@pytest.fixture(scope="session")
def tools():
    must_have(call("bash", BUILD, "--check", "--tests"))


@pytest.fixture(scope="session")
def lite(tools):
    must_have(call("bash", ROOT / "scripts" / "get_lite.sh", seconds=900))


@pytest.fixture(scope="session")
def checked(lite):
    """Program and unit tests, with checks of addresses and undefined behaviour."""
    return built("address", "--tests", "--sanitize=address")


@pytest.fixture(scope="session")
def program(lite):
    return built("release", "--tests") / "main"


@pytest.fixture(scope="session")
def probe(program):
    """See ascend310_infer/tests/probe.cc; skips where the libraries for pictures are missing."""
    path = program.with_name("defrcn_probe")
    text = "" if path.exists() else call(program, "--bundle=/").stderr
    must_have(subprocess.CompletedProcess([], int(bool(text)), "", text))
    return path
