# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The factor of the loss that keeps gradients in the range of half precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A static factor never changes; so large that no gradient of a step reaches it.
LARGEST = 2.0**24
FACTOR = 2.0


@dataclass
class LossScale:
    """A factor that is halved by an overflow and doubled after a time without one.

    (Micikevicius et al., ICLR 2018, section 3.2, with the rule of MindSpore's and PyTorch's
    scalers.)

    Attributes:
        value: the factor now.
        dynamic: whether it changes.
        window: steps without overflow after which it grows.
        since: steps since it changed.
        overflows: steps that were left out for it.
    """

    value: float
    dynamic: bool = True
    window: int = 1000
    since: int = 0
    overflows: int = 0

    def step(self) -> None:
        """A step without overflow."""
        self.since += 1
        if self.dynamic and self.since >= self.window and self.value < LARGEST:
            self.value, self.since = self.value * FACTOR, 0

    def overflow(self) -> bool:
        """A gradient that is not finite, of a loss that is; return whether a smaller factor helps.

        Without (a static factor, or one that is 1 already) the gradient itself is at fault.
        """
        if not self.dynamic or self.value <= 1.0:
            return False
        self.overflows += 1
        self.value, self.since = max(1.0, self.value / FACTOR), 0
        return True

    def state(self) -> dict[str, np.ndarray]:
        """For a checkpoint."""
        numbers = {"value": self.value, "since": self.since, "overflows": self.overflows}
        return {f"loss_scale_{name}": np.array(number) for name, number in numbers.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a checkpoint; one without a factor leaves what is configured."""
        if "loss_scale_value" not in state:
            return
        if self.dynamic:
            self.value = float(state["loss_scale_value"])
        self.since = int(state["loss_scale_since"])
        self.overflows = int(state["loss_scale_overflows"])
