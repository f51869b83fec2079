#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Makes or updates the project's Python environment (.venv) and nothing else.
#   bash scripts/setup_env.sh [--dev]      --dev: with the tools for tests and checks
set -euo pipefail
# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

case "${1:-}" in
  "") set_up_environment requirements.txt ;;
  --dev) set_up_environment requirements.txt requirements-dev.txt ;;
  *)
    echo "usage: bash scripts/setup_env.sh [--dev]" >&2
    exit 2
    ;;
esac
