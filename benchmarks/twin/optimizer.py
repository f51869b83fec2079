# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The optimizer of the `solver` section, with torch's own."""

from __future__ import annotations

import torch
from torch import nn


def make_optimizer(net: nn.Module, solver, lr: float) -> torch.optim.Optimizer:
    """SGD or AdamW over what is trained, each kind of parameter with its decay."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            owner, _, kind = name.rpartition(".")
            decay = solver.weight_decay_bias if kind == "bias" else solver.weight_decay
            decay = solver.weight_decay_norm if owner.endswith("norm") else decay
            groups.setdefault(decay, []).append(parameter)
    sections = [{"params": own, "weight_decay": decay} for decay, own in groups.items()]
    if solver.optimizer == "adamw":
        return torch.optim.AdamW(sections, lr, betas=(solver.momentum, 0.99))
    return torch.optim.SGD(sections, lr, solver.momentum, nesterov=solver.nesterov)
