# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The C++ inference program: its unit tests with checks built in, and the program on networks.

What runs a bundle over pictures has tests of its own: test_bundle_parts.py, test_bundle_program.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.ops import operations
from scipy.optimize import linear_sum_assignment

from src.export.manifest import INPUTS
from src.export.network import OUTPUT_NAMES, DetectorForExport, example_inputs
from tests.helpers import small
from tests.helpers.infer_program import (
    ROOT,
    RUN_SECONDS,
    built,
    call,
    must_have,
    run_unit_tests,
    write_mindir,
)

HEIGHT, WIDTH = 32, 48
NET_HEIGHT, NET_WIDTH = 96, 128


class Arithmetic(nn.Cell):
    """Outputs that are known without a network: 3 x image, id + 1, meta squared."""

    def __init__(self):
        super().__init__()
        self.add, self.mul = operations.Add(), operations.Mul()
        self.two = Tensor(np.full((1, 3, HEIGHT, WIDTH), 2, np.float32))
        self.one = Tensor(np.ones(1, np.int32))

    def construct(self, image, image_id, image_meta):
        return (
            self.add(self.mul(image, self.two), image),
            self.add(image_id, self.one),
            self.mul(image_meta, image_meta),
        )


def make_inputs(count, height, width):
    """Values of the three inputs for some pictures, seeded."""
    rng = np.random.default_rng(7)
    for index in range(count):
        size = (height - 4 * (index % 3), width - 8 * (index % 2))
        image = np.zeros((1, 3, height, width), np.float32)
        image[:, :, : size[0], : size[1]] = rng.uniform(0, 255, (1, 3, *size))
        meta = np.array([[*size, 2 * size[0], 2 * size[1]]], np.float32)
        yield image, np.array([100 + index], np.int32), meta


def write_dataset(folder, values):
    """Write inputs as preprocess.py does."""
    entries = []
    for index, arrays in enumerate(values):
        entries.append({"stem": f"{index:05d}"})
        for (_, _, name), array in zip(INPUTS, arrays):
            (folder / name).mkdir(parents=True, exist_ok=True)
            array.tofile(folder / name / f"{index:05d}.bin")
    listed = [
        {"name": name, "dtype": dtype, "shape": array.shape, "folder": place}
        for (name, dtype, place), array in zip(INPUTS, arrays)
    ]
    (folder / "manifest.json").write_text(json.dumps({"inputs": listed, "images": entries}))
    return folder


def read_results(folder):
    """Results by picture: arrays in the model's order, as outputs.json describes them."""
    outputs = json.loads((folder / "outputs.json").read_text())["outputs"]
    done = json.loads((folder / "done.json").read_text())
    return {
        stem: [
            np.fromfile(folder / f"{stem}_{one['index']}.bin", one["dtype"]).reshape(one["shape"])
            for one in outputs
        ]
        for stem in done["stems"]
    }


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory):
    """A model of known arithmetic, and 7 inputs."""
    folder = tmp_path_factory.mktemp("arithmetic")
    values = list(make_inputs(7, HEIGHT, WIDTH))
    inputs = [Tensor(value) for value in values[0]]
    model = write_mindir(Arithmetic(), inputs, folder / "net.mindir")
    return model, write_dataset(folder / "data", values), values


def infer(program, model, data, folder, *flags, **variables):
    return call(
        program,
        f"--mindir_path={model}",
        f"--dataset_path={data}",
        f"--result_path={folder / 'results'}",
        f"--time_path={folder / 'times'}",
        *flags,
        **variables,
    )


def check_arithmetic(folder, values):
    results = read_results(folder / "results")
    assert list(results) == [f"{index:05d}" for index in range(len(values))]
    for (image, number, meta), found in zip(values, results.values()):
        np.testing.assert_allclose(found[0], 3 * image, rtol=1e-6)
        np.testing.assert_array_equal(found[1], number + 1)
        np.testing.assert_array_equal(found[2], meta * meta)


def test_unit_tests(program):
    run_unit_tests(program.parent)


