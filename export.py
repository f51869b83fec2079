# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Export a checkpoint: python export.py --config_path=FILE --export_ckpt_file=CKPT [--key=value …].

Writes EXPORT_FILE_NAME.mindir (.onnx, .air) and, beside it, a .json that describes it.
docs/deployment.md has the way from here to detections of a C++ program.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from src.assembly.device import start_device
from src.assembly.export import (
    check_format,
    checkpoint_file,
    for_export,
    load_network,
    write_network,
)
from src.assembly.modelarts import copies, on_this_machine
from src.engine.run_folder import alone_in
from src.model_utils.config import Config, config_from_arguments
from src.util import run_main, set_up_logging

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Load a checkpoint and write it as one network for one input shape."""
    config = config_from_arguments(argv, "Export a DeFRCN checkpoint.")
    config = on_this_machine(config)
    set_up_logging()
    path = check_format(config)
    for_export(config)
    with alone_in(path.parent, "export.py", "export_file_name", name=path.name), copies(config):
        export(config, path)
    return 0


def export(config: Config, path: Path) -> None:
    """The work of `main`; `path` is the file to write."""
    checkpoint_file(config)
    start_device(config, alone=True)
    network, names, source = load_network(config)
    values = write_network(config, network, names, source, path)
    logger.info("%s: input %d x %d, %d classes", path, *values["input_shape"], len(names))
    for part in values["left_out"]:
        logger.info("not in the graph: %s", part)


if __name__ == "__main__":
    run_main(main)
