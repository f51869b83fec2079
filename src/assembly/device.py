# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The device that a configuration names."""

from __future__ import annotations

from src.model_utils.config import Config
from src.model_utils.device_adapter import Runtime


def start_device(config: Config, *, alone: bool = False) -> Runtime:
    """Choose the device, join the other processes; call before the first tensor.

    Args:
        config: the configuration.
        alone: whether this program works by itself, whatever `run_distribute` says.

    Raises:
        InputError: as `Runtime.start`.
    """
    together = {} if alone else {"distribute": config.run_distribute}
    return Runtime.start(
        config.device_target,
        device_id=config.device_id,
        device_num=1 if alone else config.device_num,
        conv_allow_tf32=config.conv_allow_tf32,
        **together,
    )