@pytest.mark.slow
def test_unit_tests_with_address_checks(checked):
    run_unit_tests(checked)


@pytest.mark.slow
def test_unit_tests_with_thread_checks(tools):
    folder = built("thread", "--tests", "--no-program", "--sanitize=thread")
    run_unit_tests(folder, TSAN_OPTIONS="halt_on_error=1")


@pytest.mark.parametrize("instances", [1, 3])
def test_results_of_known_arithmetic(program, arithmetic, tmp_path, instances):
    model, data, values = arithmetic
    flags = (f"--instances={instances}", f"--IMAGEWIDTH={WIDTH}", f"--IMAGEHEIGHT={HEIGHT}")
    done = infer(program, model, data, tmp_path, *flags, "--device_type=CPU")
    assert done.returncode == 0, done.stderr
    check_arithmetic(tmp_path, values)
    assert "[7/7] " in done.stdout
    times = (tmp_path / "times" / "test_perform_static.txt").read_text()
    assert "infer_count 7\n" in times
    for name in ("mean: ", "median: ", "p90: ", "images/s: "):
        assert f"\n{name}" in times
    content = json.loads((tmp_path / "results" / "done.json").read_text())
    assert (content["count"], content["device"], content["instances"]) == (7, "CPU", instances)


@pytest.mark.slow
def test_program_with_address_checks(checked, arithmetic, tmp_path):
    """Lite keeps some objects for ever, so leaks are looked for in the unit tests only."""
    model, data, values = arithmetic
    flags = ("--instances=2", "--queue=1", "--RESTOREBBOX=false")
    done = infer(
        checked / "main",
        model,
        data,
        tmp_path,
        *flags,
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=0",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check_arithmetic(tmp_path, values)


def spoil_short(data):
    (data / "eval_img_bin" / "00003.bin").write_bytes(b"short")


def spoil_missing(data):
    (data / "eval_meta_bin" / "00006.bin").unlink()


def spoil_manifest(data):
    (data / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "flags", "message"),
    [
        (spoil_short, (), "00003.bin has 5 bytes instead of 18432"),
        (spoil_missing, (), "00006.bin is missing"),
        (spoil_manifest, (), "manifest.json is missing: preprocess.py did not end"),
        (None, ("--IMAGEWIDTH=64",), "ask for 64x32"),
        (None, ("--mindir_path=/none.mindir",), "there is no file /none.mindir"),
        (None, ("--device_type=TPU",), "it may be CPU, GPU or Ascend"),
        (None, ("--device_type=Ascend",), "cannot be built for Ascend (device 0)"),
        (None, ("--device_type=GPU", "--device_id=1"), "cannot be built for GPU (device 1)"),
        (None, ("--precision_mode=half",), "--precision_mode is 'half'"),
        (None, ("--instances=0",), "--instances is 0"),
    ],
)
def test_what_is_wrong_is_named(program, arithmetic, tmp_path, spoil, flags, message):
    model, _, values = arithmetic
    data = write_dataset(tmp_path / "data", values)
    if spoil is not None:
        spoil(data)
    done = infer(program, model, data, tmp_path, *flags)
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "results" / "done.json").exists()


