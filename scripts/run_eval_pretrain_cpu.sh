#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Evaluates the base detector of an experiment on the CPU.
#   bash scripts/run_eval_pretrain_cpu.sh [EXP_NAME] [options] [--key=value ...]   (--help)
set -euo pipefail
# shellcheck source=scripts/lib_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_launch.sh"
launch eval_pretrain standalone CPU "$@"
