"""SIGKILL at random moments: nothing finished is lost, everything resumes. See `kill_driver`."""

import pytest

from tests.kill_driver import KINDS, Driver


@pytest.mark.parametrize(("kind", "moments"), [("mindrecord", 1), ("eval", 1), ("sweep", 2)])
def test_one_of_each_kind(tmp_path, kind, moments, reference):
    driver = Driver(reference if kind == "eval" else tmp_path, seed=7)
    driver.go(kind, moments)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A folder where training and evaluation share the run that nobody kills."""
    return tmp_path_factory.mktemp("kills")


def test_training(reference):
    Driver(reference, seed=7).go("train", 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_moments(tmp_path, kind):
    Driver(tmp_path, seed=11).go(kind, 5)
