# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The loaders: right content, seeded and resumable order, fixed shapes, sharding, shutdown."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import subprocess
import sys
import threading
import time
import weakref
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data.batching import Batch, Preprocessing, check_shapes, fit_shape, parse_shapes
from src.data.prefetch import Prefetched
from src.dataset import EvalLoader, TrainLoader, build_mindrecord, load_dataset
from src.model_utils.custom_sets import CustomDataset, CustomSource
from src.model_utils.errors import InputError
from src.model_utils.paths import project_folder
from src.model_utils.random_streams import Stream, generator
from tests.helpers.data_helpers import picture_records, shared

SIZES = [(20, 30), (33, 20), (24, 24), (18, 40), (25, 31), (40, 22), (30, 45)]
MEAN = np.array([103.53, 116.28, 123.675], np.float32)
SMALL = {"min_sizes": (16, 20, 28), "max_size": 48}
PICTURES = {field.name for field in dataclasses.fields(Preprocessing)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data set")
    records = picture_records(root / "images", SIZES)
    build_mindrecord(
        records, root / "m", class_names=("a", "b", "c"), training=True, show_progress=False
    )
    return root / "m"


def open_loader(folder, **settings):
    """A `TrainLoader`; some settings are those of `Preprocessing`."""
    settings = {**SMALL, **settings}
    pictures = {name: settings.pop(name) for name in PICTURES & settings.keys()}
    return TrainLoader(folder, Preprocessing(**pictures), **settings)


def take(folder, count, **settings):
    loader = open_loader(folder, **settings)
    batches = list(islice(loader, count))
    loader.close()
    return batches


def same(one: Batch, other: Batch) -> bool:
    """Equal to the last bit."""
    for field in dataclasses.fields(Batch):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            if left.dtype != right.dtype or left.shape != right.shape or (left != right).any():
                return False
        elif left != right:
            return False
    return True


def test_types_and_shapes(folder):
    (batch,) = take(folder, 1, batch_size=2)
    height, width = batch.images.shape[2:]
    expected = {
        "images": ((2, 3, height, width), np.float32),
        "image_sizes": ((2, 2), np.float32),
        "padded_size": ((2,), np.int32),
        "gt_boxes": ((2, batch.gt_valid.shape[1], 4), np.float32),
        "gt_classes": ((2, batch.gt_valid.shape[1]), np.int32),
        "gt_valid": ((2, batch.gt_valid.shape[1]), np.bool_),
        "original_sizes": ((2, 2), np.int32),
    }
    for name, (shape, dtype) in expected.items():
        array = getattr(batch, name)
        assert (array.shape, array.dtype) == (shape, dtype), name
    assert batch.padded_size.tolist() == [height, width]
    assert batch.image_sizes.max(axis=0).tolist() == [height, width]


def test_content_against_pillow_and_arithmetic(folder):
    """Every training image recomputed from its file, from the seed's draws on."""
    flips = set()
    for position, batch in enumerate(take(folder, 40, seed=11)):
        assert batch.positions == (position,)
        draw = generator(11, Stream.SAMPLE, position)
        short_edge = (16, 20, 28)[draw.integers(3)]
        flip = draw.random() < 0.5
        flips.add(bool(flip))
        picture = Image.open(batch.file_names[0])
        height, width = batch.image_sizes[0].astype(int)
        scale = min(short_edge / min(picture.size), 48 / max(picture.size))
        assert (height, width) == (round(picture.height * scale), round(picture.width * scale))
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        pixels = pixels[:, ::-1] if flip else pixels
        expected = pixels[:, :, ::-1].astype(np.float32) - MEAN
        np.testing.assert_array_equal(batch.images[0], expected.transpose(2, 0, 1))
        assert batch.original_sizes.tolist() == [[picture.height, picture.width]]
        index = batch.image_ids[0] - 100
        for slot in range(1 + index % 3):
            x, y, w, h = 1.0 + slot, 2.0, picture.width / 2, picture.height / 2
            left, right = x, x + w
            if flip:
                left, right = picture.width - right, picture.width - left
            ratio_x, ratio_y = width / picture.width, height / picture.height
            box = [left * ratio_x, y * ratio_y, right * ratio_x, (y + h) * ratio_y]
            np.testing.assert_allclose(batch.gt_boxes[0, slot], box, atol=1e-4)
        assert batch.gt_classes[0].tolist() == list(range(1 + index % 3))
        assert batch.gt_valid.all()
    assert flips == {True, False}


def test_padding_is_zero_and_slots_are_marked(folder):
    for batch in take(folder, 12, batch_size=3):
        for index in range(3):
            height, width = batch.image_sizes[index].astype(int)
            assert not batch.images[index, :, height:].any()
            assert not batch.images[index, :, :, width:].any()
            count = int(batch.gt_valid[index].sum())
            assert batch.gt_valid[index, :count].all()
            assert not batch.gt_boxes[index, count:].any()
            assert not batch.gt_classes[index, count:].any()
        assert batch.gt_valid.shape[1] == batch.gt_valid.sum(axis=1).max()


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("grouping", [True, False])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 2)])
def test_resuming_is_exact(folder, batch_size, grouping, rank, world_size):
    settings = {
        "batch_size": batch_size,
        "aspect_ratio_grouping": grouping,
        "rank": rank,
        "world_size": world_size,
        "seed": 5,
    }
    whole = take(folder, 14, **settings)
    for start in (1, 9):
        rest = take(folder, 14 - start, start_batch=start, **settings)
        assert all(same(one, other) for one, other in zip(whole[start:], rest))


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_number_of_workers_does_not_matter(folder, num_workers):
    expected = take(folder, 15, batch_size=2, num_workers=1)
    found = take(folder, 15, batch_size=2, num_workers=num_workers)
    assert all(same(one, other) for one, other in zip(expected, found))


