# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Judge what the inference program left: python postprocess.py --config_path=FILE [--key=value …].

Reads --input_path (preprocess_Result) and --result_path (result_Files), which gets acc.log and the
folder evaluation; tables and files are those of eval.py. --test.pcb.enable=true calibrates.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from src.assembly.device import start_device
from src.assembly.export import judge_results
from src.engine.claims import alone_in
from src.model_utils.config import config_from_arguments, require_path
from src.util import run_main, set_up_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Check the results, evaluate them and print the tables."""
    config = config_from_arguments(argv, "Evaluate the results of an exported DeFRCN.")
    set_up_logging()
    inputs = require_path(
        "input_path",
        config.input_path or "preprocess_Result",
        "give the folder that preprocess.py wrote",
        kind="folder",
    )
    results = require_path(
        "result_path",
        config.result_path or "result_Files",
        "give the folder that the inference program wrote",
        kind="folder",
    )
    start_device(config, alone=True)
    program = "postprocess.py"
    # nor may the inference program write while its results are judged
    judged = alone_in(results, program, "result_path")
    with judged, alone_in(results, program, "result_path", name="evaluation"):
        text = judge_results(config, inputs, results)
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    run_main(main)
