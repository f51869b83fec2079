"""The one place that chooses the device and the execution mode of MindSpore."""

from __future__ import annotations

from dataclasses import dataclass

from src.model_utils.errors import InputError


@dataclass(frozen=True)
class Runtime:
    """Where this process runs.

    Attributes:
        target: "CPU", "GPU" or "Ascend".
        device_id: Card of this machine; 0 on CPU.
        rank: Number of this process, 0 ... world_size - 1.
        world_size: Processes in all.
    """

    target: str
    device_id: int
    rank: int
    world_size: int

    @classmethod
    def start(
        cls,
        target: str = "CPU",
        *,
        device_id: int = 0,
        rank: int = 0,
        world_size: int = 1,
        graph_mode: bool = False,
    ) -> Runtime:
        """Choose the device and the mode; call once, before the first tensor.

        Args:
            target: "CPU", "GPU" or "Ascend".
            device_id: Card of this machine; ignored on CPU.
            rank: Number of this process.
            world_size: Processes in all; more than one is not available in this version.
            graph_mode: Compile every Cell that is called; otherwise (the default) only what is
                jitted is compiled.

        Raises:
            InputError: If MindSpore or this machine does not have the device.
        """
        import mindspore as ms

        if world_size > 1:
            raise InputError(
                f"{world_size} processes were asked for (device_num or RANK_SIZE); training on "
                "several cards is not available in this version, start one process"
            )
        device = 0 if target == "CPU" else device_id
        try:
            _set_device(target, device)
            ms.set_context(mode=ms.GRAPH_MODE if graph_mode else ms.PYNATIVE_MODE)
        except (RuntimeError, ValueError) as error:
            # The first sentence says it; MindSpore's message goes on about its C++ call stack.
            reason = str(error).strip().split(". ")[0].splitlines()[0]
            raise InputError(
                f"device_target {target} (device_id {device}) cannot be used here: {reason}; "
                "use --device_target=CPU, or install the MindSpore package and driver for it"
            ) from error
        return cls(target, device, rank, world_size)


def _set_device(target: str, device: int) -> None:
    """Choose the device; one that is in use already may be chosen again."""
    import mindspore as ms

    try:
        ms.set_device(target, device)
    except RuntimeError as error:
        in_use = (ms.get_context("device_target"), ms.get_context("device_id"))
        if "initialized" not in str(error) or in_use != (target, device):
            raise
