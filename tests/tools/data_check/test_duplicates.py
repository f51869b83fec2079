# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The same files and nearly the same pictures are found, and nothing else, without trying all."""

import itertools

import numpy as np
import pytest
from PIL import Image

from src.tools.data_check import duplicates
from src.tools.data_check.duplicates import (
    alike,
    close_pairs,
    differing_bits,
    near_pictures,
    same_files,
)
from src.tools.data_check.pictures import Seen, look_at, spread
from tests.helpers.data_helpers import pixels, shared, write_image


def write(folder, **contents):
    folder.mkdir(exist_ok=True)
    paths = {name: folder / name for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return {str(path): path.stat().st_size for path in paths.values()}


def test_same_files(tmp_path, monkeypatch):
    middle = bytearray(b"x" * 20000)
    middle[10000] = 7
    files = write(
        tmp_path,
        **{"a": b"x" * 20000, "b": b"one", "c": b"x" * 20000, "d": b"two", "e": bytes(middle)},
        **{"f": b"", "g": b"", "h": b"y" * 5000},
    )
    hashed = []
    digest = duplicates.sha256_file
    monkeypatch.setattr(duplicates, "sha256_file", lambda path: hashed.append(path) or digest(path))
    found = [[path[-1] for path in group] for group in same_files(files)]
    assert sorted(found) == [["a", "c"], ["f", "g"]]
    assert sorted(path[-1] for path in hashed) == ["a", "c", "e", "f", "g"]
    assert same_files({}) == []


def test_a_file_that_goes_away_is_left_out(tmp_path):
    files = write(tmp_path, a=b"1", b=b"1", c=b"1")
    (tmp_path / "b").unlink()
    assert [[path[-1] for path in group] for group in same_files(files)] == [["a", "c"]]


def test_bits_by_hand():
    one = np.array([0, 0b1011, 2**64 - 1], np.uint64)
    other = np.array([0, 0b0110, 0], np.uint64)
    assert differing_bits(one, other).tolist() == [0, 3, 64]


def test_close_pairs_are_all_pairs():
    """Against a comparison of all with all; bits are changed in every quarter."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2**63, 60, dtype=np.uint64) * 2 + 1
    changed = [
        value ^ np.uint64(sum(1 << int(bit) for bit in rng.choice(64, number, replace=False)))
        for value, number in zip(first, itertools.cycle((1, 2, 3, 4)))
    ]
    hashes = np.concatenate((first, np.array(changed, np.uint64)))
    wanted = [
        [a, b]
        for a, b in itertools.combinations(range(len(hashes)), 2)
        if bin(int(hashes[a] ^ hashes[b])).count("1") <= 3
    ]
    assert len(wanted) == 45  # those with 1, 2 or 3 changed bits
    assert close_pairs(hashes).tolist() == wanted
    assert close_pairs(hashes[:0]).shape == (0, 2)


def test_alike_by_hand():
    """Steps agree whatever the brightness; a slope the other way, or across, is another picture."""
    slope = np.tile(np.arange(16, dtype=np.uint8) * 10, (16, 1))
    flat, dark = np.full(256, 90, np.uint8), np.full(256, 10, np.uint8)
    pairs = [
        (slope, slope + 50, True),
        (slope, slope[:, ::-1], False),
        (slope, slope.T, False),
        (slope, flat, False),
        (flat, flat + 4, True),
        (flat, dark, False),
    ]
    first, second, expected = zip(*((a.reshape(-1), b.reshape(-1), is_) for a, b, is_ in pairs))
    assert alike(np.array(first), np.array(second)).tolist() == list(expected)
    assert alike(np.zeros((0, 256), np.uint8), np.zeros((0, 256), np.uint8)).tolist() == []


def seen_of(paths):
    found = {}
    for path in paths:
        with Image.open(path) as image:
            found[str(path)] = look_at(str(path), (image.height, image.width), 10**8)
        assert found[str(path)].problem == ""
    return found


def test_near_pictures(tmp_path):
    """Saved anew, in another size, brighter: one group. Others, a turned and a broken one: none."""
    whole = write_image(tmp_path / "whole.png", 60, 80, 3)
    with Image.open(whole) as image:
        image.save(tmp_path / "saved.jpg", quality=60)
        image.resize((160, 120)).save(tmp_path / "larger.png")
        image.point(lambda value: value * 0.9).save(tmp_path / "darker.png")
        image.rotate(180).save(tmp_path / "turned.png")
    others = [write_image(tmp_path / f"other{seed}.png", 60, 80, seed) for seed in range(10, 30)]
    names = ("whole.png", "saved.jpg", "larger.png", "darker.png", "turned.png")
    seen = seen_of([*(tmp_path / name for name in names), *others])
    seen["broken.png"] = Seen("damaged")
    groups = near_pictures(seen)
    assert [sorted(path.rpartition("/")[2] for path in group) for group in groups] == [
        ["darker.png", "larger.png", "saved.jpg", "whole.png"]
    ]
    assert near_pictures({}) == []
    assert near_pictures({"broken.png": Seen("damaged")}) == []


def test_flat_pictures_are_grouped_by_brightness():
    """Their fingerprints are all the same."""
    thumbs = [0, 0, 100, 102, 250, 0]
    seen = {str(n): Seen("", (), 0, bytes([level]) * 256) for n, level in enumerate(thumbs)}
    assert near_pictures(seen) == [["0", "1", "5"], ["2", "3"]]


def test_a_thousand_copies_are_one_to_compare(monkeypatch):
    lengths = []
    compared = duplicates.close_pairs
    monkeypatch.setattr(
        duplicates, "close_pairs", lambda hashes: lengths.append(len(hashes)) or compared(hashes)
    )
    seen = {str(n): Seen("", (), 0, bytes(256)) for n in range(1000)}
    (group,) = near_pictures(seen)
    assert len(group) == 1000
    assert lengths == [1]


def test_fingerprint_by_hand(tmp_path):
    """Darker on the left everywhere: all bits are set; the other way: none."""
    row = np.repeat(np.arange(9, dtype=np.uint8) * 20, 10)
    for name, line, bits in (("up", row, 2**64 - 1), ("down", row[::-1], 0)):
        Image.fromarray(np.tile(line, (80, 1))).save(tmp_path / f"{name}.png")
        found = look_at(str(tmp_path / f"{name}.png"), (80, 90), 10**6)
        assert (found.fingerprint, found.oddities, len(found.thumb)) == (bits, ("grey",), 256)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.unlink(), "cannot be read (No such file or directory)"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "not a readable image"),
        (lambda path: path.write_text("text"), "unknown format or damaged header"),
        (lambda path: write_image(path, 30, 41), "the image is 41 x 30 (width x height)"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_picture(tmp_path, change, words):
    path = write_image(tmp_path / "a.png", 30, 40)
    assert look_at(str(path), (30, 40), 1200).problem == ""
    assert "over the limit of 1199" in look_at(str(path), (30, 40), 1199).problem
    change(path)
    found = look_at(str(path), (30, 40), 10**6)
    assert words in found.problem and str(path) not in found.problem


def test_evenly_spread():
    assert list(spread(3, 5)) == [0, 1, 2]
    assert list(spread(10, 4)) == [0, 2, 5, 7]
    assert list(spread(10, 0)) == []
    assert list(spread(0, 4)) == []


def test_steel_that_is_known_to_be_there_twice():
    """The data's own notes name one pair; a tenth of its pictures is beside it."""
    folder = shared("neu_det") / "images"
    names = [f"patches_{n}.jpg" for n in range(90, 120)]
    paths = [str(folder / name) for name in names if (folder / name).exists()]
    lengths = {path: (folder / path).stat().st_size for path in paths}
    (pair,) = same_files(lengths)
    assert [path.rpartition("/")[2] for path in pair] == ["patches_101.jpg", "patches_105.jpg"]
    assert near_pictures(seen_of(paths)) == [pair]


def test_smooth_pictures_are_not_taken_for_one(tmp_path):
    """Lit from one side, with other things on them: equal fingerprints do not make them one."""
    light = np.linspace(200, 100, 64)[None, :].repeat(64, axis=0)
    paths = []
    for seed in range(12):
        detail = pixels(64, 64, seed)[:, :, 0].astype(float) - 128
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray((light + detail / 6).clip(0, 255).astype(np.uint8)).save(paths[-1])
    assert near_pictures(seen_of(paths)) == []
