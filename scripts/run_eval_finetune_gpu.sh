#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Evaluates the fine-tuned detectors of an experiment on one GPU.
#   bash scripts/run_eval_finetune_gpu.sh [EXP_NAME] [options] [--key=value ...]   (--help)
set -euo pipefail
# shellcheck source=scripts/lib_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_launch.sh"
launch eval_finetune standalone GPU "$@"
