#!/usr/bin/env bash
# Makes or reuses .venv and runs the tests that take no more than some minutes.
#   bash scripts/run_tests.sh [arguments for pytest]
# For example `-m golden` (equality with the official code), `-m slow`, `tests/test_scripts.py`.
set -euo pipefail
# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

case "${1:-}" in
  -h | --help)
    sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
set_up_environment requirements.txt requirements-dev.txt
say "running the tests"
exec "$VENV_PYTHON" -m pytest -m "not slow" "$@"
