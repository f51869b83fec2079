#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Fetches MindSpore Lite for C++ inference on a CPU (Linux, x86-64): the package mindspore-lite
# 2.0.0 from PyPI, 169 MB, checked against its SHA-256 and unpacked to .lite in the project.
#   bash scripts/get_lite.sh [WHEEL]      WHEEL: the package as a file, for machines without network
#   bash scripts/get_lite.sh --where      prints LITE_HOME if it is there, and fetches nothing
# Prints the folder for LITE_HOME as its last line. May be interrupted and run again.
# DEFRCN_LITE_CACHE names another folder than .lite. For Ascend take MindSpore's own tarball: see
# ascend310_infer/build.sh.
set -euo pipefail
# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

VERSION=2.0.0
WHEEL_NAME=mindspore_lite-$VERSION-cp37-cp37m-manylinux1_x86_64.whl
WHEEL_SHA256=199cd0605cc985b88eddb273db9dfe9000a585ba10ca2292b6b36ebfff07b3ec
LITE_MB=700 # the package and what it unpacks to

cache=${DEFRCN_LITE_CACHE:-$PROJECT/.lite}
target=$cache/mindspore_lite-$VERSION # appears whole, by a rename
home=$target/mindspore_lite

wheel_is_good() { [ "$(sha256sum "$1" 2>/dev/null | cut -d' ' -f1)" = "$WHEEL_SHA256" ]; }

# Sets FETCH_PYTHON: any Python with pip serves, the package is not installed into it.
choose_python() {
  FETCH_PYTHON=$VENV_PYTHON
  if ! python_version "$FETCH_PYTHON" >/dev/null; then
    find_python
    FETCH_PYTHON=$BASE_PYTHON
  fi
}

# Leaves the package in $cache/download; pip keeps what it fetched of it between tries.
download() {
  local folder=$cache/download
  mkdir -p "$folder"
  wheel=$folder/$WHEEL_NAME
  if wheel_is_good "$wheel"; then return; fi
  rm -f "$wheel"
  say "fetching mindspore-lite $VERSION (169 MB)"
  PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_RESUME_RETRIES=5 \
    "$FETCH_PYTHON" -m pip download --no-deps --only-binary=:all: --python-version 37 \
    --implementation cp --abi cp37m --platform manylinux1_x86_64 --dest "$folder" \
    "mindspore-lite==$VERSION" 2>&1 | tee "$folder/pip.log" ||
    explain_pip_failure "$folder/pip.log"
  wheel_is_good "$wheel" ||
    fail "$wheel is not the file that was expected (SHA-256 $WHEEL_SHA256); remove it and try again."
}

unpack() {
  local partial
  # What an interrupted run left; a running one has its own folder for less than a minute.
  find "$cache" -maxdepth 1 -name '.unpack-*' -mmin +60 -exec rm -rf {} +
  partial=$(mktemp -d "$cache/.unpack-XXXXXX")
  # shellcheck disable=SC2064  # the folder's name as it is now
  trap "rm -rf '${partial//\'/\'\\\'\'}'" EXIT
  say "unpacking"
  "$FETCH_PYTHON" -m zipfile -e "$wheel" "$partial" || fail "$wheel cannot be unpacked to $cache."
  [ -f "$partial/mindspore_lite/include/api/model.h" ] || fail "$wheel has no headers."
  chmod 755 "$partial"
  # If another run was faster, its folder stays.
  mv -T "$partial" "$target" 2>/dev/null || [ -d "$home" ] || fail "$target cannot be written."
}

case "${1:-}" in
  -h | --help)
    sed -n '3,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  --where)
    [ -d "$home" ] || exit 1
    echo "$home"
    exit 0
    ;;
  -*)
    echo "usage: bash scripts/get_lite.sh [--where | WHEEL]" >&2
    exit 2
    ;;
esac
if [ ! -d "$home" ]; then
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "the package is for Linux on x86-64, this is $(uname -sm): take MindSpore Lite's tarball for it and set LITE_HOME to its folder."
  need_disk "$cache" "$LITE_MB" "MindSpore Lite"
  mkdir -p "$cache" 2>/dev/null || fail "$cache cannot be made; set DEFRCN_LITE_CACHE."
  choose_python
  if [ $# -gt 0 ]; then
    wheel=$1
    [ -f "$wheel" ] || fail "there is no file $wheel."
    wheel_is_good "$wheel" || fail "$wheel is not $WHEEL_NAME (SHA-256 $WHEEL_SHA256)."
  else
    download
  fi
  unpack
  rm -rf "$cache/download"
fi
echo "$home"
