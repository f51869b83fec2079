# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Operators of the graphs for Ascend: all known to MindSpore's plugin, none of unknown size."""

import re

import pytest

from benchmarks import ascend_operators
from src.model_utils.paths import project_folder

PAGE = project_folder() / "docs" / "devices.md"


def listed():
    """The operators that the page lists, by what the plugin has for them."""
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (aclnn and adapter|aclnn|adapter) \| (.*) \|$", text, re.MULTILINE)
    return {what: set(re.findall(r"`(\w+)`", names)) for what, names in rows}


def test_what_the_plugin_has_is_what_the_page_says():
    kernels, adapters = ascend_operators.plugin()
    assert {"Conv2D", "NMSWithMask"} <= {name.decode() for name in adapters} - kernels
    for what, names in listed().items():
        assert names
        for name in names:
            has = (name in kernels) * ["aclnn"] + (name.encode() in adapters) * ["adapter"]
            assert " and ".join(has) == what, name


def test_an_operator_that_ascend_does_not_have():
    kernels, adapters = ascend_operators.plugin()
    assert "NoSuchOperator" not in kernels and b"NoSuchOperator" not in adapters
    assert ascend_operators.is_documented("Conv2D")
    assert not ascend_operators.is_documented("NoSuchOperator")


def test_a_size_that_is_not_known_is_noticed():
    known, unknown = "<Tensor[Float32], (2, 16)>", "<Tensor[Float32], (2, -1, 4)>"
    assert ascend_operators._UNKNOWN_SIZE.search(known) is None
    assert ascend_operators._UNKNOWN_SIZE.search(known + unknown)[0].endswith("(2, -1, 4)")


@pytest.mark.slow
def test_the_graphs_have_no_other_operators(capsys):
    assert ascend_operators.main([]) == 0
    text = capsys.readouterr().out
    assert text.endswith("in none: none\n")
    names = set(re.findall(r"^\| (\w+) +\|", text, re.MULTILINE)) - {"operator"}
    assert names == set().union(*listed().values())
