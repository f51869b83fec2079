#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Trains the base detector on one Ascend card.
#   bash scripts/run_standalone_train_ascend.sh [EXP_NAME] [options] [--key=value ...]   (--help)
set -euo pipefail
# shellcheck source=scripts/lib_launch.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_launch.sh"
launch train standalone Ascend "$@"
