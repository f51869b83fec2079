# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block's cache: what is believed and what is computed again."""

import numpy as np
import pytest

from src.calibration.cache import FeatureCache, read_entry, write_entry

KEY = {"encoder": "e" * 64, "classes": ["ring", "star"], "size": [800, 1333]}
ARRAYS = {"vectors": np.arange(6, dtype=np.float32).reshape(2, 3), "counts": np.array([1, 2])}


def entry(folder):
    path = folder / "sub" / "entry.npz"
    write_entry(path, KEY, ARRAYS)
    return path


def test_what_was_written_is_read(tmp_path, caplog):
    path = entry(tmp_path)
    found = read_entry(path, dict(KEY))
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert read_entry(tmp_path / "none.npz", KEY) is None
    assert not caplog.records
    assert [p.name for p in path.parent.iterdir()] == ["entry.npz"]  # no temporary file stays


@pytest.mark.parametrize("change", [{"encoder": "f" * 64}, {"size": [800, 1000]}, {"more": 1}])
def test_an_entry_of_another_key_is_refused(tmp_path, caplog, change):
    assert read_entry(entry(tmp_path), {**KEY, **change}) is None
    assert "belongs to something else" in caplog.text


def test_every_flip_and_cut_is_noticed(tmp_path, caplog):
    """A byte changed anywhere gives either nothing or, in what zip never reads, the same arrays."""
    path = entry(tmp_path)
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 7):
        broken = bytearray(whole)
        broken[position] ^= 0x55
        path.write_bytes(bytes(broken))
        found = read_entry(path, KEY)
        refused += found is None
        if found is not None:
            np.testing.assert_array_equal(found["vectors"], ARRAYS["vectors"])
            np.testing.assert_array_equal(found["counts"], ARRAYS["counts"])
    assert refused > 0.6 * len(whole) / 7
    assert caplog.text.count("computed again") == refused
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert read_entry(path, KEY) is None
    path.write_bytes(whole)
    assert read_entry(path, KEY) is not None


def test_a_changed_array_with_a_right_crc_is_noticed(tmp_path, caplog):
    path = entry(tmp_path)
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}
    content["vectors"] = content["vectors"] + np.float32(1)
    np.savez(path, **content)
    assert read_entry(path, KEY) is None
    assert "its checksum differs" in caplog.text


def test_a_foreign_archive_is_refused(tmp_path, caplog):
    path = tmp_path / "entry.npz"
    np.savez(path, vectors=ARRAYS["vectors"])
    assert read_entry(path, KEY) is None
    np.savez(path, description=np.array([{"format": 1}], object))  # would need a pickle
    assert read_entry(path, KEY) is None
    np.savez(path, description=np.frombuffer(b'["a list"]', np.uint8))
    assert read_entry(path, KEY) is None
    assert caplog.text.count("damaged") == 3


def maps(seed=0):
    return np.random.default_rng(seed).normal(size=(3, 4, 5)).astype(np.float32)


def test_maps_are_kept_by_picture_and_encoder(tmp_path):
    cache = FeatureCache(tmp_path, "a" * 64, 10**6)
    assert cache.get("1" * 64, (3, 4)) is None
    cache.put("1" * 64, maps(1))
    cache.put("2" * 64, maps(2))
    np.testing.assert_array_equal(cache.get("2" * 64, (3, 4)), maps(2))
    np.testing.assert_array_equal(
        FeatureCache(tmp_path, "a" * 64, 1).get("1" * 64, (3, 4)), maps(1)
    )
    assert FeatureCache(tmp_path, "b" * 64, 10**6).get("1" * 64, (3, 4)) is None


def test_a_map_of_another_picture_or_encoder_is_refused(tmp_path, caplog):
    """Also when someone copies it to the place where it would be looked for."""
    cache = FeatureCache(tmp_path, "a" * 64, 10**6)
    cache.put("1" * 64, maps())
    assert cache.get("1" * 64, (4, 3)) is None
    assert "does not fit its picture" in caplog.text
    (path,) = tmp_path.rglob("*.npz")
    for identity, picture in (("a" * 64, "3" * 64), ("b" * 64, "1" * 64)):
        other = tmp_path / identity[:16] / picture[:2] / f"{picture}.npz"
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(path.read_bytes())
        assert FeatureCache(tmp_path, identity, 10**6).get(picture, (3, 4)) is None
    assert caplog.text.count("belongs to something else") == 2


def test_a_damaged_map_is_replaced(tmp_path, caplog):
    cache = FeatureCache(tmp_path, "a" * 64, 10**6)
    cache.put("1" * 64, maps())
    (path,) = tmp_path.rglob("*.npz")
    path.write_bytes(path.read_bytes()[:-100])
    assert cache.get("1" * 64, (3, 4)) is None
    cache.put("1" * 64, maps())
    np.testing.assert_array_equal(cache.get("1" * 64, (3, 4)), maps())
    assert cache.used == pytest.approx(path.stat().st_size, abs=100)


def test_the_folder_is_bounded(tmp_path, caplog):
    """A full folder keeps what it has, also over a new start, and says so once."""
    size = maps().nbytes
    cache = FeatureCache(tmp_path, "a" * 64, 5000)
    for number in range(20):
        cache.put(f"{number:064d}", maps(number))
    kept = list(tmp_path.rglob("*.npz"))
    assert 2 <= len(kept) <= 5000 // size
    assert sum(path.stat().st_size for path in kept) <= 5000 + 1500  # the last one's header
    assert caplog.text.count("cache_gigabytes") == 1
    np.testing.assert_array_equal(cache.get(f"{0:064d}", (3, 4)), maps(0))
    again = FeatureCache(tmp_path, "b" * 64, 5000)
    again.put("5" * 64, maps())
    assert len(list(tmp_path.rglob("*.npz"))) == len(kept)
