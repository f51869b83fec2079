#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Makes or updates the project's Python environment (.venv) and nothing else.
#   bash scripts/setup_env.sh [--dev] [--gpu]
# --dev: with the tools for tests and checks
# --gpu: with CUDA 11.8 and cuDNN 8.9 for NVIDIA cards (1.7 GB to fetch, 3 GB on disk)
set -euo pipefail
# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

files=(requirements.txt)
for word in "$@"; do
  case $word in
    --dev) files+=(requirements-dev.txt) ;;
    --gpu) files+=(requirements-gpu.txt) ;;
    *)
      echo "usage: bash scripts/setup_env.sh [--dev] [--gpu]" >&2
      exit 2
      ;;
  esac
done
set_up_environment "${files[@]}"
