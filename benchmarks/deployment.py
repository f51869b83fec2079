# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""An exported detector in C++ against eval.py: same detections, same AP? And time and memory.

    python benchmarks/deployment.py --output DIR --config_path=FILE --checkpoint CKPT \
        --height H --width W [--program MAIN] [--key=value ...]
    python benchmarks/deployment.py --output DIR --photographs DATASETS_ROOT [--images 6]

The first form takes a trained detector and its test set, such as the demo's. The second takes the
full R-101 with the weights that the golden vectors were made with, and landscape photographs of
COCO's test set below DATASETS_ROOT at 320 x 480. MAIN is what ascend310_infer/build.sh builds.

Runs eval.py with the exact sizes and with the one input shape, export.py, preprocess.py, MAIN and
postprocess.py, one after the other, each as a process of its own; writes DIR/deployment.json and
prints it as tables. Exits with 1 if AP differs by more than 0.001 (in percent), or a detection has
no partner within 0.05 pixels and 1e-4 in score. With the second form the partner may be further
away: with random weights scores depend so much on hundredths of a pixel in the proposals that
eval.py's own two formulations differ by more; see benchmarks/rounding.py.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.util import write_json  # noqa: E402
from src.weights.ckpt_format import write_ckpt  # noqa: E402

BOX, SCORE, AP = 0.05, 1e-4, 0.001
R101 = ROOT / "configs" / "coco" / "defrcn_det_r101_base.yaml"


def run(command: list[str], log: Path) -> dict[str, float]:
    """Run a process; return its seconds and peak memory (MB). Ends this program if it fails."""
    started = time.monotonic()
    with log.open("w") as handle:
        process = subprocess.Popen(command, cwd=ROOT, stdout=handle, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command[:3])} failed; see {log}")
    return {"seconds": time.monotonic() - started, "peak_mb": usage.ru_maxrss / 1024}


