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


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """All arrays of `<name>.npz`; a missing file is a failure, as it should be."""
    with np.load(root() / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@functools.cache
def record(name: str):
    """The content of `<name>.json`."""
    return json.loads((root() / f"{name}.json").read_text())


@functools.cache
def state_dict(kind: str) -> dict[str, np.ndarray]:
    """The regenerated weights of `base`, `novel`, `all` or `pcb`, fingerprints checked."""
    check = record("weights_check")
    specs = weights.load_specs(root() / f"specs_{kind}.json")
    state = weights.make_state_dict(specs, check["seed"])
    table = check["fingerprints"][kind]
    for name, array in state.items():
        np.testing.assert_allclose(weights.fingerprint(array), table[name], rtol=1e-6, atol=1e-6)
    return state


def assert_digest(data: dict[str, np.ndarray], name: str, actual: np.ndarray, tolerance: float):
    """Compare an array with a stored digest: `tolerance` is relative to the largest magnitude."""
    assert tuple(actual.shape) == tuple(data[f"{name}.shape"]), name
    flat = np.asarray(actual).reshape(-1)
    low, high = data[f"{name}.stats"][3:5]
    scale = max(abs(low), abs(high))
    difference = np.abs(flat[data[f"{name}.idx"]] - data[f"{name}.val"]).max()
    assert difference <= tolerance * scale, f"{name}: {difference / scale:.2e} of the maximum"
    magnitude = np.abs(flat.astype(np.float64)).sum()
    np.testing.assert_allclose(magnitude, data[f"{name}.stats"][1], rtol=10 * tolerance)
