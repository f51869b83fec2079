# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The one place that chooses the device and the execution mode of MindSpore."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from src.model_utils import cuda
from src.model_utils.errors import InputError
from src.model_utils.interruption import handling
from src.model_utils.local_adapter import LauncherIds, read_launcher_ids
from src.model_utils.processes import at_death_of_parent
from src.model_utils.versions import check_mindspore

# Of an all-reduce between cards, megabytes; MindSpore's CPU backend has no fusion.
GRADIENT_BUCKETS = {"allreduce": {"mode": "size", "config": 32}}


@dataclass(frozen=True)
class Runtime:
    """Where this process runs.

    Attributes:
        target: "CPU", "GPU" or "Ascend".
        device_id: Card of this machine; 0 on CPU.
        rank: Number of this process, 0 ... world_size - 1.
        world_size: Processes in all.
        local_rank: Number of this process among those of its machine.
    """

    target: str
    device_id: int
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def start(
        cls,
        target: str = "CPU",
        *,
        device_id: int = 0,
        distribute: bool = False,
        device_num: int = 1,
        conv_allow_tf32: bool = False,
    ) -> Runtime:
        """Choose the device, join the other processes; call before the first tensor.

        In the scheduler that msrun starts beside the workers this does not return.

        Args:
            target: "CPU", "GPU" or "Ascend".
            device_id: Card of this machine; ignored on CPU, and if `distribute` (then the launcher
                gives each process its own).
            distribute: Train together with the other processes of a launcher.
            device_num: Processes that there have to be; 1 for any number.
            conv_allow_tf32: Whether convolutions on a GPU may round their inputs to TF32.

        Raises:
            InputError: If MindSpore or this machine does not have the device, its version is
                known to be slow here, or the launcher's processes and `distribute` do not go
                together.
        """
        import mindspore as ms

        check_mindspore(ms.__version__, target)
        ids = _check_launcher(distribute)
        device = 0 if target == "CPU" else device_id
        if distribute and target != "CPU":
            device = ids.device_id or 0
        if target == "GPU":
            cuda.use()
        try:
            _set_device(target, device)
            if target == "GPU":
                ms.device_context.gpu.op_precision.conv_allow_tf32(conv_allow_tf32)
            ms.set_context(mode=ms.PYNATIVE_MODE)  # only what is jitted is compiled
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"device_target {target} (device_id {device}) cannot be used here: "
                f"{_first_sentence(error)}; use --device_target=CPU, or look what "
                f"`bash scripts/check_device.sh {target}` finds"
            ) from error
        if not distribute:
            return cls(target, device)
        rank, world_size = _join(target)
        if device_num not in (1, world_size):
            raise InputError(
                f"device_num is {device_num}, but {world_size} processes were started; give the "
                "launcher and device_num the same number"
            )
        return cls(target, device, rank, world_size, ids.device_id or 0)


def _check_launcher(distribute: bool) -> LauncherIds:
    """Read the launcher's variables; refuse what would make processes work against each other."""
    ids = read_launcher_ids()
    if distribute and ids.world_size is None:
        raise InputError(
            "run_distribute is true, but no launcher started this process; use "
            "scripts/run_distribute_train_*.sh, or msrun"
        )
    if not distribute and (ids.world_size or 1) > 1:
        raise InputError(
            f"a launcher started {ids.world_size} processes (RANK_SIZE), but run_distribute is "
            "false; give --run_distribute=true, or unset RANK_SIZE and RANK_ID"
        )
    return ids


def _join(target: str) -> tuple[int, int]:
    """Find the other processes and set up data parallel training; return rank and their number."""
    import mindspore as ms
    from mindspore import communication

    try:
        # In the scheduler of msrun, init is all that ever happens.
        with _ending_at_once():
            communication.init()
        rank, world_size = communication.get_rank(), communication.get_group_size()
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the processes did not find each other: {_first_sentence(error)}; look at the other "
            "processes' logs, and whether the master's address and port can be reached"
        ) from error
    # Gradients travel in buckets, each while the backward pass works on the next one.
    fusion = {} if target == "CPU" else {"comm_fusion": GRADIENT_BUCKETS}
    ms.set_auto_parallel_context(
        parallel_mode="data_parallel", gradients_mean=True, device_num=world_size, **fusion
    )
    return rank, world_size


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """Let signals end the process inside the block, where Python cannot handle them.

    So does, on Linux, the death of the launcher, which may be killed without a chance to tell its
    workers; afterwards that counts as a SIGTERM.
    """
    with handling(signal.SIG_DFL):
        at_death_of_parent(signal.SIGKILL)
        try:
            yield
        finally:
            at_death_of_parent(signal.SIGTERM)


def _first_sentence(error: Exception) -> str:
    """What an error of MindSpore says, without its C++ call stack."""
    return (str(error).strip().split(". ")[0].splitlines() or [type(error).__name__])[0]


def _set_device(target: str, device: int) -> None:
    """Choose the device; one that is in use already may be chosen again."""
    import mindspore as ms

    try:
        ms.set_device(target, device)
    except RuntimeError as error:
        in_use = (ms.get_context("device_target"), ms.get_context("device_id"))
        if "initialized" not in str(error) or in_use != (target, device):
            raise