@pytest.mark.parametrize("content", [b"", b"no model", None], ids=["empty", "text", "half"])
def test_a_damaged_model_ends_with_a_message(program, arithmetic, tmp_path, content):
    model, data, _ = arithmetic
    damaged = tmp_path / "damaged.mindir"
    whole = model.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2] if content is None else content)
    done = infer(program, damaged, data, tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"error: {damaged} cannot be built for CPU" in done.stderr


def test_words_and_unknown_flags_are_refused(program):
    done = call(program, "net.mindir")
    assert done.returncode == 2
    assert "'net.mindir' is no flag" in done.stderr
    done = call(program, "--no_such_flag=1")
    assert done.returncode == 1
    assert "no_such_flag" in done.stderr


def test_a_signal_leaves_no_whole_run(program, arithmetic, tmp_path):
    model, data, _ = arithmetic
    process = subprocess.Popen(
        [
            program,
            f"--mindir_path={model}",
            f"--dataset_path={data}",
            f"--result_path={tmp_path / 'results'}",
            f"--time_path={tmp_path / 'times'}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("building"):  # it takes longer than the signal
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=RUN_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted: the results are not complete" in errors
    assert not (tmp_path / "results" / "done.json").exists()


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A small detector as export.py writes it, its note, and inputs with their outputs here."""
    folder = tmp_path_factory.mktemp("detector")
    network = DetectorForExport(
        small.detector(masked=True),
        height=NET_HEIGHT,
        width=NET_WIDTH,
        pixel_mean=(103.53, 116.28, 123.675),
        pixel_std=(57.375, 57.12, 58.395),
        restore_boxes=True,
        oblong=True,
    )
    model = write_mindir(network, example_inputs(NET_HEIGHT, NET_WIDTH), folder / "net.mindir")
    note = {"restore_bbox": True, "outputs": [{"name": name} for name in OUTPUT_NAMES]}
    Path(f"{model}.json").write_text(json.dumps(note))
    values = list(make_inputs(4, NET_HEIGHT, NET_WIDTH))
    graph = nn.GraphCell(ms.load(str(model)))
    here = [[one.asnumpy() for one in graph(*map(Tensor, arrays))] for arrays in values]
    return model, write_dataset(folder / "data", values), here


def test_detector_gives_the_numbers_of_python(program, detector, tmp_path):
    model, data, here = detector
    done = infer(program, model, data, tmp_path, "--RESTOREBBOX=true")
    assert done.returncode == 0, done.stderr
    outputs = json.loads((tmp_path / "results" / "outputs.json").read_text())["outputs"]
    assert [one["name"] for one in outputs] == list(OUTPUT_NAMES)
    there = read_results(tmp_path / "results")
    assert len(there) == len(here)
    for index, (expected, found) in enumerate(zip(here, there.values())):
        boxes, scores, valid, info = found
        assert [one.dtype for one in found] == [one.dtype for one in expected]
        np.testing.assert_array_equal(valid, expected[2])
        np.testing.assert_array_equal(info, expected[3])
        assert info[0, 0] == 100 + index
        real = valid[0] > 0
        assert real.sum() >= 8, real.sum()
        assert np.ptp(scores[0, real]) > 1e-3
        compare_sets(boxes[0, real], scores[0, real], expected[0][0, real], expected[1][0, real])


def compare_sets(boxes, scores, expected_boxes, expected_scores):
    """Equal up to order: proposals whose scores are nearly equal may change places."""
    apart = np.abs(boxes[:, None] - expected_boxes[None]).max((2, 3)) / 0.02  # pixels
    apart += np.abs(scores[:, None] - expected_scores[None]).max(2) / 5e-5
    rows, partner = linear_sum_assignment(apart)
    assert list(rows) == list(range(len(boxes)))
    np.testing.assert_allclose(boxes, expected_boxes[partner], rtol=0, atol=0.02)
    np.testing.assert_allclose(scores, expected_scores[partner], rtol=1e-4, atol=5e-5)


def test_detector_with_the_other_boxes_is_refused(program, detector, tmp_path):
    model, data, _ = detector
    done = infer(program, model, data, tmp_path, "--RESTOREBBOX=false")
    assert done.returncode == 1
    assert "the model was exported with restore_bbox true" in done.stderr


@pytest.mark.parametrize("extension", ["cc", "h"])
def test_sources_are_formatted(extension):
    files = sorted((ROOT / "ascend310_infer").glob(f"*/*.{extension}"))
    assert len(files) > 6
    formatter = Path(os.sys.executable).with_name("clang-format")
    if not formatter.exists():
        must_have(subprocess.CompletedProcess([], 1, "", f"{formatter} is not installed"))
    done = call(formatter, "--dry-run", "--Werror", *files)
    assert done.returncode == 0, done.stderr[-3000:]
