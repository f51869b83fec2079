# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Versions of MindSpore that are slow or were not tried: said at start, not after hours."""

from __future__ import annotations

import logging
import os
import platform
import re
from pathlib import Path

from src.model_utils.errors import InputError

logger = logging.getLogger(__name__)

RECOMMENDED = "2.8.0"
TRIED = ((2, 7), (2, 8), (2, 9), (2, 10))
# In these every convolution that is not 1x1 runs in oneDNN's reference kernel where the processor
# has AVX-512, unless oneDNN is held to AVX2: 150 to 250 times slower, with the same results.
SLOW_WITH_AVX512 = ((2, 9), (2, 10))
ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def check_mindspore(version: str, target: str) -> None:
    """Refuse a version that is known to be unusable here; warn of one that was not tried.

    Args:
        version: of MindSpore, such as "2.8.0".
        target: "CPU", "GPU" or "Ascend".

    Raises:
        InputError: this version computes very slowly on this processor.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    short = (int(found[1]), int(found[2])) if found else (0, 0)
    if short not in TRIED:
        tried = ", ".join(f"{major}.{minor}" for major, minor in TRIED)
        logger.warning(
            "MindSpore %s was not tried with this project (%s were); if something is odd, install "
            "mindspore==%s",
            version,
            tried,
            RECOMMENDED,
        )
    if target != "CPU" or short not in SLOW_WITH_AVX512:
        return
    limits = [os.environ[name].upper() for name in ISA_VARIABLES if os.environ.get(name)]
    held = bool(limits) and not any("AVX512" in limit or "AVX10" in limit for limit in limits)
    if not held and has_avx512():
        raise InputError(
            f"MindSpore {version} computes convolutions 150 times slower than it could on this "
            f"processor (AVX-512); set {ISA_VARIABLES[0]}=AVX2 in the environment before the "
            f"program starts, or install mindspore=={RECOMMENDED}"
        )


def has_avx512() -> bool:
    """Whether this machine's processor has AVX-512; False where that cannot be read."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
