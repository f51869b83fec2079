# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Reading the golden vectors: where they are, how weights are made, how digests compare."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import numpy as np

from tests.golden import weights

HERE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder of vectors: `DEFRCN_GOLDEN`, or this one."""
    return Path(os.environ.get("DEFRCN_GOLDEN") or HERE)


def common(name: str) -> Path:
    """A file that no seed changes (shapes, settings): of the folder of vectors, or this one's."""
    path = root() / name
    return path if path.exists() else HERE / name


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of `<name>.npz`; a missing file is a failure, as it should be."""
    with np.load(root() / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def record(name: str):
    """The content of `<name>.json`."""
    return record_of(root() / f"{name}.json")


@functools.cache
def record_of(path: Path):
    """The content of a JSON file."""
    return json.loads(path.read_text())


@functools.cache
def state_dict(weights_name: str) -> dict[str, np.ndarray]:
    """The regenerated weights of `base`, `novel`, `all` or `pcb`, fingerprints checked."""
    check = record("weights_check")
    specs = weights.load_specs(common(f"specs_{weights_name}.json"))
    state = weights.make_state_dict(specs, check["seed"])
    table = check["fingerprints"][weights_name]
    assert state.keys() == table.keys()
    for name, array in state.items():
        np.testing.assert_allclose(weights.fingerprint(array), table[name], rtol=1e-6, atol=1e-6)
    return state


def assert_digest(data: dict[str, np.ndarray], name: str, actual: np.ndarray, tolerance: float):
    """Compare an array with a stored digest: `tolerance` is relative to the largest magnitude."""
    assert tuple(actual.shape) == tuple(data[f"{name}.shape"]), name
    flat = np.asarray(actual).reshape(-1)
    assert np.isfinite(flat).all(), name
    low, high = data[f"{name}.stats"][3:5]
    scale = max(abs(low), abs(high))
    difference = np.abs(flat[data[f"{name}.idx"]] - data[f"{name}.val"]).max()
    assert difference <= tolerance * scale, f"{name}: {difference / scale:.2e} of the maximum"
    # Elements that were not stored take part in these.
    assert abs(flat.min() - low) <= tolerance * scale, name
    assert abs(flat.max() - high) <= tolerance * scale, name
    wide = flat.astype(np.float64)
    np.testing.assert_allclose(np.abs(wide).sum(), data[f"{name}.stats"][1], rtol=10 * tolerance)
    np.testing.assert_allclose(np.sqrt((wide**2).sum()), data[f"{name}.stats"][2], rtol=tolerance)


def table_entries(index: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Entries of a flattened parameter at one row of a parameter table, padding left out."""
    return np.asarray(array).reshape(-1)[index[index >= 0]]


def matching_rows(stored: np.ndarray, actual: np.ndarray, tolerance: float) -> np.ndarray:
    """For each stored box the row of `actual` that is the same box: rows may swap.

    Fails unless both have as many boxes, each with a partner within `tolerance` pixels.
    """
    assert len(stored) == len(actual)
    partner = np.full(len(stored), -1)
    free = np.ones(len(actual), bool)
    # Mostly the rows agree; nearest first so that twins do not take each other's partner.
    distance = np.abs(stored[:, None, :] - actual[None, :, :]).max(-1)
    for row in np.argsort(distance.min(1), kind="stable"):
        candidates = np.where(free, distance[row], np.inf)
        column = int(candidates.argmin())
        assert candidates[column] <= tolerance, f"no box within {tolerance} of {stored[row]}"
        partner[row] = column
        free[column] = False
    return partner
