# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# shellcheck shell=bash
# Sourced by the other scripts: finds a Python, makes or reuses the virtual environment.
#
#   set_up_environment requirements.txt [more requirement files]
#
# leaves the interpreter of the environment in VENV_PYTHON, or ends the script with one clear
# message; where there is a C++ compiler, the kernels for CPU are in the environment too. Settings, all optional:
#   PYTHON        interpreter to make the environment with (3.9 to 3.12)
#   DEFRCN_VENV   folder of the environment (default: .venv in the project)
#   PIP_*         as pip knows them; a constraint that the machine sets stays in force

PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${DEFRCN_VENV:-$PROJECT/.venv}
VENV_PYTHON=$VENV/bin/python
ROOM_MB=5000            # the environment takes 3 GB; pip needs the packed files beside it
GPU_ROOM_MB=5000        # more, for requirements-gpu.txt
MARKER=.made-by-scripts # in an environment that these scripts made, and may make again
STAMP=.installed        # .installed-FILE is written last: which requirements are in

say() { printf '== %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints "MAJOR.MINOR.PATCH" of an interpreter; fails if it does not run.
python_version() {
  "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

# Prints why an interpreter does not serve, nothing if it does.
python_problem() {
  local version
  version=$(python_version "$1") || { echo "does not run"; return; }
  case $version in
    3.9.* | 3.10.* | 3.11.* | 3.12.*) ;;
    *) echo "is $version"; return ;;
  esac
  "$1" -c 'import venv, ensurepip' 2>/dev/null ||
    echo "is $version, without the venv module (Debian, Ubuntu: apt-get install python${version%.*}-venv)"
}

# Prints candidate interpreters, the best first; 3.11 is the one that is tested most.
python_candidates() {
  local name path
  for name in python3.11 python3.10 python3.12 python3.9 python3 python; do
    command -v "$name" || true
  done
  for name in 3.11 3.10 3.12 3.9; do
    for path in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$name."*/bin/python; do
      if [ -x "$path" ]; then echo "$path"; fi
    done
  done
}

# Sets BASE_PYTHON, or ends with a list of what was found.
find_python() {
  local candidate problem found=""
  if [ -n "${PYTHON:-}" ]; then
    problem=$(python_problem "$PYTHON")
    [ -z "$problem" ] || fail "PYTHON=$PYTHON $problem; Python 3.9 to 3.12 with venv is needed."
    BASE_PYTHON=$PYTHON
    return
  fi
  while IFS= read -r candidate; do
    problem=$(python_problem "$candidate")
    if [ -z "$problem" ]; then
      BASE_PYTHON=$candidate
      return
    fi
    found+="  $candidate $problem"$'\n'
  done < <(python_candidates)
  fail "Python 3.9 to 3.12 is needed (MindSpore has no packages for others). Found:
${found:-  no Python at all
}Install one, or name it: PYTHON=/path/to/python3.11 bash $0"
}

# Free space in MB of the disk that holds a folder (or will hold it).
free_mb() {
  local folder=$1
  while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
  if [ -n "${DEFRCN_TEST_FREE_MB:-}" ]; then
    echo "$DEFRCN_TEST_FREE_MB"
  else
    df -Pm "$folder" | awk 'NR == 2 { print $4 }'
  fi
}

# need_disk FOLDER MB WHAT-FOR
need_disk() {
  local free
  free=$(free_mb "$1")
  [ "${free:-0}" -ge "$2" ] ||
    fail "not enough disk space for $3: $2 MB are needed at $1, ${free:-0} MB are free."
}

# Prints a checksum over the requirement files, the interpreter and the environment's place.
requirements_hash() {
  "$VENV_PYTHON" - "$VENV" "$PROJECT/requirements-build.txt" "$@" <<'PYTHON'
import hashlib, sys
digest = hashlib.sha256(f"{sys.version} {sys.argv[1]}".encode("utf-8", "surrogateescape"))
for path in sys.argv[2:]:
    with open(path, "rb") as handle:
        digest.update(handle.read())
print(digest.hexdigest())
PYTHON
}

make_venv() {
  if [ -d "$VENV" ] && [ -n "$(ls -A "$VENV")" ]; then
    [ -e "$VENV/$MARKER" ] ||
      fail "$VENV is no working environment, and not one of these scripts; remove it and try again."
    say "the environment in $VENV is incomplete; making it again"
    rm -rf "$VENV"
  fi
  find_python
  need_disk "$VENV" "$ROOM_MB" "the Python environment"
  say "making an environment with $BASE_PYTHON ($(python_version "$BASE_PYTHON")) in $VENV"
  { mkdir -p "$VENV" && touch "$VENV/$MARKER"; } || fail "$VENV cannot be written."
  "$BASE_PYTHON" -m venv "$VENV" || fail "$BASE_PYTHON -m venv failed; see above."
}

