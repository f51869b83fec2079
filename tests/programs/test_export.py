# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From a checkpoint to detections by an exported network, as a user does it, and what is refused.

The inference program's place is taken by MindSpore itself, which reads the exported file; the
program's own tests are in test_ascend310_infer.py.
"""

import json
import shutil
import stat

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
import yaml
from mindspore import Tensor, nn

import eval as evaluation
import export
import postprocess
import preprocess
from src.assembly import export as assembly_export
from src.defrcn.detections import to_image_frame
from src.demo.make_data import make_demo_data
from src.demo.shapes import CLASSES
from src.export.manifest import INPUTS, read_manifest
from src.export.network import OUTPUT_NAMES
from src.model_utils.config import load_config
from src.model_utils.errors import InputError
from src.network_define import parameters_of
from src.util import write_json
from src.weights.ckpt_format import write_ckpt
from src.weights.note import write_note
from tests.helpers import small

HEIGHT, WIDTH = 144, 160
NAMES = ("alpha", "beta", "gamma")


def configuration(root):
    """The small detector of the tests, on three classes of generated pictures."""
    parts = {"images": "shapes/images/{}", "annotations": "shapes/annotations/{}.json"}
    sets = {s: {key: text.format(s) for key, text in parts.items()} for s in ("train", "test")}
    model = small.section(backbone__norm="BN", backbone__freeze_at=0).model_dump(mode="json")
    return {
        "datasets_root": str(root),
        "test_mindrecord_dir": str(root / "mindrecord"),
        "save_checkpoint_path": str(root / "run"),
        "data": {
            "test": ["shapes_test_novel"],
            "custom": {"shapes": {"format": "coco", **sets, "novel_classes": list(NAMES)}},
        },
        "input": {
            "min_size_test": 96,
            "max_size_test": 150,
            "pixel_std": [57.0, 58.0, 59.0],
        },
        "model": model,
        "test": {"score_threshold": 0.1, "detections_per_image": 20, "visualize_images": 0},
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures, a configuration, and a checkpoint of a random network."""
    root = tmp_path_factory.mktemp("project")
    make_demo_data(root / "shapes", seed=0, num_train=2, num_test=5)
    novel = [shape.name for shape in CLASSES if shape.novel]
    content = configuration(root)
    content["data"]["custom"]["shapes"]["novel_classes"] = novel
    (root / "tiny.yaml").write_text(yaml.safe_dump(content))
    net = small.detector(small.section(backbone__norm="FrozenBN", backbone__freeze_at=0))
    path = write_ckpt(root / "weights.ckpt", parameters_of(net))
    info = json.loads((root / "shapes" / "annotations" / "test.json").read_text())
    ordered = sorted((one["id"], one["name"]) for one in info["categories"])
    write_note(path, [name for _, name in ordered if name in novel], {})
    return root


def flags(place, *more):
    return [
        f"--config_path={place / 'tiny.yaml'}",
        f"--img_height={HEIGHT}",
        f"--img_width={WIDTH}",
        f"--export_ckpt_file={place / 'weights.ckpt'}",
        *more,
    ]


@pytest.fixture(scope="module")
def files(place):
    """Exported files by name."""
    for name, more in {
        "three": (),
        "one": ("--mindir_version=1",),
        "other": ("--export_file_format=ONNX", "--restore_bbox=false"),
    }.items():
        assert export.main(flags(place, f"--export_file_name={place / name}", *more)) == 0
    return place


@pytest.fixture(scope="module")
def inputs(place):
    """What preprocess.py wrote."""
    assert preprocess.main(flags(place, f"--result_path={place / 'in'}")) == 0
    return read_manifest(place / "in")


def infer(run, manifest, folder):
    """What the inference program does."""
    folder.mkdir()
    folder_of = manifest.path.parent
    for entry in manifest.entries:
        given = []
        for (_, dtype, name), shape in zip(INPUTS, ((1, 3, HEIGHT, WIDTH), (1,), (1, 4))):
            values = np.fromfile(folder_of / name / f"{entry.stem}.bin", dtype)
            given.append(values.reshape(shape))
        outputs = run(*given)
        for index, output in enumerate(outputs):
            (folder / f"{entry.stem}_{index}.bin").write_bytes(output.tobytes())
    shapes = [
        {"index": i, "name": name, "dtype": str(output.dtype), "shape": list(output.shape)}
        for i, (name, output) in enumerate(zip(OUTPUT_NAMES, outputs))
    ]
    write_json(folder / "outputs.json", {"outputs": shapes})
    stems = [entry.stem for entry in manifest.entries]
    write_json(folder / "done.json", {"count": len(stems), "stems": stems})
    return folder


def graph(path):
    cell = nn.GraphCell(ms.load(str(path)))
    return lambda *given: [one.asnumpy() for one in cell(*map(Tensor, given))]


def onnx(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(path), options)
    names = [one.name for one in session.get_inputs()]
    return lambda *given: session.run(None, dict(zip(names, given)))


