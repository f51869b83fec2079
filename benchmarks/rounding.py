# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""How far float32 takes the detector from exact arithmetic, in eval.py and in the C++ program.

    python benchmarks/rounding.py --output DIR --photographs DATASETS_ROOT [--images 3] \
        [--program MAIN]

The full R-101 with the weights of the golden vectors, 320 x 480, on photographs of COCO, as
benchmarks/deployment.py takes them. The measure is `Reference`, the same network in float64,
written for this purpose with numpy alone. Four sides: both formulations of the network in
MindSpore, and the exported network in MindSpore Lite, with its 3x3 convolutions as sums (as
export.py writes it) and by Lite's own algorithm. Prints for each side

* how far its features are from the reference's, after every stage;
* how far its scores are from the reference's for the proposals that the side itself found;
* how far proposals and scores are from the first side's, and how much the reference's scores
  differ between the two sides' proposals: what no rounding explains.

Letters: C channels, N maps, H x W cells, R boxes, K classes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.deployment import photographs, run  # noqa: E402

HEIGHT, WIDTH = 320, 480
STAGES = ("stem", "res2", "res3", "res4")
OUTPUTS = (*STAGES, "proposals", "logits", "image_id")
MS_SIDES = {"MindSpore, fast": "fast", "MindSpore, plain": "plain"}
LITE_SIDES = {"C++, sums": True, "C++, Lite's own 3x3": False}
_NORM_EPSILON = 1e-5


