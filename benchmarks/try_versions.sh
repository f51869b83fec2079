#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Runs the tests with several MindSpore and Python versions; prints a table in Markdown.
#   bash benchmarks/try_versions.sh FOLDER [PYTHON:MINDSPORE ...] [-- arguments for pytest]
# FOLDER keeps an environment and a log for each pair. PYTHON is an interpreter, or a version such
# as 3.11 that is on the PATH or in pyenv. Without pairs: 2.7.0, 2.8.0 and 2.10.0 with Python 3.11,
# and 2.8.0 with every other Python that is found. Without arguments: all tests but the slow ones
# and those that need the official vectors. Takes minutes to an hour for each pair.
set -uo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
  sed -n '3,8s/^# //p' "${BASH_SOURCE[0]}"
  exit 2
fi
mkdir -p "$1" && place=$(cd "$1" && pwd) || exit 1
shift

# Prints the interpreter for a version or a path; fails if there is none that runs.
interpreter() {
  local path
  for path in "$1" "$(command -v "python$1")" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1."*/bin/python; do
    # pyenv's stand-ins are on the PATH for versions that are not chosen, and fail
    if [ -x "$path" ] && "$path" -c 'import venv' 2>/dev/null; then
      echo "$path"
      return
    fi
  done
  return 1
}

# environment FOLDER INTERPRETER MINDSPORE
environment() {
  [ -e "$1/.complete" ] && return
  rm -rf "$1" && "$2" -m venv "$1" || return 1
  sed "s/^mindspore==.*/mindspore==$3/" "$project/requirements.txt" >"$1/requirements.txt"
  grep -vE '^(ruff|mypy|-r)' "$project/requirements-dev.txt" >>"$1/requirements.txt"
  (
    cd "$project" || exit 1
    export PIP_CONSTRAINT=requirements-build.txt PIP_BUILD_CONSTRAINT=requirements-build.txt
    "$1/bin/python" -m pip install -q --disable-pip-version-check -r "$1/requirements.txt"
  ) >"$1/install.log" 2>&1 && touch "$1/.complete"
}

pairs=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  pairs+=("$1")
  shift
done
[ $# -gt 0 ] && shift
if [ ${#pairs[@]} -eq 0 ]; then
  pairs=(3.11:2.8.0 3.11:2.7.0 3.11:2.10.0 3.9:2.8.0 3.10:2.8.0 3.12:2.8.0)
fi
[ $# -gt 0 ] || set -- -m "not slow and not golden and not own_process" --ignore=tests/programs/test_scripts.py

status=0
printf '| Python | MindSpore | passed | failed | skipped | minutes | 3x3 convolution |\n'
printf '|---|---|---|---|---|---|---|\n'
for pair in "${pairs[@]}"; do
  version=${pair##*:}
  if ! python=$(interpreter "${pair%:*}"); then
    printf '| %s | %s | not installed here | | | | |\n' "${pair%:*}" "$version"
    continue
  fi
  found=$("$python" -c 'import platform; print(platform.python_version())')
  folder=$place/py$found-ms$version
  if ! environment "$folder" "$python" "$version"; then
    printf '| %s | %s | cannot be installed: %s | | | | |\n' "$found" "$version" "$folder/install.log"
    status=1
    continue
  fi
  started=$SECONDS
  (cd "$project" && "$folder/bin/python" -m pytest -q -p no:cacheprovider "$@") >"$folder/tests.log" 2>&1
  line=$(grep -E '[0-9]+ (passed|failed|error)' "$folder/tests.log" | tail -1)
  count() { grep -oE "[0-9]+ $1" <<<"$line" | head -1 | cut -d' ' -f1; }
  broken=$(($(count failed || true) + $(count 'errors?' || true) + 0))
  [ "$broken" -eq 0 ] || status=1
  speed=$(cd "$project" && GLOG_v=3 "$folder/bin/python" -m benchmarks.convolution 2>/dev/null | tail -1)
  printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$found" "$version" "$(count passed)" "$broken" \
    "$(count skipped)" "$(((SECONDS - started + 30) / 60))" "${speed:-failed}"
done
exit $status