def test_seeds_differ(folder):
    one, other = (take(folder, 7, seed=seed) for seed in (0, 1))
    assert [batch.image_ids for batch in one] != [batch.image_ids for batch in other]


def test_each_pass_has_every_image_once(folder):
    ids = [batch.image_ids[0] for batch in take(folder, 21)]
    for start in (0, 7, 14):
        assert sorted(ids[start : start + 7]) == list(range(100, 107))
    assert ids[:7] != ids[7:14]


def test_the_same_image_is_drawn_anew_in_each_pass(folder):
    batches = [batch for batch in take(folder, 56) if batch.image_ids == [103]]
    assert len({batch.images.tobytes() for batch in batches}) > 3


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_divide_the_order(folder, world_size):
    whole = [batch.image_ids[0] for batch in take(folder, 24)]
    for rank in range(world_size):
        own = take(folder, 24 // world_size, rank=rank, world_size=world_size)
        assert [batch.image_ids[0] for batch in own] == whole[rank::world_size]


def test_ranks_draw_what_one_process_draws(folder):
    """A sample's size and flip belong to its place in the common order."""
    whole = take(folder, 8)
    for rank in range(2):
        own = take(folder, 4, rank=rank, world_size=2)
        assert all(same(one, other) for one, other in zip(whole[rank::2], own))


def test_grouping(folder):
    for batch in take(folder, 20, batch_size=2):
        landscape = batch.original_sizes[:, 1] > batch.original_sizes[:, 0]
        assert landscape.all() or not landscape.any()
    mixed = take(folder, 20, batch_size=2, aspect_ratio_grouping=False)
    kinds = [len({bool(w > h) for h, w in batch.original_sizes}) for batch in mixed]
    assert 2 in kinds


def test_fixed_shapes_hold_the_same_content(folder):
    shapes = [(64, 64), (32, 48), (48, 32)]
    exact = take(folder, 20, batch_size=2)
    fixed = take(folder, 20, batch_size=2, shapes=parse_shapes(shapes))
    used = set()
    for one, other in zip(exact, fixed):
        height, width = one.padded_size
        np.testing.assert_array_equal(other.padded_size, one.padded_size)
        np.testing.assert_array_equal(other.images[:, :, :height, :width], one.images)
        assert not other.images[:, :, height:].any() and not other.images[:, :, :, width:].any()
        used.add(other.images.shape[2:])
        count = one.gt_valid.shape[1]
        assert other.gt_valid.shape == (2, 3)  # the data set's most boxes, whatever the batch
        np.testing.assert_array_equal(other.gt_boxes[:, :count], one.gt_boxes)
        assert not other.gt_valid[:, count:].any()
    assert used == {(32, 48), (48, 32)}


def test_smallest_shape_that_fits():
    shapes = parse_shapes([(100, 100), (50, 150), (150, 60), (80, 80)])
    assert shapes == ((80, 80), (50, 150), (150, 60), (100, 100))
    assert fit_shape(80, 60, shapes) == (80, 80)
    assert fit_shape(50, 81, shapes) == (50, 150)
    assert fit_shape(100, 60, shapes) == (150, 60)
    assert fit_shape(51, 100, shapes) == (100, 100)
    assert fit_shape(7, 9, ()) == (7, 9)
    with pytest.raises(InputError, match="none of .* holds 101 x 100"):
        fit_shape(101, 100, shapes)


def test_shapes_that_do_not_fit_are_refused_before_the_run(folder):
    with pytest.raises(InputError, match="holds 46 x 28"):
        open_loader(folder, shapes=((32, 48),))
    with pytest.raises(InputError, match="input_shapes: none"):
        EvalLoader(folder, Preprocessing(max_size=48, shapes=((32, 48),)), min_size=28)


def test_shapes_too_small_for_a_batch_are_refused_before_the_run():
    """Each image fits somewhere, but a batch unites the height of one with the width of another."""
    settings = {"min_sizes": (10,), "max_size": 30, "shapes": parse_shapes([(10, 30), (12, 12)])}
    sizes = np.array([[10, 30], [12, 10], [12, 12]])
    check_shapes(sizes, batch_size=1, grouped=False, **settings)
    check_shapes(sizes, batch_size=2, grouped=True, **settings)
    with pytest.raises(InputError, match="holds 12 x 30"):
        check_shapes(sizes, batch_size=2, grouped=False, **settings)


def test_mean_std_and_flip_probability(folder):
    plain = take(folder, 8, flip_probability=0.0, pixel_mean=(0, 0, 0))
    scaled = take(folder, 8, flip_probability=0.0, pixel_mean=(1, 2, 3), pixel_std=(2, 4, 5))
    mirrored = take(folder, 8, flip_probability=1.0, pixel_mean=(0, 0, 0))
    mean, std = (np.array(v, np.float32)[:, None, None] for v in ((1, 2, 3), (2, 4, 5)))
    for one, two, three in zip(plain, scaled, mirrored):
        np.testing.assert_allclose(two.images[0], (one.images[0] - mean) / std, rtol=1e-6)
        np.testing.assert_array_equal(three.images, one.images[:, :, :, ::-1])


def test_eval_loader(folder):
    loader = EvalLoader(folder, Preprocessing(max_size=48), min_size=28)
    assert len(loader) == loader.num_images == 7
    for _ in range(2):  # every iteration starts at the beginning
        batches = list(loader)
        assert [batch.image_ids for batch in batches] == [[100 + index] for index in range(7)]
    assert [batch.images.shape[2:] for batch in batches[:2]] == [(28, 42), (46, 28)]
    parts = [EvalLoader(folder, min_size=28, rank=rank, world_size=3) for rank in range(3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    ids = [[batch.image_ids[0] for batch in part] for part in parts]
    assert ids == [[100, 103, 106], [101, 104], [102, 105]]
    assert loader.class_names == ("a", "b", "c")


def test_next_batch_and_closing(folder):
    before = set(threading.enumerate())
    loader = open_loader(folder, start_batch=3)
    assert (loader.num_images, loader.next_batch) == (7, 3)
    batches = [next(loader) for _ in range(4)]
    assert loader.next_batch == 7
    start = time.perf_counter()
    loader.close()
    loader.close()
    assert time.perf_counter() - start < 2
    assert not set(threading.enumerate()) - before
    batches += [next(loader) for _ in range(2)]  # goes on where it was
    loader.close()
    expected = take(folder, 6, start_batch=3)
    assert all(same(one, other) for one, other in zip(expected, batches))


def test_forgotten_loaders_stop(folder):
    before = set(threading.enumerate())  # of these, others may end meanwhile
    loader = open_loader(folder)
    next(loader)
    iterator = iter(EvalLoader(folder))
    next(iterator)
    assert set(threading.enumerate()) - before
    del loader, iterator
    gc.collect()
    ended(before)


def ended(before):
    """The threads that came after these end by themselves."""
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread


def test_loaders_may_be_collected_while_a_thread_starts(monkeypatch):
    """Then a lock of Python is held that the end of a thread takes as well: none is waited for."""
    before, collected = set(threading.enumerate()), []
    forgotten = Prefetched((lambda: 1 for _ in range(50)), 2, 3)
    assert next(forgotten) == 1
    forgotten.itself = forgotten  # so that only the collector finds it
    weakref.finalize(forgotten, collected.append, True)
    plain = getattr(threading, "_maintain_shutdown_locks", None)

    def collecting():
        gc.collect()
        plain()

    if plain is not None:  # up to Python 3.12
        monkeypatch.setattr(threading, "_maintain_shutdown_locks", collecting)
    gc.disable()
    try:
        del forgotten
        with contextlib.closing(Prefetched((lambda k=k: k for k in range(9)), 2, 3)) as found:
            assert list(found) == list(range(9))
    finally:
        gc.enable()
    gc.collect()
    assert collected == [True]
    ended(before)


PROGRAM = """
import sys
from src.dataset import EvalLoader, TrainLoader
loader = TrainLoader(sys.argv[1], min_sizes=(16,), num_workers=3)
for _ in range(20):
    next(loader)
iterator = iter(EvalLoader(sys.argv[1]))
next(iterator)
if sys.argv[2] == "fail":
    raise ValueError("as if training failed")
"""


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("fail", 1)])
def test_a_program_ends_though_nothing_was_closed(folder, how, code):
    command = [sys.executable, "-c", PROGRAM, str(folder), how]
    root = project_folder()
    run = subprocess.run(command, cwd=root, timeout=60, capture_output=True, text=True)
    assert run.returncode == code, run.stderr
    assert ("as if training failed" in run.stderr) == (how == "fail")


def test_prefetcher_keeps_order_and_limits(folder):
    started, finished = [], []

    def source():
        for number in range(20):
            started.append(number)
            yield lambda number=number: (time.sleep(0.002 * (number % 3)), number)[1]

    results = Prefetched(source(), num_workers=4, ahead=3)
    finished.append(next(results))
    time.sleep(0.1)
    assert len(started) == 4  # the one that came, and three ahead
    finished.extend(results)
    assert finished == list(range(20))


def test_prefetcher_passes_errors_of_the_source():
    def source():
        yield lambda: 1
        raise KeyError("lost")

    results = Prefetched(source(), num_workers=1, ahead=2)
    assert next(results) == 1
    with pytest.raises(KeyError, match="lost"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_memory_stays_flat(folder):
    """Thousands of passes over a small data set open thousands of MindRecord readers."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    loader = open_loader(folder)
    for _ in range(700):
        next(loader)
    before = resident()
    for _ in range(1400):
        next(loader)
    loader.close()
    assert resident() - before < 20_000  # kilobytes


def test_real_photographs(tmp_path):
    """coco_mini from annotations to batches, against figures counted from its files."""
    root = shared("coco_mini") / "datasets"
    info, records = load_dataset(["coco14_trainval_all"], datasets_root=root)
    built = build_mindrecord(
        records, tmp_path / "m", class_names=info.class_names, training=True, show_progress=False
    )
    assert (len(records), built.num_rows) == (200, 200)
    assert built.num_boxes.sum() == 1698 - 17 and built.report["counts"]["crowd"] == 17
    assert built.report["counts"]["grey"] == 1
    (batch,) = take(tmp_path / "m", 1, batch_size=4, min_sizes=(800,), max_size=1333)
    assert batch.images.shape[2] == 800 or batch.images.shape[3] == 800
    assert -124 < batch.images.min() and batch.images.max() < 152
    info, records = load_dataset(["coco14_test_novel"], datasets_root=root)
    built = build_mindrecord(
        records, tmp_path / "t", class_names=info.class_names, training=False, show_progress=False
    )
    assert built.num_rows == 100 and len(EvalLoader(tmp_path / "t")) == 100


def test_blood_cells_by_configuration_alone(tmp_path):
    root = shared("byo_bccd")
    train = CustomSource(annotations="annotations/instances_trainval.json", images="images")
    test = CustomSource(annotations="annotations/instances_test.json", images="images")
    custom = {
        "bccd": CustomDataset(format="coco", train=train, test=test, novel_classes=("Platelets",))
    }
    info, records = load_dataset(["bccd_train_base"], datasets_root=root, custom=custom)
    built = build_mindrecord(
        records, tmp_path / "m", class_names=info.class_names, training=True, show_progress=False
    )
    assert built.class_names == ("RBC", "WBC") and built.num_boxes.sum() == 3649
    (batch,) = take(tmp_path / "m", 1, batch_size=2, min_sizes=(240,), max_size=400)
    assert batch.images.shape == (2, 3, 240, 320)