def photographs(source: Path, folder: Path, count: int) -> tuple[list[str], Path]:
    """The flags and the checkpoint of the second form."""
    from tests.golden import golden

    split = Path("cocosplit") / "datasplit" / "5k.json"
    source = source.resolve()
    content = json.loads((source / split).read_text())
    wide = [one for one in content["images"] if one["width"] >= 1.5 * one["height"]]
    wide += [one for one in content["images"] if 1.2 <= one["width"] / one["height"] < 1.5]
    content["images"] = wide[:count]
    kept = {one["id"] for one in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    root = folder / "datasets"
    write_json(root / split, content, indent=None)
    link = root / "coco"
    if not link.exists():
        link.symlink_to(source / "coco")
    weights = write_ckpt(folder / "r101.ckpt", golden.state_dict("base"))
    flags = [f"--config_path={R101}", f"--datasets_root={root}"]
    flags += ["--input.min_size_test=320", "--input.max_size_test=480"]
    flags += ["--model.rpn.pre_nms_topk_test=1000", "--model.rpn.post_nms_topk_test=100"]
    return flags, weights


def compare(rows: list[dict], wanted: list[dict]) -> dict:
    """Pair detections by picture and class, nearest first, and see how far they are apart."""
    pairs: dict[tuple, tuple[list, list]] = {}
    for side, entries in enumerate((rows, wanted)):
        for row in entries:
            key = (row["image_id"], row["category_id"])
            pairs.setdefault(key, ([], []))[side].append(row)
    boxes, scores, alone = [], [], 0
    for mine, other in pairs.values():
        left = list(other)
        alone += abs(len(mine) - len(other))
        for row in mine[: len(other)] if len(mine) > len(other) else mine:
            apart = [_apart(row, one) for one in left]
            best = min(range(len(left)), key=lambda i: apart[i][0] + apart[i][1])
            boxes.append(apart[best][0])
            scores.append(apart[best][1])
            del left[best]
    beyond = (np.array(boxes) > BOX) | (np.array(scores) > SCORE)
    return {
        "detections": [len(rows), len(wanted)],
        "without_partner": alone,
        "pairs_beyond_limits": int(beyond.sum()),
        "largest_box_difference": float(max(boxes, default=0.0)),
        "largest_score_difference": float(max(scores, default=0.0)),
    }


def _apart(row: dict, other: dict) -> tuple[float, float]:
    """Largest difference of a coordinate, and of the score."""
    box = float(np.abs(np.subtract(row["bbox"], other["bbox"])).max())
    return box, abs(row["score"] - other["score"])


def read(folder: Path) -> tuple[list[dict], float]:
    """Detections and AP (percent) of a result folder."""
    figures = json.loads((folder / "metrics.json").read_text())
    (one,) = figures.values()
    return json.loads((folder / "detections.json").read_text()), one["results"]["AP"]


def rate(log: Path) -> float | None:
    """Seconds an image after the first, as eval.py logs it."""
    found = re.search(r"([\d.]+) images/s after the first", log.read_text())
    return 1 / float(found.group(1)) if found else None


def steps(args: argparse.Namespace, flags: list[str], checkpoint: Path) -> dict:
    """Everything; returns what deployment.json holds."""
    out, shape = args.output, f"[[{args.height},{args.width}]]"
    python = [sys.executable]
    flags = [*flags, f"--test_mindrecord_dir={out / 'mindrecord'}", "--test.visualize_images=0"]
    size = [f"--img_height={args.height}", f"--img_width={args.width}"]
    model = out / "detector.mindir"
    found: dict = {"pictures": 0, "shape": [args.height, args.width]}
    for name, shapes in (("exact", "exact"), ("fixed", shape)):
        log = out / f"eval_{name}.log"
        words = [f"--eval_checkpoint_path={checkpoint}", f"--input.input_shapes={shapes}"]
        words += ["--model.backbone.norm=FrozenBN", f"--result_path={out / f'eval_{name}'}"]
        found[name] = run([*python, "eval.py", *flags, *words], log)
        found[name]["seconds_an_image"] = rate(log)
    words = [*size, "--mindir_version=1", f"--export_ckpt_file={checkpoint}"]
    words += [f"--export_file_name={model}"]
    found["export"] = run([*python, "export.py", *flags, *words], out / "export.log")
    inputs, results = out / "preprocess_Result", out / "result_Files"
    words = [*size, f"--result_path={inputs}"]
    found["preprocess"] = run([*python, "preprocess.py", *flags, *words], out / "preprocess.log")
    words = [f"--mindir_path={model}", f"--dataset_path={inputs}", f"--result_path={results}"]
    words += [f"--time_path={out / 'time_Result'}", "--device_type=CPU"]
    found["c++"] = run([str(args.program), *words], out / "infer.log")
    done = json.loads((results / "done.json").read_text())
    found["pictures"] = done["count"]
    found["c++"]["seconds_an_image"] = done["predict_ms"]["mean"] / 1000
    found["c++"]["load_seconds"] = done["load_seconds"]
    words = [*size, f"--input_path={inputs}", f"--result_path={results}"]
    found["postprocess"] = run([*python, "postprocess.py", *flags, *words], out / "post.log")
    folders = {"c++": results / "evaluation", "fixed": out / "eval_fixed"}
    folders["exact"] = out / "eval_exact"
    sides = {name: read(folder) for name, folder in folders.items()}
    found["AP"] = {name: ap for name, (_, ap) in sides.items()}
    found["c++ against fixed"] = compare(sides["c++"][0], sides["fixed"][0])
    found["fixed against exact"] = compare(sides["fixed"][0], sides["exact"][0])
    return found


def show(found: dict) -> str:
    """The tables."""
    height, width = found["shape"]
    names = {
        "exact": "Python, exact sizes",
        "fixed": f"Python, {height} x {width}",
        "c++": f"C++, {height} x {width}",
    }
    rows = [
        (
            title,
            f"{found['AP'][name]:.3f}",
            f"{found[name]['seconds_an_image'] or float('nan'):.3f}",
            f"{found[name]['peak_mb']:.0f}",
            f"{found[name]['seconds']:.1f}",
        )
        for name, title in names.items()
    ]
    headers = ("", "AP", "s an image", "peak MB", "whole process, s")
    text = str(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    for name in ("c++ against fixed", "fixed against exact"):
        one = found[name]
        text += (
            f"\n{name}: {one['detections'][0]} and {one['detections'][1]} detections, "
            f"{one['without_partner']} without a partner, {one['pairs_beyond_limits']} pairs "
            f"further apart than {BOX:g} pixels or {SCORE:g}; boxes within {one['largest_box_difference']:.2g} pixels, scores within "
            f"{one['largest_score_difference']:.2g}"
        )
    return f"{found['pictures']} pictures\n{text}\n"


def main() -> int:
    """Read the command line, run, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--program", type=Path, default=ROOT / "ascend310_infer" / "out" / "main")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--width", type=int, default=480)
    args, flags = parser.parse_known_args()
    args.output = args.output.resolve()
    args.output.mkdir(parents=True, exist_ok=True)
    checkpoint = args.checkpoint
    if args.photographs is not None:
        more, checkpoint = photographs(args.photographs, args.output, args.images)
        flags = [*more, *flags]
    elif checkpoint is None:
        parser.error("give --checkpoint, or --photographs")
    found = steps(args, flags, checkpoint)
    write_json(args.output / "deployment.json", found)
    sys.stdout.write(show(found))
    one = found["c++ against fixed"]
    wrong = one["without_partner"]
    if args.photographs is None:
        wrong += one["pairs_beyond_limits"]
    return int(wrong > 0 or abs(found["AP"]["c++"] - found["AP"]["fixed"]) > AP)


if __name__ == "__main__":
    sys.exit(main())
