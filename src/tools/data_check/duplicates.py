# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Pictures that there are more than once: the same bytes, or nearly the same picture.

Neither compares all with all: of files only those of one length are opened, and of these only those
with the same first and last bytes are hashed; fingerprints are compared where a quarter of
their bits agrees, which it must where at most three of all bits differ.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from src.tools.data_check.pictures import THUMB, Seen
from src.util import sha256_file

MOST_BITS = 3  # of 64 that may differ
LEAST_LIKENESS = 0.85  # of miniatures, see `alike`
MOST_LEVELS = 4.0  # grey levels of 255 between flat pictures
_ENDS = 4096  # bytes
_BANDS = 4
_CHUNK = 1 << 14


def same_files(lengths: Mapping[str, int]) -> list[list[str]]:
    """Groups of files with the same bytes, compared by SHA-256.

    Args:
        lengths: bytes of each file; those that cannot be read are left out.
    """
    groups = _split([list(lengths)], lengths.__getitem__)
    groups = _split(groups, _ends)
    candidates = sum(map(len, groups))
    with tqdm(total=candidates, desc="SHA-256", unit="file", disable=not candidates) as bar:

        def digest(path: str) -> str:
            bar.update()
            return sha256_file(path)

        return _split(groups, digest)


def _split(groups: Iterable[list[str]], key: Callable[[str], Hashable]) -> list[list[str]]:
    """Divide groups by a key; what is alone is dropped, what cannot be read too."""
    found = []
    for group in groups:
        parts: dict[Hashable, list[str]] = defaultdict(list)
        for path in group:
            try:
                parts[key(path)].append(path)
            except OSError:
                continue
        found += [part for part in parts.values() if len(part) > 1]
    return found


def _ends(path: str) -> tuple[bytes, bytes]:
    with Path(path).open("rb") as handle:
        start = handle.read(_ENDS)
        handle.seek(max(handle.seek(0, 2) - _ENDS, 0))
        return start, handle.read(_ENDS)


def near_pictures(seen: Mapping[str, Seen]) -> list[list[str]]:
    """Groups of pictures whose fingerprints differ in 3 bits at most, and that are `alike`.

    A picture belongs to a group if it is so close to one of its members.

    Args:
        seen: of each file; those with a problem are left out.
    """
    paths = [path for path, one in seen.items() if not one.problem]
    hashes = np.array([seen[path].fingerprint for path in paths], dtype=np.uint64)
    thumbs = np.frombuffer(b"".join(seen[path].thumb for path in paths), np.uint8)
    thumbs = thumbs.reshape(-1, THUMB * THUMB)
    leaders, leader_of = _leaders(hashes, thumbs)
    pairs = leaders[close_pairs(hashes[leaders])]
    pairs = pairs[alike(thumbs[pairs[:, 0]], thumbs[pairs[:, 1]])]
    members = np.arange(len(paths))
    links = np.concatenate((pairs, np.stack((members, leader_of), axis=1)))
    graph = coo_matrix((np.ones(len(links)), links.T), shape=(len(paths),) * 2)
    labels = connected_components(graph, directed=False)[1] if paths else members
    order = np.argsort(labels, kind="stable")
    groups = itertools.groupby(order.tolist(), key=lambda place: labels[place])
    found = [[paths[place] for place in group] for _, group in groups]
    return [group for group in found if len(group) > 1]


def alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether miniatures show the same, whatever their brightness; (M,) bool.

    Fingerprints of smooth pictures agree by chance, above all those of surfaces that are lit from
    one side. So the steps from each pixel to its neighbours have to agree too: their product,
    divided by both lengths, is 1 for the same picture. Other sizes and stronger compression of
    photographs, cells and steel leave 0.92 or more; different pictures with one fingerprint have
    0.7 and less.

    Args:
        first: (M, 256) uint8, 16 x 16 pixels row by row.
        second: the same.
    """
    found = [np.zeros(0, bool)]
    for start in range(0, len(first), _CHUNK):
        parts = [one[start : start + _CHUNK] for one in (first, second)]
        one, other = map(_steps, parts)
        lengths = [np.square(each).sum(axis=1) for each in (one, other)]
        product, length = (one * other).sum(axis=1), np.sqrt(lengths[0] * lengths[1])
        levels = np.abs(np.subtract(*(part.mean(axis=1) for part in parts)))
        flat = (lengths[0] == 0) & (lengths[1] == 0) & (levels <= MOST_LEVELS)
        found.append(flat | (length > 0) & (product >= LEAST_LIKENESS * length))
    return np.concatenate(found)


def _steps(thumbs: np.ndarray) -> np.ndarray:
    """(M, 480) float32 differences of neighbouring pixels, down and across."""
    squares = thumbs.reshape(-1, THUMB, THUMB).astype(np.float32)
    across, down = np.diff(squares, axis=2), np.diff(squares, axis=1)
    return np.concatenate([one.reshape(len(squares), -1) for one in (across, down)], axis=1)


def _leaders(hashes: np.ndarray, thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of pictures with one fingerprint and like miniatures, the first stands for all.

    So that a thousand black pictures are one to compare with the others, not a thousand.

    Returns:
        Places of the leaders, and for every picture the place of its own.
    """
    leader_of = np.arange(len(hashes))
    order = np.argsort(hashes, kind="stable")
    borders = np.flatnonzero(np.diff(hashes[order])) + 1
    for group in np.split(order, borders):
        left = group
        while len(left) > 1:
            same = alike(np.broadcast_to(thumbs[left[0]], thumbs[left].shape), thumbs[left])
            same[0] = True
            leader_of[left[same]] = left[0]
            left = left[~same]
    return np.unique(leader_of), leader_of


def close_pairs(hashes: np.ndarray) -> np.ndarray:
    """(M, 2) places of every two 64-bit fingerprints that differ in at most `MOST_BITS` bits.

    At most three bits that differ leave one of four quarters as it is, so pairs are looked for
    among those with an equal quarter: neighbours once sorted by it, at distance 1, 2, ...
    """
    found = [np.zeros((0, 2), np.int64)]
    for band in range(_BANDS):
        quarter = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(quarter, kind="stable")
        ranked = quarter[order]
        place, step = np.arange(len(ranked)), 1
        while len(place):
            place = place[place < len(ranked) - step]
            place = place[ranked[place] == ranked[place + step]]
            pairs = np.stack((order[place], order[place + step]), axis=1)
            close = differing_bits(hashes[pairs[:, 0]], hashes[pairs[:, 1]]) <= MOST_BITS
            found.append(np.sort(pairs[close], axis=1))
            step += 1
    return np.unique(np.concatenate(found), axis=0)


def differing_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M,) how many bits of two (M,) uint64 arrays differ."""
    different = np.ascontiguousarray(first ^ second).view(np.uint8).reshape(-1, 8)
    return np.asarray(np.unpackbits(different, axis=1).sum(axis=1))
