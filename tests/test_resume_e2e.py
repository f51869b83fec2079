"""Two runs of train.py are the same bit for bit, even if one is interrupted and damaged."""

import re
import signal
import sys

import numpy as np
import pytest
import yaml

from src.checkpoint import load_training_checkpoint
from src.make_demo_data import make_demo_data
from tests.kill_driver import PROJECT, Child
from tests.test_train_eval_e2e import configuration

STEPS = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    make_demo_data(root / "shapes", seed=0, num_train=6, num_test=3)
    settings = configuration(root)
    settings["solver"].update(max_iter=STEPS, warmup_iters=3, steps=[5])
    settings["input"].update(min_size_train=[64, 96], flip_probability=0.5)
    settings["checkpoint"] = {"period": 2, "keep_last": 10}
    settings["test"]["eval_at_end"] = False
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def start(place, run, *flags):
    folder = place.parent / run
    command = [sys.executable, PROJECT / "train.py", f"--config_path={place}", *flags]
    return Child(
        [*command, f"--save_checkpoint_path={folder}"], place.parent / f"{run}.txt", place.parent
    )


def losses(folder):
    """What each step's line says, without the time; the last one of a step counts."""
    lines = (folder / "loss_0.log").read_text().splitlines()
    return dict(re.search(r"\| (epoch: \d+ step: \d+) (.*)", line).groups() for line in lines)


def test_interrupted_damaged_resumed_is_the_same_bit_for_bit(place):
    """N steps, SIGINT, a damaged checkpoint, and the rest equal all steps at once."""
    whole, parts = place.parent / "whole", place.parent / "parts"
    start(place, "whole").end()
    child = start(place, "parts")
    assert child.wait_for(r" step 4/8 "), child.text()
    child.process.send_signal(signal.SIGINT)
    assert child.process.wait(600) == 130
    saved = load_training_checkpoint(parts / "ckpt_0").step
    assert 4 <= saved < STEPS and f"saved {parts}/ckpt_0/defrcn-{saved}.ckpt" in child.text()
    assert "Traceback" not in child.text()
    newest = parts / "ckpt_0" / f"defrcn-{saved}.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    before = 2 * ((saved - 1) // 2)
    child = start(place, "parts", "--resume=true")
    child.end()
    assert f"{newest} is damaged" in child.text()
    assert re.search(rf"resumed after step {before} of \S+defrcn-{before}\.json", child.text())
    one, other = (load_training_checkpoint(folder / "ckpt_0") for folder in (whole, parts))
    assert one.step == other.step == STEPS
    for kind in ("params", "state"):
        a, b = getattr(one, kind), getattr(other, kind)
        assert a.keys() == b.keys()
        for name in a.keys() - {"seconds"}:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert losses(whole) == losses(parts) and len(losses(whole)) == STEPS
    assert any(not np.array_equal(v, np.zeros_like(v)) for n, v in one.state.items() if "vel" in n)