class Reference:
    """Backbone and second stage of an R-50 or R-101 with frozen norms, in float64.

    Args:
        state: official name -> array.
        resolution: bins an axis of RoI pooling.
    """

    def __init__(self, state: Mapping[str, np.ndarray], resolution: int) -> None:
        self.state = {name: value.astype(np.float64) for name, value in state.items()}
        self.resolution = resolution

    def stages(self, image: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
        """Features (C, 1, H, W) after each stage of a normalised picture (3, H, W) in a shape.

        Cells beyond `height` and `width` (pixels in use) count as zero wherever a neighbour looks.
        """
        stem = np.maximum(self._conv(image[:, None], "backbone.stem.conv1", 2), 0)
        stem = stem * self._used(stem, 2, height, width)
        padded = np.pad(stem, ((0, 0), (0, 0), (1, 1), (1, 1)))
        rows, columns = (-(-side // 2) for side in stem.shape[2:])
        parts = [
            padded[:, :, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
            for i in range(3)
            for j in range(3)
        ]
        found = {"stem": np.max(parts, 0)}
        features = found["stem"]
        for name, cell in (("res2", 4), ("res3", 8), ("res4", 16)):
            features = self._blocks(features, f"backbone.{name}", 1 if cell == 4 else 2, cell,
                                    (height, width))  # fmt: skip
            found[name] = features
        return found

    def scores(
        self, features: np.ndarray, boxes: np.ndarray, height: int, width: int
    ) -> np.ndarray:
        """Softmax scores (R, K + 1) of boxes (R, 4) in pixels on res4's features (C, 1, H, W)."""
        scale, shift = (
            self.state[f"affine_rcnn.{kind}"].reshape(-1, 1, 1) for kind in ("weight", "bias")
        )
        rows, columns = -(-height // 16), -(-width // 16)
        used = (features[:, 0] * scale + shift)[:, :rows, :columns]
        pooled = []
        for x1, y1, x2, y2 in boxes.astype(np.float64) / 16 - 0.5:
            by_row, by_column = self._axis(y1, y2, rows), self._axis(x1, x2, columns)
            pooled.append(np.einsum("yh,chw,xw->cyx", by_row, used, by_column, optimize=True))
        out = self._blocks(np.stack(pooled, 1), "roi_heads.res5", 2)
        name = "roi_heads.box_predictor.cls_score"
        logits = out.mean((2, 3)).T @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]
        return softmax(logits)

    def _axis(self, start: float, end: float, cells: int) -> np.ndarray:
        """(bins, cells): what each cell gives to each bin."""
        size = (end - start) / self.resolution
        count = max(int(np.ceil(size)), 0)
        weights = np.zeros((self.resolution, cells))
        for one in range(self.resolution):
            for sample in range(count):
                point = start + one * size + (sample + 0.5) * size / count
                if -1 <= point <= cells:
                    point = min(max(point, 0.0), cells - 1.0)
                    low = int(point)
                    weights[one, low] += (1 - (point - low)) / count
                    weights[one, min(low + 1, cells - 1)] += (point - low) / count
        return weights

    def _blocks(
        self,
        features: np.ndarray,
        name: str,
        stride: int,
        cell: int = 0,
        size: tuple[int, int] = (0, 0),
    ) -> np.ndarray:
        """All bottlenecks of a stage; with `cell` pixels a cell, those beyond `size` are zero."""
        number = 0
        while f"{name}.{number}.conv1.weight" in self.state:
            block = f"{name}.{number}"
            step = stride if number == 0 else 1
            out = np.maximum(self._conv(features, f"{block}.conv1", step), 0)
            if cell:
                out = out * self._used(out, cell, *size)
            out = np.maximum(self._conv(out, f"{block}.conv2", 1), 0)
            out = self._conv(out, f"{block}.conv3", 1)
            if f"{block}.shortcut.weight" in self.state:
                features = self._conv(features, f"{block}.shortcut", step)
            features = np.maximum(out + features, 0)
            number += 1
        return features

    @staticmethod
    def _used(features: np.ndarray, cell: int, height: int, width: int) -> np.ndarray:
        rows, columns = features.shape[2:]
        return np.outer(np.arange(rows) * cell < height, np.arange(columns) * cell < width)

    def _conv(self, features: np.ndarray, name: str, stride: int) -> np.ndarray:
        """(C, N, H, W) -> (D, N, H / stride, W / stride), rounded up, with its norm."""
        state, norm = self.state, f"{name}.norm"
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + _NORM_EPSILON)
        shift = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        weight = state[f"{name}.weight"] * scale[:, None, None, None]
        side = weight.shape[2]
        around = side // 2
        padded = np.pad(features, ((0, 0), (0, 0), (around, around), (around, around)))
        channels, maps, height, width = features.shape
        rows, columns = -(-height // stride), -(-width // stride)
        out = np.zeros((weight.shape[0], maps * rows * columns))
        for i in range(side):
            for j in range(side):
                part = padded[:, :, i::stride, j::stride][:, :, :rows, :columns]
                out += weight[:, :, i, j] @ part.reshape(channels, -1)
        return out.reshape(-1, maps, rows, columns) + shift[:, None, None, None]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    powers = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    return powers / powers.sum(-1, keepdims=True)


def make_probe(config, state: Mapping[str, np.ndarray], portable: bool, oblong: bool = False):
    """A Cell with the inputs of an exported network, and what is inside one as its outputs."""
    import mindspore as ms
    from mindspore import Tensor, nn, ops

    from src.assembly.export import for_export
    from src.assembly.training import make_detector
    from src.defrcn.portable import make_portable
    from src.defrcn.resnet import valid_mask
    from src.network_define import set_parameters

    class Probe(nn.Cell):
        """See `make_probe`."""

        def __init__(self, net: nn.Cell) -> None:
            super().__init__()
            self.net = net
            values = (config.input.pixel_mean, config.input.pixel_std)
            self.mean, self.std = (
                Tensor(np.asarray(one, np.float32).reshape(1, 3, 1, 1)) for one in values
            )
            self.set_train(False)

        def construct(self, image: Tensor, image_id: Tensor, image_meta: Tensor) -> tuple:
            net, sizes = self.net, image_meta[:, :2]
            padded = sizes.astype(ms.int32).reshape(2)
            mask = valid_mask(image.shape[2], image.shape[3], padded[0], padded[1])
            images = (image - self.mean) / self.std * mask
            stem, res2, res3, res4 = net.backbone.stages(images, padded)
            rpn, valid_size, anchor_valid = net.rpn_inputs(res4, padded)
            proposals, _ = net.proposal_generator(rpn, anchor_valid, sizes)
            cls = net.roi_heads(net.rcnn_features(res4), proposals, valid_size)[0]
            return stem, res2, res3, res4, proposals, cls, ops.concat((image_id, image_id))

    names = tuple(map(str, range(60)))
    net = make_detector(for_export(config), names, kernels=False)
    set_parameters(list(net.get_parameters()), dict(state))
    if portable:
        make_portable(net, HEIGHT, WIDTH, oblong=oblong)
    return Probe(net)


def run_mindspore(config, state, inputs: list[tuple]) -> list[dict[str, np.ndarray]]:
    """The outputs of all pictures in this process."""
    from mindspore import Tensor

    probe = make_probe(config, state, portable=False)
    found = []
    for one in inputs:
        values = (value.asnumpy() for value in probe(*map(Tensor, one)))
        found.append(dict(zip(OUTPUTS, values)))
    return found


def run_lite(
    config, state, oblong: bool, program: Path, folder: Path, count: int
) -> list[dict[str, np.ndarray]]:
    """The outputs of all pictures by the C++ program."""
    import json

    import mindspore as ms

    from src.export.mindir_rewrite import to_version_1
    from src.export.network import example_inputs

    probe = make_probe(config, state, portable=True, oblong=oblong)
    made, model = folder / "version3.mindir", folder / f"probe_{int(oblong)}.mindir"
    made.unlink(missing_ok=True)
    ms.export(probe, *example_inputs(HEIGHT, WIDTH), file_name=str(made), file_format="MINDIR")
    model.write_bytes(to_version_1(made.read_bytes(), str(made)))
    made.unlink()
    results = folder / f"results_{int(oblong)}"
    words = [f"--mindir_path={model}", f"--dataset_path={folder / 'inputs'}"]
    words += [f"--result_path={results}", f"--time_path={folder / 'time'}", "--device_type=CPU"]
    run([str(program), *words], folder / f"infer_{int(oblong)}.log")
    shapes = [one["shape"] for one in json.loads((results / "outputs.json").read_text())["outputs"]]
    found = []
    for index in range(count):
        values = {}
        for place, (name, shape) in enumerate(zip(OUTPUTS, shapes)):
            dtype = "<i4" if name == "image_id" else "<f4"
            path = results / f"{index:05d}_{place}.bin"
            values[name] = np.fromfile(path, dtype).reshape(shape)
        found.append(values)
    return found


def compare(sides, inputs, reference: Reference, mean, std) -> dict[str, dict[str, float]]:
    """The largest figures over all pictures, by side."""
    worst: dict[str, dict[str, float]] = {side: {} for side in sides}

    def note(side: str, key: str, value: float) -> None:
        worst[side][key] = max(worst[side].get(key, 0.0), float(value))

    first = next(iter(sides))
    for index, (image, _, meta) in enumerate(inputs):
        height, width = (int(one) for one in meta[0, :2])
        inside = np.zeros((HEIGHT, WIDTH))
        inside[:height, :width] = 1
        normal = (image[0].astype(np.float64) - mean) / std * inside
        truth = reference.stages(normal, height, width)
        found = {}
        for side, outputs in sides.items():
            mine = outputs[index]
            for stage in STAGES:
                features = mine[stage].transpose(0, 3, 1, 2) if stage == "res4" else mine[stage]
                apart = features[0] - truth[stage][:, 0]
                note(side, f"{stage} rms", np.sqrt((apart**2).mean()))
                note(side, f"{stage} max", np.abs(apart).max())
            boxes = mine["proposals"][0]
            exact = reference.scores(truth["res4"], boxes, height, width)
            scores = softmax(mine["logits"])
            note(side, "scores", np.abs(scores - exact).max())
            found[side] = boxes, scores, exact
            distance = np.abs(boxes[:, None] - found[first][0][None]).max(2)
            partner = distance.argmin(1)
            differs = [np.abs(found[side][k] - found[first][k][partner]).max(1) for k in (1, 2)]
            note(side, "proposals apart", distance.min(1).max())
            note(side, "scores apart", differs[0].max())
            note(side, "reference apart", differs[1][differs[0].argmax()])
            note(side, "unexplained", np.abs(differs[0] - differs[1]).max())
    return worst


def show(worst: dict[str, dict[str, float]]) -> str:
    """The tables."""
    first = [
        (side, *(f"{one[f'{stage} rms']:.1e}, {one[f'{stage} max']:.1e}" for stage in STAGES),
         f"{one['scores']:.1e}")
        for side, one in worst.items()
    ]  # fmt: skip
    headers = ("from float64 (rms, max)", *STAGES, "scores of its proposals")
    text = str(tabulate(first, headers, tablefmt="pipe", disable_numparse=True))
    keys = ("proposals apart", "scores apart", "reference apart", "unexplained")
    second = [(side, *(f"{one[key]:.1e}" for key in keys)) for side, one in worst.items()]
    headers = (
        f"from {next(iter(worst))}",
        "proposals, pixels",
        "scores",
        "float64's at these proposals",
        "largest difference of the two",
    )
    return f"{text}\n\n{tabulate(second, headers, tablefmt='pipe', disable_numparse=True)}\n"


def main() -> int:
    """Read the command line, run all sides, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--program", type=Path, default=ROOT / "ascend310_infer" / "out" / "main")
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--images", type=int, default=3)
    args = parser.parse_args()
    folder = args.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    flags, _ = photographs(args.photographs.resolve(), folder, args.images)
    flags += [f"--img_height={HEIGHT}", f"--img_width={WIDTH}"]
    flags.append(f"--test_mindrecord_dir={folder / 'mindrecord'}")
    words = [sys.executable, "preprocess.py", *flags, f"--result_path={folder / 'inputs'}"]
    run(words, folder / "preprocess.log")

    os.environ.setdefault("GLOG_v", "3")
    import mindspore as ms

    from src.model_utils.config import load_config
    from src.util import write_json
    from tests.golden import golden

    ms.set_context(mode=ms.GRAPH_MODE)
    path, overrides = flags[0].partition("=")[2], flags[1:]
    state = golden.state_dict("base")
    config = load_config(path, overrides)
    shapes = (("eval_img_bin", "<f4", (1, 3, HEIGHT, WIDTH)), ("eval_id_bin", "<i4", (1,)))
    shapes += (("eval_meta_bin", "<f4", (1, 4)),)
    inputs = [
        tuple(
            np.fromfile(folder / "inputs" / name / f"{index:05d}.bin", dtype).reshape(shape)
            for name, dtype, shape in shapes
        )
        for index in range(args.images)
    ]
    sides = {}
    for side, formulation in MS_SIDES.items():
        own = load_config(path, [*overrides, f"--model.formulation={formulation}"])
        sides[side] = run_mindspore(own, state, inputs)
    for side, oblong in LITE_SIDES.items():
        sides[side] = run_lite(config, state, oblong, args.program, folder, args.images)
    mean, std = (
        np.asarray(one).reshape(3, 1, 1)
        for one in (config.input.pixel_mean, config.input.pixel_std)
    )
    reference = Reference(state, config.model.roi_heads.pooler_resolution)
    worst = compare(sides, inputs, reference, mean, std)
    write_json(folder / "rounding.json", worst)
    sys.stdout.write(show(worst))
    return 0


if __name__ == "__main__":
    sys.exit(main())
