# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Export a checkpoint: python export.py --config_path=FILE --export_ckpt_file=CKPT [--key=value …].

Writes EXPORT_FILE_NAME.mindir (.onnx, .air) and, beside it, a .json that describes it. With
--bundle=NAME instead the folder NAME and NAME.tar, which hold all that detection needs.
docs/deployment.md has the way from here to detections of a C++ program.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from src.assembly.bundle import check_bundle, write_bundle
from src.assembly.device import start_device
from src.assembly.export import (
    check_format,
    checkpoint_file,
    for_export,
    load_network,
    write_network,
)
from src.assembly.modelarts import copies, on_this_machine
from src.engine.claims import alone_in
from src.export.bundle_files import bundle_place, tar_of
from src.model_utils.config import Config, config_from_arguments
from src.util import run_main, set_up_logging

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Load a checkpoint and write it as one network for one input shape."""
    config = config_from_arguments(argv, "Export a DeFRCN checkpoint.")
    config = on_this_machine(config)
    set_up_logging()
    file = check_format(config)
    for_export(config)
    path = bundle_place(config.bundle) if config.bundle else file
    key = "bundle" if config.bundle else "export_file_name"
    with alone_in(path.parent, "export.py", key, name=path.name), copies(config):
        (export_bundle if config.bundle else export)(config, path)
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


def export_bundle(config: Config, path: Path) -> None:
    """The same for a bundle; `path` is its folder."""
    check_bundle(config)
    start_device(config, alone=True)
    values = write_bundle(config, path)
    shape, calibration = values["input"], values["calibration"]
    logger.info(
        "%s and %s: input %d x %d, %d classes, %s",
        path,
        tar_of(path).name,
        shape["height"],
        shape["width"],
        len(values["classes"]),
        f"{sum(calibration['calibrated'])} of them calibrated" if calibration else "not calibrated",
    )


if __name__ == "__main__":
    run_main(main)