# Prints the constraint files that the machine sets already, in one line.
machine_constraints() {
  local key
  if [ -n "${PIP_CONSTRAINT:-}" ]; then
    echo "$PIP_CONSTRAINT"
    return
  fi
  for key in global.constraint install.constraint; do
    "$VENV_PYTHON" -m pip config get "$key" 2>/dev/null || true
  done | tr '\n' ' '
}

# Says in one sentence why pip failed, from its log.
explain_pip_failure() {
  local log=$1
  if grep -qiE 'no space left on device|disk quota exceeded' "$log"; then
    fail "the disk is full; see $log."
  elif grep -qiE 'name resolution|name or service not known|nodename nor servname|network is unreachable|connection refused|connection broken|timed out|max retries|proxyerror|newconnectionerror' "$log"; then
    fail "the package index cannot be reached (no network, or a proxy that is not set); see $log."
  elif grep -qi 'no matching distribution found' "$log"; then
    fail "the package index cannot be reached (no network), or has no packages for this machine ($("$VENV_PYTHON" -V 2>&1), $(uname -sm)); see $log."
  fi
  fail "pip failed; see above, or $log."
}

install_requirements() {
  local log=$VENV/install.log file arguments=()
  for file in "$@"; do arguments+=(-r "$file"); done
  say "installing $*"
  # mmcv is built from source and needs an older setuptools (requirements-build.txt). Older pips
  # hand PIP_CONSTRAINT to builds, newer ones PIP_BUILD_CONSTRAINT. The names stay relative,
  # since pip splits them at spaces, and a folder's name may hold one.
  (
    cd "$PROJECT" || exit 1
    constraints=$(machine_constraints)
    export PIP_CONSTRAINT="requirements-build.txt${constraints:+ $constraints}"
    export PIP_BUILD_CONSTRAINT="requirements-build.txt${PIP_BUILD_CONSTRAINT:+ $PIP_BUILD_CONSTRAINT}"
    export PIP_RETRIES="${PIP_RETRIES:-3}" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
    set -o pipefail
    "$VENV_PYTHON" -m pip install "${arguments[@]}" 2>&1 | tee "$log"
  ) || explain_pip_failure "$log"
}

# set_up_environment REQUIREMENTS…: names of files in the project. One script at a time; others wait.
set_up_environment() {
  cd "$PROJECT" || exit 1
  if command -v flock >/dev/null && { exec {ENV_LOCK}>"$VENV.lock"; } 2>/dev/null; then
    flock -n "$ENV_LOCK" || { say "waiting for another script that makes $VENV" && flock "$ENV_LOCK"; }
    complete_environment "$@"
    exec {ENV_LOCK}>&-
  else
    complete_environment "$@"
  fi
}

complete_environment() {
  local file
  update_environment "$@"
  build_kernels
  for file in "$@"; do
    if [ "$file" = requirements-gpu.txt ]; then
      "$VENV_PYTHON" -m src.tools.link_cuda || fail "CUDA is not usable; see above."
    fi
  done
}

# Everything works without them, so nothing here ends a script.
build_kernels() {
  local look='from src.kernels import library; print("missing" if library.missing() else "")'
  if [ "$("$VENV_PYTHON" -c "$look" 2>/dev/null)" = missing ]; then
    say "building the kernels for CPU"
    "$VENV_PYTHON" -m src.tools.build_kernels --if_possible || say "going on without them"
  fi
}

update_environment() {
  local file hash room=$ROOM_MB wanted=""
  cd "$PROJECT" || exit 1
  if ! python_version "$VENV_PYTHON" >/dev/null ||
    { [ -e "$VENV/$MARKER" ] && [ ! -e "$VENV/$STAMP-requirements.txt" ]; }; then
    make_venv
  fi
  for file in "$@"; do
    hash=$(requirements_hash "$file")
    [ "$(cat "$VENV/$STAMP-$file" 2>/dev/null)" = "$hash" ] || wanted=yes
    [ "$file" != requirements-gpu.txt ] || room=$((room + GPU_ROOM_MB))
  done
  if [ -z "$wanted" ]; then
    say "using the environment in $VENV"
    return
  fi
  need_disk "$VENV" "$room" "the Python packages"
  # Not removed: an environment that was whole once is mended, not made again, if this is broken off.
  for file in "$@"; do
    [ ! -e "$VENV/$STAMP-$file" ] || echo updating >"$VENV/$STAMP-$file"
  done
  install_requirements "$@"
  for file in "$@"; do requirements_hash "$file" >"$VENV/$STAMP-$file"; done
}
