# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The table of what a machine has: right where it is right, red where something is missing."""

import numpy as np
import pytest

from src.model_utils import cuda
from src.tools import check_device


def rows(text):
    """Name, what was found, verdict."""
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {name.strip(): (found.strip(), verdict.strip()) for name, found, verdict in cells[2:]}


def test_this_processor(capsys):
    assert check_device.main([]) == 0
    text = capsys.readouterr().out
    assert text.endswith("CPU: all passed\n")
    table = rows(text)
    verdicts = {name: verdict for name, (_, verdict) in table.items() if verdict}
    judged = ["MindSpore", "MindSpore's device", "matrix product", "convolution", "training step"]
    assert verdicts == dict.fromkeys(judged, "ok")
    assert table["training step"][0].startswith("fast formulation: losses ")


def test_no_card(capsys, monkeypatch):
    """Everything is said in one table, and nothing is tried on a device that is not there."""
    monkeypatch.setattr(cuda, "DRIVER", "libcuda_that_is_not_there.so.1")
    monkeypatch.setattr(cuda, "candidates", lambda: iter(()))
    assert check_device.main(["GPU"]) == 1
    text = capsys.readouterr().out
    assert text.endswith("GPU: not usable here: NVIDIA driver, CUDA, MindSpore's device\n")
    table = rows(text)
    assert table["CUDA"] == ("none; bash scripts/setup_env.sh --gpu installs it", "missing")
    assert "docker run --gpus all" in table["NVIDIA driver"][0]
    assert {table[name][1] for name in ("matrix product", "training step")} == {"not run"}
    assert table["MindSpore's device"] == ("see above", "failed")


def test_a_cuda_that_is_passed_over_is_not_missing(tmp_path, monkeypatch):
    class Other:
        def problem(self):
            return "is CUDA 13"

    class Right:
        home, version = tmp_path, "11.8"

        def problem(self):
            return None

    monkeypatch.setattr(cuda, "describe_driver", lambda: ("12.4", []))
    for found, verdicts in (([Other(), Right()], ["", "ok"]), ([Other()], ["missing"])):
        monkeypatch.setattr(cuda, "candidates", found.__iter__)
        lines = [line for line in check_device.gpu() if line.name == "CUDA"]
        assert [line.verdict for line in lines] == verdicts
        assert "is CUDA 13" in lines[0].found


def test_no_ascend(capsys, monkeypatch):
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert check_device.main(["Ascend"]) == 1
    table = rows(capsys.readouterr().out)
    assert [table[name][1] for name in ("Ascend driver", "npu-smi", "CANN")] == ["missing"] * 3
    assert "source CANN's set_env.sh" in table["CANN"][0]


def test_versions_of_cann(tmp_path, monkeypatch):
    (tmp_path / "compiler").mkdir()
    (tmp_path / "compiler" / "version.info").write_text("Version=8.5.0\nversion_dir=8.5.0\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    (line,) = [one for one in check_device.ascend() if one.name == "CANN"]
    assert line == check_device.Line("CANN", f"8.5.0 in {tmp_path}", "ok")


@pytest.mark.parametrize("check", [check_device.check_product, check_device.check_convolution])
def test_wrong_numbers_are_noticed(check, monkeypatch):
    assert "largest difference" in check(1e-4)
    with pytest.raises(ArithmeticError, match=r"1e-12 allowed"):
        check(1e-12)
    line = check_device.judged("it", lambda: check(1e-12))
    assert line.verdict == "failed" and "largest difference" in line.found


def test_a_step_that_computes_nothing_is_noticed(monkeypatch):
    from mindspore import Tensor

    from src import network_define

    def built(*_, **__):
        nothing = Tensor(np.zeros(4, np.float32)), Tensor(np.float32(0)), ()
        return lambda *_: nothing, lambda *_: nothing[1]

    monkeypatch.setattr(network_define, "build_train_step", built)
    with pytest.raises(ArithmeticError, match="a loss is 0"):
        check_device.check_training("CPU")
