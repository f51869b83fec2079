# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""SGD with momentum and a weight decay by kind of parameter, as Detectron2 sets it up."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops


def weight_decay_of(
    name: str, *, weight_decay: float, weight_decay_bias: float, weight_decay_norm: float
) -> float:
    """The decay of a parameter: norms have their own, then biases, then the rest.

    The affine layers are no norms: their weights decay as weights, their biases as biases.
    """
    owner, _, kind = name.rpartition(".")
    if owner.endswith("norm"):
        return weight_decay_norm
    return weight_decay_bias if kind == "bias" else weight_decay


# Mapped over the parameters: a loop in the graph takes twice as long to compile.
_step = ops.MultitypeFuncGraph("sgd_step")


@_step.register("Number", "Bool", "Tensor", "Number", "Tensor", "Tensor", "Tensor")
def _step_of_one(
    momentum: float,
    nesterov: bool,
    lr: Tensor,
    decay: float,
    weight: Tensor,
    velocity: Tensor,
    gradient: Tensor,
) -> bool:
    if decay > 0:
        gradient = gradient + decay * weight
    moved = momentum * velocity + gradient
    step = gradient + momentum * moved if nesterov else moved
    ops.assign(velocity, moved)
    ops.assign(weight, weight - lr * step)
    return True  # a map has to give something


class SGD(nn.Cell):
    """`v = momentum * v + (g + decay * w)`, then `w = w - lr * v` (or Nesterov's form).

    The first velocity is the gradient itself, as in PyTorch; it starts at 0, which is the same.

    Args:
        parameters: trainable parameters.
        decays: weight decay of each.
        momentum: as above.
        nesterov: step along `g + momentum * v`.
        in_one: one operator for the whole step, see `defrcn.kernels.KernelSGDStep`, or None.

    Inputs:
        - **gradients** (tuple of Tensor) - in the order of `parameters`.
        - **lr** (Tensor) - scalar float32.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        decays: Sequence[float],
        momentum: float,
        nesterov: bool = False,
        in_one: nn.Cell | None = None,
    ) -> None:
        super().__init__()
        self.parameters = ms.ParameterTuple(parameters)
        self.velocities = ms.ParameterTuple(
            Parameter(Tensor(np.zeros(p.shape, np.float32)), name=f"velocity.{p.name}")
            for p in parameters
        )
        self.decays = tuple(float(decay) for decay in decays)
        self.momentum = momentum
        self.nesterov = nesterov
        self.in_one = in_one

    @property
    def state(self) -> tuple[Parameter, ...]:
        """What a checkpoint has to hold."""
        return tuple(self.velocities)

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> Tensor:
        """Make one step; returns `lr`."""
        if self.in_one is not None:
            return self.in_one(lr, self.parameters, self.velocities, gradients)
        one_step = ops.Partial()(_step, self.momentum, self.nesterov, lr)
        done = ops.HyperMap()(one_step, self.decays, self.parameters, self.velocities, gradients)
        return ops.depend(lr, done)
