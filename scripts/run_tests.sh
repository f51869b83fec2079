#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Makes or reuses .venv and runs the tests that take no more than some minutes.
#   bash scripts/run_tests.sh [arguments for pytest]
# For example `-m golden` (equality with the official code), `-m slow`, `tests/defrcn/test_rpn.py`.
# Two tests run at a time where there are two cores and memory for them, unless files are named.
# Settings: DEFRCN_TEST_WORKERS (1: one at a time).
set -euo pipefail
# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

case "${1:-}" in
  -h | --help)
    sed -n '3,7s/^# //p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
WORKERS_MB=20000 # one worker takes up to 16 GB, for the full network's training, another one 4

# Prints how many tests to run at a time.
workers() {
  local available
  available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null)
  if [ -n "${DEFRCN_TEST_WORKERS:-}" ]; then
    echo "$DEFRCN_TEST_WORKERS"
  elif [ "$(getconf _NPROCESSORS_ONLN)" -ge 2 ] && [ "${available:-0}" -ge "$WORKERS_MB" ]; then
    echo 2
  else
    echo 1
  fi
}

set_up_environment requirements.txt requirements-dev.txt
count=$(workers)
if [ "$count" != 1 ] && { [ $# -eq 0 ] || { [ $# -eq 2 ] && [ "$1" = -m ]; }; }; then
  set -- -n "$count" --dist loadgroup --no-loadscope-reorder "$@"
fi
say "running the tests"
exec "$VENV_PYTHON" -m pytest -m "not slow" "$@"
