# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""A bundle against the checkpoint that it was made of: time, memory, and the same detections?

    python benchmarks/bundle.py --output DIR --pictures FOLDER --config_path=FILE --checkpoint CKPT \
        --height H --width W [--rounds 3] [--program MAIN] [--key=value ...]
    python benchmarks/bundle.py --output DIR --photographs DATASETS_ROOT [--images 6] [...]

The second form takes the full R-101 with random weights, see benchmarks/deployment.py. Writes a
bundle of MINDIR and one of ONNX, with the calibration block if the configuration has it, and runs
in turn, `--rounds` times: predict with the checkpoint, the bundle by MindSpore, by onnxruntime, and
by MAIN (what ascend310_infer/build.sh builds) if that takes --bundle. Each is a process of its own. Writes
DIR/bundle.json and prints it as a table; the ratio is that of the same round, its median. Exits with 1 if a
detection has no partner, with the first form within 0.05 pixels and 1e-4 in score.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from deployment import ROOT, compare, photographs, rate, run
from tabulate import tabulate

from src.util import write_json

NAMES = {
    "predict": "checkpoint, predict",
    "mindspore": "bundle, MindSpore",
    "onnxruntime": "bundle, onnxruntime",
    "c++": "bundle, C++",
}


def takes_bundles(program: Path) -> bool:
    """Whether a C++ program is there and has the flag."""
    if not program.is_file():
        return False
    told = subprocess.run([str(program), "--help"], capture_output=True, text=True, check=False)
    return "-bundle" in told.stdout + told.stderr


def commands(args: argparse.Namespace, flags: list[str], bundles: dict[str, Path]) -> dict:
    """What is run, by name: the command without its folder of results."""
    predict = [sys.executable, "-m", "src.predict", f"--input_path={args.pictures}"]
    predict.append(f"--score_threshold={args.score_threshold}")
    own = [*flags, f"--eval_checkpoint_path={args.checkpoint}", "--model.backbone.norm=FrozenBN"]
    found = {
        "predict": [*predict, *own],
        "mindspore": [*predict, f"--bundle={bundles['MINDIR']}"],
        "onnxruntime": [*predict, f"--bundle={bundles['ONNX']}"],
    }
    if takes_bundles(args.program):
        words = [f"--bundle={bundles['MINDIR']}", f"--input={args.pictures}", "--draw"]
        words += [f"--time_path={args.output / 'time_Result'}"]
        words.append(f"--score_threshold={args.score_threshold}")
        found["c++"] = [str(args.program), *words]
    return found


def detections(folder: Path) -> list[dict]:
    """What a run found, as rows that `deployment.compare` takes."""
    content = json.loads((folder / "detections.json").read_text())
    if isinstance(content, list):
        images = json.loads((folder / "images.json").read_text())["images"]
        names = {one["id"]: one["file_name"] for one in images}
        return [{**row, "image_id": names[row["image_id"]]} for row in content]
    return [
        {**one, "image_id": image["file"], "bbox": one["bbox_xywh"]}
        for image in content["images"]
        for one in image["detections"]
    ]


def seconds_an_image(folder: Path, log: Path) -> float | None:
    """Seconds an image: after the first, drawing included; the C++ program's without loading."""
    done = folder / "done.json"
    if done.exists():
        return 1 / json.loads(done.read_text())["images_per_second"]
    return rate(log)


def chosen(output: Path) -> Path:
    """A folder of links to the pictures that `photographs` chose."""
    datasets, folder = output / "datasets", output / "pictures"
    folder.mkdir(exist_ok=True)
    content = json.loads((datasets / "cocosplit" / "datasplit" / "5k.json").read_text())
    for one in content["images"]:
        (found,) = (datasets / "coco").resolve().rglob(one["file_name"])
        link = folder / one["file_name"]
        if not link.exists():
            link.symlink_to(found)
    return folder


def measure(args: argparse.Namespace, flags: list[str]) -> dict:
    """Everything; returns what bundle.json holds."""
    out = args.output
    bundles = {}
    for kind, more in (("MINDIR", "--mindir_version=1"), ("ONNX", "--export_file_format=ONNX")):
        bundles[kind] = out / f"bundle_{kind.lower()}"
        words = [f"--export_ckpt_file={args.checkpoint}", f"--bundle={bundles[kind]}", more]
        words += [f"--img_height={args.height}", f"--img_width={args.width}"]
        run([sys.executable, "export.py", *flags, *words], out / f"export_{kind}.log")
    found: dict = {"rounds": args.rounds, "shape": [args.height, args.width], "runs": {}}
    wanted = commands(args, flags, bundles)
    for number in range(args.rounds):
        for name, command in wanted.items():
            folder, log = out / f"{name}_{number}", out / f"{name}_{number}.log"
            place = "--output" if name == "c++" else "--result_path"
            figures = run([*command, f"{place}={folder}"], log)
            speed = seconds_an_image(folder, log)
            found["runs"].setdefault(name, []).append({**figures, "seconds_an_image": speed})
    rows = {name: detections(out / f"{name}_0") for name in wanted}
    found["against predict"] = {
        name: compare(rows[name], rows["predict"]) for name in wanted if name != "predict"
    }
    return found


def show(found: dict) -> str:
    """The table, and how far the detections are apart."""
    rows = []
    for name, runs in found["runs"].items():
        speeds = [one["seconds_an_image"] or float("nan") for one in runs]
        first = [one["seconds_an_image"] or float("nan") for one in found["runs"]["predict"]]
        ratio = statistics.median(mine / other for mine, other in zip(speeds, first))
        rows.append(
            (
                NAMES[name],
                f"{statistics.median(speeds):.3f}",
                f"{ratio:.2f}",
                f"{statistics.median(one['peak_mb'] for one in runs):.0f}",
                f"{statistics.median(one['seconds'] for one in runs):.1f}",
            )
        )
    headers = ("", "s an image", "of predict's", "peak MB", "whole process, s")
    text = str(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
    for name, one in found["against predict"].items():
        text += (
            f"\n{NAMES[name]}: {one['detections'][0]} and {one['detections'][1]} detections, "
            f"{one['without_partner']} without a partner, {one['pairs_beyond_limits']} pairs too "
            f"far apart; boxes within {one['largest_box_difference']:.2g} pixels, scores within "
            f"{one['largest_score_difference']:.2g}"
        )
    return f"{found['rounds']} rounds\n{text}\n"


def main() -> int:
    """Read the command line, run, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--photographs", type=Path, metavar="DATASETS_ROOT")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--score_threshold", type=float, default=0.05)
    parser.add_argument("--program", type=Path, default=ROOT / "ascend310_infer" / "out" / "main")
    args, flags = parser.parse_known_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.photographs is not None:
        more, args.checkpoint = photographs(args.photographs, args.output, args.images)
        flags = [*more, *flags]
        args.pictures = chosen(args.output)
    elif not (args.checkpoint and args.pictures):
        parser.error("give --checkpoint and --pictures, or --photographs")
    for key in ("output", "pictures", "checkpoint", "program"):
        setattr(args, key, getattr(args, key).resolve())
    found = measure(args, flags)
    write_json(args.output / "bundle.json", found)
    sys.stdout.write(show(found))
    counted = ["without_partner", "pairs_beyond_limits"][: 1 if args.photographs else 2]
    return int(any(one[key] for one in found["against predict"].values() for key in counted))


if __name__ == "__main__":
    sys.exit(main())
