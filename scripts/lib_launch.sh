# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# shellcheck shell=bash
# Sourced by the run_*.sh launchers, which only say what they are:
#
#   launch train|eval_pretrain|finetune|eval_finetune standalone|distribute Ascend|GPU|CPU "$@"
#
# Finds the interpreter; the rest is src/launch/recipes.py. Settings:
#   PYTHON        the interpreter (default: .venv of the project, else python3 of the PATH)
#   DRY_RUN, DEVICE_ID, RANK_TABLE_FILE, MPIRUN_ARGS     see there

# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

# launch STAGE MODE TARGET ARGUMENTS...: replaces this shell, so that signals and the exit status
# are the launcher's.
launch() {
  local stage=$1 mode=$2 target=$3 caller=$PWD candidate
  shift 3
  cd "$PROJECT" || exit 1
  for candidate in "$VENV_PYTHON" python3 python; do
    if [ -z "${PYTHON:-}" ] && command -v "$candidate" >/dev/null; then PYTHON=$candidate; fi
  done
  "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
    fail "${PYTHON:-python3} is no Python 3.9 or newer; run bash scripts/setup_env.sh, or set PYTHON"
  exec "$PYTHON" -m src.launch.recipes "$(basename "$0")" "$caller" "$stage" "$mode" "$target" "$@"
}