@pytest.fixture(scope="module")
def results(files, inputs):
    """Results of each exported file."""
    return {
        name: infer(run(files / f"{name}{suffix}"), inputs, files / f"out_{name}")
        for name, run, suffix in (
            ("three", graph, ".mindir"),
            ("one", graph, ".mindir"),
            ("other", onnx, ".onnx"),
        )
    }


@pytest.fixture(scope="module")
def evaluated(place):
    """Detections of eval.py with the same input shape."""
    done = evaluation.main(
        [
            *flags(place)[:1],
            f"--eval_checkpoint_path={place / 'weights.ckpt'}",
            "--model.backbone.norm=FrozenBN",
            f"--input.input_shapes=[[{HEIGHT}, {WIDTH}]]",
            f"--result_path={place / 'eval'}",
        ]
    )
    assert done == 0
    return place / "eval"


def judge(place, results, *more):
    words = (f"--input_path={place / 'in'}", f"--result_path={results}", *more)
    return postprocess.main(flags(place, *words))


def unmatched(rows, wanted, box=0.05, score=1e-4):
    """Rows of one list that the other lacks, by picture, class, box (pixels) and score."""
    left = list(wanted)
    lone = []
    for row in rows:
        for other in left:
            same = (row["image_id"], row["category_id"]) == (
                other["image_id"],
                other["category_id"],
            )
            near = np.abs(np.subtract(row["bbox"], other["bbox"])).max() <= box
            if same and near and abs(row["score"] - other["score"]) <= score:
                left.remove(other)
                break
        else:
            lone.append(row)
    return lone + left


@pytest.mark.parametrize("name", ["three", "one", "other"])
def test_detections_are_those_of_eval(place, results, evaluated, capsys, name):
    assert judge(place, results[name]) == 0
    folder = results[name] / "evaluation"
    rows, wanted = (
        json.loads((one / "detections.json").read_text()) for one in (folder, evaluated)
    )
    assert len(wanted) > 20
    assert unmatched(rows, wanted) == []
    assert len({row["category_id"] for row in wanted}) > 1
    figures, expected = (
        json.loads((one / "metrics.json").read_text())["shapes_test_novel"]["results"]
        for one in (folder, evaluated)
    )
    assert figures == pytest.approx(expected, abs=1e-3)
    printed = capsys.readouterr().out
    report = (results[name] / "acc.log").read_text()
    assert report.strip() in printed
    assert "| nAP (3 novel classes) |" in report


def test_the_comparison_above_can_fail(evaluated):
    rows = json.loads((evaluated / "detections.json").read_text())
    moved = [{**row, "bbox": [row["bbox"][0] + 0.1, *row["bbox"][1:]]} for row in rows[:1]]
    assert len(unmatched(moved + rows[1:], rows)) == 2
    assert len(unmatched(rows[1:], rows)) == 1


def test_version_one_is_the_same_network(results, inputs):
    """But for the order of sums in its 3x3 convolutions; the rewriting itself changes no bit."""
    for entry in inputs.entries:
        for index, name in enumerate(OUTPUT_NAMES):
            dtype = np.int32 if name in ("valid", "info") else np.float32
            one, three = (
                np.fromfile(results[folder] / f"{entry.stem}_{index}.bin", dtype)
                for folder in ("one", "three")
            )
            limit = {"boxes": 1e-2, "scores": 1e-5}.get(name, 0)
            np.testing.assert_allclose(one, three, atol=limit, rtol=0, err_msg=name)


def test_restored_boxes(results, inputs):
    for entry in inputs.entries:
        boxes, restored = (
            np.fromfile(results[name] / f"{entry.stem}_0.bin", np.float32).reshape(-1, 4)
            for name in ("other", "three")
        )
        wanted, _ = to_image_frame(
            boxes, np.array(entry.resized_size), np.array(entry.original_size)
        )
        np.testing.assert_allclose(restored, wanted, atol=1e-3, rtol=0)
        info = np.fromfile(results["three"] / f"{entry.stem}_3.bin", np.int32)
        assert info.tolist()[0] == entry.number and info.tolist()[2:] == [0, 1]


def test_what_lies_beyond_the_picture_does_not_matter(files, inputs):
    run, entry = graph(files / "three.mindir"), inputs.entries[0]
    height, width = entry.resized_size
    assert height < HEIGHT and width < WIDTH
    image = np.fromfile(inputs.path.parent / "eval_img_bin" / f"{entry.stem}.bin", np.float32)
    image = image.reshape(1, 3, HEIGHT, WIDTH)
    meta = np.array([[height, width, *entry.original_size]], np.float32)
    wanted = run(image, np.array([1], np.int32), meta)
    assert (image[:, :, height:] == 0).all() and (image[..., width:] == 0).all()
    image[:, :, height:], image[..., width:] = 255, 255
    for mine, other in zip(run(image, np.array([1], np.int32), meta), wanted):
        np.testing.assert_array_equal(mine, other)


