# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""One process of a run on ModelArts, for tests: says when it works, works as long as it is told.

    python -m tests.helpers.modelarts_process FOLDER RANK [key=value ...]

Keys: work (seconds), copy (modelarts.copy_seconds), leave (modelarts.leave_seconds), end (an exit
code, "error", or "killed" by itself), weights (URL), resume (copies results in), other (a machine
without rank 0).
"""

import logging
import os
import signal
import sys
import time
from pathlib import Path

from src.model_utils.errors import InputError
from src.model_utils.moxing_adapter import Source, Transfer, modelarts_run
from src.util import run_main

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
options = {"work": "0", "copy": "30", "leave": "10", "end": "0", "weights": ""}
options |= {"resume": "", "other": ""}
options |= dict(word.split("=", 1) for word in sys.argv[3:])


def main():
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    cache = folder / "cache"
    sources = [Source("data_url", str(folder / "obs" / "data"), cache / "data")]
    if options["weights"]:
        sources.append(Source("checkpoint_url", options["weights"], cache / "checkpoint"))
    if options["resume"]:
        url = str(folder / "obs" / "out")
        sources.append(Source("train_url", url, cache / "train", may_be_empty=True))
    transfer = Transfer(
        sources=tuple(sources),
        results=cache / "train",
        results_url=str(folder / "obs" / "out"),
        state=cache / ".copies",
        rank=rank,
        copy_seconds=float(options["copy"]),
        leave_seconds=float(options["leave"]),
        first_machine=not options["other"],
    )
    with modelarts_run(transfer):
        (cache / "train").mkdir(exist_ok=True)
        (cache / "train" / f"{rank}.txt").write_text((cache / "data" / "a.txt").read_text())
        sys.stdout.write("working\n")
        sys.stdout.flush()
        time.sleep(float(options["work"]))
        if options["end"] == "error":
            raise InputError("the loss is not finite")
        if options["end"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.stdout.write("done\n")
    return int(options["end"])


if __name__ == "__main__":
    run_main(main)
