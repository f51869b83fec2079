# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Configuration keys and values that there were once, and what to write instead of them."""

from __future__ import annotations

from collections.abc import Mapping

#: By dotted key, or by `key=value` where only that value is gone.
REMOVED: Mapping[str, str] = {
    "watch.summary": (
        "MindSpore's own summary files are no longer written; take the key out, and set "
        "watch.tensorboard for curves"
    ),
    "test.pcb.modeltype": (
        "the kind of the encoder is seen from its file; take the key out, and name another one "
        "than pcb_modelpath in test.pcb.encoder"
    ),
    "model.backbone.norm=GN": (
        "group normalisation is no longer there; write BN to train from scratch, with several "
        "pictures a step, or FrozenBN with pre-trained weights"
    ),
}


def removal(key: str, value: object) -> str | None:
    """What to write instead of a removed key, or of a removed value of a key; else None."""
    return REMOVED.get(key) or REMOVED.get(f"{key}={value}")