def test_the_description(files):
    values = json.loads((files / "one.mindir.json").read_text())
    assert values["input_shape"] == [HEIGHT, WIDTH]
    assert [one["name"] for one in values["inputs"]] == ["image", "image_id", "image_meta"]
    assert [one["shape"] for one in values["outputs"]] == [
        [1, 16, 3, 4],
        [1, 16, 4],
        [1, 16],
        [1, 4],
    ]
    assert values["mindir_version"] == 1 and values["restore_bbox"] is True
    assert json.loads((files / "other.onnx.json").read_text())["restore_bbox"] is False
    assert len(values["class_names"]) == 3 and "suppression" in values["left_out"][0]
    assert len(values["sha256"]) == len(values["checkpoint"]["sha256"]) == 64
    mode = stat.S_IMODE((files / "one.mindir").stat().st_mode)
    assert mode & 0o600 == 0o600


# --- what is refused


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--export_file_format=AIR",), "AIR can be written on a machine with Ascend only"),
        (("--export_file_format=ONNX", "--mindir_version=1"), "mindir_version 1 is for MINDIR"),
        (("--export_ckpt_file=none.ckpt",), "export_ckpt_file: none.ckpt does not exist"),
        (("--export_ckpt_file=",), "export_ckpt_file is empty"),
        (("--img_height=null",), "give --img_height and --img_width"),
        (("--model.backbone.res2_out_channels=16",), "weights.ckpt"),
    ],
)
def test_exports_that_are_refused(place, more, message):
    with pytest.raises(InputError, match=message):
        export.main(flags(place, f"--export_file_name={place / 'no'}", *more))
    assert not (place / "no.mindir").exists()


def test_the_shape_may_stand_in_the_configuration(place):
    config = load_config(place / "tiny.yaml", ["--input.input_shapes=[[96, 128]]"])
    assert assembly_export.input_shape(config) == (96, 128)
    two = load_config(place / "tiny.yaml", ["--input.input_shapes=[[96, 128], [128, 96]]"])
    with pytest.raises(InputError, match="one input shape"):
        assembly_export.input_shape(two)


def test_preprocessing_that_is_refused(place, tmp_path):
    words = flags(place, f"--result_path={tmp_path}")
    with pytest.raises(InputError, match=r"none of \[\[100, 100\]\] holds"):
        preprocess.main([*words, "--img_height=100", "--img_width=100"])
    with pytest.raises(InputError, match="data.test names 2 sets"):
        preprocess.main([*words, "--data.test=[shapes_test_novel, shapes_test_base]"])
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="holds other files"):
        preprocess.main(words)
    assert (tmp_path / "thesis.tex").exists()


def test_results_that_are_not_whole(place, results, tmp_path):
    """Each way is tested in test_export_results.py; here, that nothing is judged then."""
    folder = tmp_path / "results"
    shutil.copytree(results["three"], folder)
    (folder / "acc.log").unlink(missing_ok=True)
    (folder / "00002_1.bin").unlink()
    with pytest.raises(InputError, match=r"missing or cut short \(00002_1.bin\)"):
        judge(place, folder)
    assert not (folder / "acc.log").exists()


def test_inputs_that_are_not_whole(place, inputs, results, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(inputs.path.parent, folder)
    (folder / "manifest.json").unlink()
    words = flags(place, f"--input_path={folder}", f"--result_path={results['three']}")
    with pytest.raises(InputError, match=r"preprocess\.py did not finish"):
        postprocess.main(words)
    (folder / "manifest.json").write_text('{"format": "else"}')
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        postprocess.main(words)
    with pytest.raises(InputError, match="give the same flags"):
        judge(place, results["three"], "--input.min_size_test=90")
    with pytest.raises(InputError, match=r"input_path: none does not exist"):
        judge(place, results["three"], "--input_path=none")


def test_inputs_are_written_anew(place, inputs):
    """An old picture that is no longer in the set does not stay."""
    folder = inputs.path.parent
    stray = folder / "eval_id_bin" / "99999.bin"
    stray.write_bytes(b"1234")
    before = inputs.path.read_bytes()
    assert preprocess.main(flags(place, f"--result_path={folder}")) == 0
    assert not stray.exists()
    assert inputs.path.read_bytes() == before


def test_calibration_gets_the_checkpoint(place, results, inputs, monkeypatch):
    """PCB is applied in postprocess, with the checkpoint whose support set has to be the same."""
    seen = []

    def make(config, info, checkpoint):
        seen.append((config.test.pcb.enable, checkpoint))
        return lambda file_name, boxes, scores, classes: scores * 0.5

    monkeypatch.setattr("src.assembly.evaluation.make_calibrator", make)
    assert judge(place, results["one"], "--test.pcb.enable=true") == 0
    assert seen == [(True, place / "weights.ckpt")]
    rows = json.loads((results["one"] / "evaluation" / "detections.json").read_text())
    assert max(row["score"] for row in rows) <= 0.5
    metrics = json.loads((results["one"] / "evaluation" / "metrics.json").read_text())
    assert metrics["shapes_test_novel"]["pcb"] is True
