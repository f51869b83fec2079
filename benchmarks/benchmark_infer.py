"""Time per picture and peak memory of an exported detector: the C++ program against Python.

    python benchmarks/benchmark_infer.py --mindir net.mindir --inputs preprocess_Result \
        [-- FLAGS OF eval.py]

Prints a table, one process a row, one after the other on the same pictures:
* the C++ program (ascend310_infer/build.sh) with one and with two instances;
* the same file, loaded by MindSpore in Python;
* eval.py with the flags after `--`, if there are any: the network as it was trained, given the same
  --input.input_shapes; its memory includes what reads and judges the pictures.
The first picture, which compiles, is not counted anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("run", "ms/image (median)", "ms/image (p90)", "images/s", "start, s", "peak memory, MB")


def in_python(mindir: str, inputs: Path) -> None:
    """Run the file with MindSpore; print the numbers as JSON."""
    import mindspore as ms
    from mindspore import Tensor, nn

    manifest = json.loads((inputs / "manifest.json").read_text(encoding="utf-8"))
    start = time.perf_counter()
    network = nn.GraphCell(ms.load(mindir))
    times = []
    for image in manifest["images"]:
        arrays = [
            np.fromfile(inputs / one["folder"] / f"{image['stem']}.bin", one["dtype"]).reshape(
                one["shape"]
            )
            for one in manifest["inputs"]
        ]
        began = time.perf_counter()
        for output in network(*map(Tensor, arrays)):
            output.asnumpy()
        times.append((time.perf_counter() - began) * 1000)
        if len(times) == 1:
            loaded = time.perf_counter() - start
    spent = time.perf_counter() - start - loaded
    median, p90 = np.percentile(times[1:], [50, 90])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = (len(times) - 1) / spent
    sys.stdout.write("\n" + json.dumps([median, p90, rate, loaded, peak]) + "\n")


def run(command: list[str], environment: dict[str, str]) -> tuple[str, float]:
    """Run a process to its end; return what it printed and its peak memory in MB."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed:\n{text}")
    return text, usage.ru_maxrss / 1024


def row_of_program(arguments: argparse.Namespace, instances: int, environment: dict) -> list:
    """One run of the C++ program."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--mindir_path={arguments.mindir}", f"--dataset_path={arguments.inputs}"]
        flags += [f"--result_path={folder}/r", f"--time_path={folder}/t"]
        run([str(arguments.program), *flags, f"--instances={instances}"], environment)
        done = json.loads(Path(folder, "r", "done.json").read_text(encoding="utf-8"))
    title = f"C++, {instances} instance{'s' if instances > 1 else ''}"
    times = done["predict_ms"]
    return [title, times["median"], times["p90"], done["images_per_second"]] + [
        done["load_seconds"],
        done["peak_memory_mb"],
    ]


def row_of_eval(flags: list[str], environment: dict[str, str]) -> list:
    """One run of eval.py; it logs a rate, no times of single pictures."""
    text, peak = run([sys.executable, "eval.py", *flags], environment)
    found = re.search(r"images in ([\d.]+) s, ([\d.]+) images/s after the first", text)
    if found is None:
        sys.exit(f"eval.py logged no rate:\n{text}")
    return ["Python, eval.py", 1000 / float(found[2]), None, float(found[2]), None, peak]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=ROOT / "ascend310_infer" / "out" / "main")
    parser.add_argument("--mindir", type=os.path.abspath, required=True)
    parser.add_argument("--inputs", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("--in_python", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("eval_flags", nargs="*")
    arguments = parser.parse_args()
    if arguments.in_python:
        in_python(arguments.mindir, arguments.inputs)
        return
    environment = {"GLOG_v": "3", **os.environ}
    rows = [row_of_program(arguments, instances, environment) for instances in (1, 2)]
    itself = [sys.executable, __file__, f"--mindir={arguments.mindir}", "--in_python"]
    text, _ = run([*itself, f"--inputs={arguments.inputs}"], environment)
    rows.append(["Python, the same file", *json.loads(text.splitlines()[-1])])
    if arguments.eval_flags:
        rows.append(row_of_eval(arguments.eval_flags, environment))
    table = tabulate(rows, COLUMNS, tablefmt="github", floatfmt=".1f", missingval="")
    sys.stdout.write(table + "\n")


if __name__ == "__main__":
    main()
