# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Streams of random numbers: apart from each other, and the only ones that a run has."""

from __future__ import annotations

import ast
import zlib
from itertools import product

import numpy as np

from src.model_utils.paths import project_folder
from src.model_utils.random_streams import Stream, generator
from tests.helpers import small

ROOT = project_folder()
# Who may make generators of its own: keyed by a name, or a program whose data have own seeds.
OWN_GENERATORS = {
    "src/defrcn/few_shot.py",  # (seed, K, name of a class)
    "src/demo/make_data.py",
    "src/model_surgery.py",  # (seed, name of an array)
    "src/model_utils/random_streams.py",
    "src/tools/build_kernels.py",  # the example of its trial
    "src/tools/check_device.py",  # factors of the products that it compares
    "src/tools/draw_kshot.py",  # (seed, name of a class)
    "src/weights/initialise.py",  # (seed, name of an array)
}


def test_no_two_streams_are_one():
    """Their numbers differ, and so do their first draws, at step 0 too."""
    assert len(set(map(int, Stream))) == len(Stream.__members__)
    keys = list(product((0, 1), Stream, (0, 1, 2**40)))
    draws = {generator(*key).random() for key in keys}
    assert len(draws) == len(keys)


def test_positions_are_optional():
    """The encoder's training has one generator; a missing position is position 0."""
    assert generator(3, Stream.ENCODER).random() == np.random.default_rng([3, 11]).random()
    assert generator(3, Stream.SAMPLE).random() == generator(3, Stream.SAMPLE, 0).random()


def test_names_of_arrays_are_no_streams():
    """Starting weights are drawn by [seed, CRC-32 of the name], which must be no stream's key."""
    names = [parameter.name for parameter in small.detector().get_parameters()]
    assert len(names) > 50
    assert min(zlib.crc32(name.encode()) for name in names) > max(Stream)


def test_nobody_else_makes_generators():
    found = set()
    for path in [*ROOT.glob("*.py"), *(ROOT / "src").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in {"default_rng", "RandomState"}:
                found.add(path.relative_to(ROOT).as_posix())
            if isinstance(node, ast.Attribute) and node.attr in {"set_seed", "seed"}:
                owner = ast.unparse(node.value)
                assert owner not in {"np.random", "numpy.random", "random", "ms"}, path
    assert found == OWN_GENERATORS
