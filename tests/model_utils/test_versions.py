# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Versions of MindSpore that are refused, warned of, or used without a word."""

import logging

import mindspore as ms
import pytest

from src.model_utils.device_adapter import Runtime
from src.model_utils.errors import InputError
from src.model_utils.versions import check_mindspore, has_avx512


@pytest.mark.parametrize(
    ("version", "target", "avx512", "limit", "refused"),
    [
        ("2.8.0", "CPU", True, "", False),
        ("2.7.0", "CPU", True, "", False),
        ("2.9.0", "CPU", True, "", True),
        ("2.10.0", "CPU", True, "", True),
        ("2.10.0rc1", "CPU", True, "AVX512_CORE", True),
        ("2.10.0", "CPU", True, "AVX2", False),
        ("2.10.0", "CPU", True, "avx2", False),
        ("2.10.0", "CPU", False, "", False),
        ("2.10.0", "Ascend", True, "", False),
    ],
)
def test_slow_versions(version, target, avx512, limit, refused, caplog, monkeypatch):
    monkeypatch.setattr("src.model_utils.versions.has_avx512", lambda: avx512)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    if refused:
        with pytest.raises(InputError, match=rf"{version} .*ONEDNN_MAX_CPU_ISA=AVX2.*==2\.8\.0"):
            check_mindspore(version, target)
    else:
        check_mindspore(version, target)
    assert not caplog.records


@pytest.mark.parametrize("version", ["2.6.0", "3.0.0", "2.11.0", "nightly"])
def test_versions_that_were_not_tried(version, caplog):
    with caplog.at_level(logging.WARNING):
        check_mindspore(version, "GPU")
    assert f"MindSpore {version} was not tried" in caplog.text


def test_it_is_looked_at_before_anything_else(monkeypatch):
    assert has_avx512() in (True, False)
    monkeypatch.setattr(ms, "__version__", "2.10.0")
    monkeypatch.setattr("src.model_utils.versions.has_avx512", lambda: True)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    with pytest.raises(InputError, match="AVX-512"):
        Runtime.start("CPU")
