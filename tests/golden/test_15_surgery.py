# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Topic 15: model surgery on the official tool's small checkpoints."""

import numpy as np
import pytest

from src import model_surgery, pth2ckpt
from src.defrcn.built_datacategory import resolve_dataset
from src.weights.checkpoint import load_weights
from src.weights.ckpt_format import write_ckpt
from src.weights.torch_file import save_torch
from tests.golden import golden, network

pytestmark = pytest.mark.golden
DATASETS = ("coco", "voc")
SEED = 3


def before(dataset):
    prefix = f"{dataset}.before."
    found = golden.arrays("15_surgery")
    return {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}


def result(tmp_path, dataset, method):
    source = write_ckpt(tmp_path / "base.ckpt", before(dataset))
    flags = [f"--dataset={dataset}", f"--method={method}", f"--src-path={source}"]
    assert model_surgery.main([*flags, f"--save-dir={tmp_path / 'out'}", f"--seed={SEED}"]) == 0
    stem = golden.record("15_surgery")[f"{dataset}.{method}"]["file"].removesuffix(".pth")
    return load_weights(tmp_path / "out" / f"{stem}.ckpt")


@pytest.mark.parametrize("method", ["remove", "randinit"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_names_and_shapes(tmp_path, dataset, method):
    expected = golden.record("15_surgery")[f"{dataset}.{method}"]["parameters"]
    actual = result(tmp_path, dataset, method)
    assert {name: list(array.shape) for name, array in actual.items()} == expected
    for name in set(actual) - {n for n in actual if "box_predictor" in n}:
        np.testing.assert_array_equal(actual[name], before(dataset)[name])


@pytest.mark.parametrize("dataset", DATASETS)
def test_rows(tmp_path, dataset):
    """Rows of base classes and background are where the official tool puts them; new ones new."""
    data, old, new = (
        golden.arrays("15_surgery"),
        before(dataset),
        result(tmp_path, dataset, "randinit"),
    )
    drawn = []
    for name in sorted(n for n in new if "box_predictor" in n):
        rows = data[f"{dataset}.source_row.{name}"]
        copied = rows >= 0
        np.testing.assert_array_equal(new[name][copied], old[name][rows[copied]])
        np.testing.assert_array_equal(new[name][copied], data[f"{dataset}.after.{name}"][copied])
        fresh, official = new[name][~copied], data[f"{dataset}.after.{name}"][~copied]
        assert len(fresh) == len(official) > 0
        if name.endswith(".bias"):
            np.testing.assert_array_equal(fresh, 0)
            np.testing.assert_array_equal(official, 0)
        else:
            drawn.append(fresh.ravel() / 0.01)
    numbers = np.concatenate(drawn)
    # Three standard errors of mean and deviation of normal numbers; no row is like another.
    assert abs(numbers.mean()) < 3 / np.sqrt(numbers.size)
    assert abs(numbers.std() - 1) < 3 / np.sqrt(2 * numbers.size)
    assert len(np.unique(numbers)) > 0.99 * numbers.size


@pytest.mark.own_process
def test_fine_tuning_starts_from_a_converted_detector(tmp_path):
    """The official file, converted, operated on, is what the configured detector starts from."""
    from src.assembly.training import load_detector

    kind, official = "fsod", golden.state_dict("base")
    save_torch(tmp_path / "model_final.pth", {"model": official, "iteration": 7})
    base = tmp_path / "base.ckpt"
    pth2ckpt.main([f"--input={tmp_path / 'model_final.pth'}", f"--output={base}"])
    model_surgery.main(["--dataset=coco", "--method=remove", f"--src-path={base}"])
    net = network.new_detector(network.config(kind), kind, "fast")
    novel = resolve_dataset("coco14_test_novel").class_names
    load_detector(net, tmp_path / "model_reset_remove.ckpt", novel)
    fresh = network.weights_of(kind)
    for parameter in net.get_parameters():
        name = parameter.name
        expected = fresh if "box_predictor" in name else official
        np.testing.assert_array_equal(parameter.asnumpy(), expected[name], err_msg=name)
