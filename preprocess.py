# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Write the inputs of an exported network: python preprocess.py --config_path=FILE [--key=value …].

Pictures of the test set are resized as in evaluation, padded to --img_height x --img_width, and
written below --result_path (preprocess_Result) with a manifest; see src/export/manifest.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from src.assembly.export import prepare_inputs
from src.engine.claims import alone_in
from src.model_utils.config import config_from_arguments
from src.util import run_main, set_up_logging

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the inputs."""
    config = config_from_arguments(argv, "Write the inputs of an exported DeFRCN.")
    set_up_logging()
    folder = Path(config.result_path or "preprocess_Result")
    with alone_in(folder.parent, "preprocess.py", "result_path", name=folder.name):
        manifest = prepare_inputs(config, folder)
    logger.info("%s: %d pictures of %s", manifest.path, len(manifest.entries), manifest.dataset)
    return 0


if __name__ == "__main__":
    run_main(main)
