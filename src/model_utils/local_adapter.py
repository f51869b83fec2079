# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What a launcher tells a process through the environment: its rank, their number, its card.

`msrun` and `mindspore.communication` set RANK_ID, RANK_SIZE and DEVICE_ID; under msrun's dynamic
cluster the number of processes is MS_WORKER_NUM, and MS_NODE_ID may stand in for RANK_ID. Open
MPI's `mpirun` has names of its own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from src.model_utils.errors import InputError


@dataclass(frozen=True)
class LauncherIds:
    """Numbers from the environment; None where the launcher said nothing."""

    rank: int | None
    world_size: int | None
    device_id: int | None


def read_launcher_ids() -> LauncherIds:
    """Read the launcher's variables from the environment.

    Raises:
        InputError: If a variable is no number, or the rank is not below the number of processes.
    """
    rank = _number("RANK_ID", "MS_NODE_ID", "OMPI_COMM_WORLD_RANK")
    world_size = _number("RANK_SIZE", "MS_WORKER_NUM", "OMPI_COMM_WORLD_SIZE")
    if world_size is not None and not (rank or 0) < world_size:
        raise InputError(
            f"the environment says rank {rank or 0} of {world_size} processes; "
            "unset RANK_ID and RANK_SIZE or let msrun set them"
        )
    device_id = _number("DEVICE_ID", "OMPI_COMM_WORLD_LOCAL_RANK")
    return LauncherIds(rank, world_size, device_id)


def _number(*names: str) -> int | None:
    for name in names:
        text = os.environ.get(name, "").strip()
        if text:
            if not text.isdecimal():
                raise InputError(f"the environment variable {name} is '{text}', not a number")
            return int(text)
    return None
