#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Says what this machine has for a device, and whether the numbers that it computes are right.
#   bash scripts/check_device.sh [CPU|GPU|Ascend] [--device_id=N] [--conv_allow_tf32]
# Makes .venv if it is not there; CUDA for a GPU comes with: bash scripts/setup_env.sh --gpu
set -euo pipefail
# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

set_up_environment requirements.txt
exec "$VENV_PYTHON" -m src.tools.check_device "$@"
