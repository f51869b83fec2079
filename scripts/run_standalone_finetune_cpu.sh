#!/usr/bin/env bash
# Model surgery, then fine-tuning over shots and seeds, on the CPU.
#   bash scripts/run_standalone_finetune_cpu.sh [EXP_NAME] [options] [--key=value ...]   (--help)
set -euo pipefail
# shellcheck source=scripts/lib_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_launch.sh"
launch finetune standalone CPU "$@"
