#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Builds the inference program: ascend310_infer/out/main.
#   bash ascend310_infer/build.sh [--tests] [--no-program] [--sanitize=address|thread] [--out=DIR]
#        [--check]
# --tests       the unit tests as well (needs GoogleTest)
# --no-program  only them: needs no MindSpore Lite and no gflags
# --sanitize    with address and undefined-behaviour checks, or with thread checks
# --out         folder to build in
# --check       builds nothing: says which tools or libraries of the system are missing, if any
# Without libjpeg, libpng and OpenSSL the program is built too, and refuses --bundle.
# Settings: LITE_HOME (MindSpore Lite, see below), CXX (compiler), JSON_INCLUDE_DIR (folder of
# nlohmann/json.hpp; by default the system's, or the one that MindSpore's Python package carries).
#
# LITE_HOME is the folder of either
# * the package mindspore-lite 2.0.0 from PyPI, for CPU: bash scripts/get_lite.sh fetches it, and
#   it is then found without LITE_HOME;
# * the unpacked tarball mindspore-lite-VERSION-linux-{x64,aarch64}.tar.gz of MindSpore's download
#   page, for Ascend 310/310P: one at least as new as the MindSpore that exported the model.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib_env.sh
. "$HERE/../scripts/lib_env.sh"

tests=OFF program=ON sanitize="" out=$HERE/out check_only=""
for argument in "$@"; do
  case $argument in
    --tests) tests=ON ;;
    --no-program) program=OFF ;;
    --sanitize=address | --sanitize=thread) sanitize=${argument#*=} ;;
    --check) check_only=yes ;;
    --out=?*) out=${argument#*=} ;;
    -h | --help)
      sed -n '3,21s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *)
      echo "usage: bash $0 [--tests] [--no-program] [--sanitize=address|thread] [--out=DIR] [--check]" >&2
      exit 2
      ;;
  esac
done
cxx=${CXX:-g++}

has_header() { echo "#include <$1>" | "$cxx" -x c++ -E - >/dev/null 2>&1; }

# Sets json_folder; empty if the header is nowhere.
find_json() {
  local folder
  json_folder=${JSON_INCLUDE_DIR:-}
  if [ -n "$json_folder" ]; then return; fi
  for folder in /usr/include /usr/local/include \
    "$VENV"/lib/python3*/site-packages/mindspore/include/third_party; do
    if [ -f "$folder/nlohmann/json.hpp" ]; then
      json_folder=$folder
      return
    fi
  done
}

# Ends with the names of all tools and libraries that are not there, and how to get them.
check_tools() {
  local missing=() packages=()
  need() { missing+=("$1") packages+=("$2"); }
  command -v cmake >/dev/null || need cmake cmake
  command -v ninja >/dev/null || command -v make >/dev/null || need make make
  find_json
  [ -n "$json_folder" ] || [ -n "$check_only" ] || need "nlohmann/json" nlohmann-json3-dev
  if ! command -v "$cxx" >/dev/null; then
    need "the compiler $cxx" g++
  else
    [ $program = OFF ] || has_header gflags/gflags.h || need gflags libgflags-dev
    [ $tests = OFF ] || has_header gtest/gtest.h || need GoogleTest libgtest-dev
  fi
  if [ ${#missing[@]} -gt 0 ]; then
    local list
    list=$(printf ', %s' "${missing[@]}")
    fail "not found: ${list:2}. Debian, Ubuntu: apt-get install -y ${packages[*]}"
  fi
}

# Says what a program that takes bundles lacks; it is built all the same.
check_bundle_libraries() {
  local pair missing=() packages=()
  for pair in jpeglib.h:libjpeg:libjpeg-dev png.h:libpng:libpng-dev \
    openssl/evp.h:OpenSSL:libssl-dev; do
    has_header "${pair%%:*}" && continue
    pair=${pair#*:}
    missing+=("${pair%%:*}") packages+=("${pair#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local list
  list=$(printf ', %s' "${missing[@]}")
  say "not found: ${list:2}; the program is built without --bundle. Debian, Ubuntu: apt-get install -y ${packages[*]}" >&2
}

lite_layout() { [ -f "$1/include/api/model.h" ] || [ -f "$1/include/cxx_api/model.h" ]; }

# Sets lite_home, or says how to get it.
find_lite() {
  lite_home=${LITE_HOME:-}
  if [ -n "$lite_home" ]; then
    lite_layout "$lite_home" || lite_layout "$lite_home/runtime" ||
      fail "LITE_HOME is $lite_home, which has neither include/api/model.h nor runtime/include/api/model.h; it is the folder mindspore_lite of the Python package, or that of the unpacked tarball."
    lite_home=$(cd "$lite_home" && pwd)
    return
  fi
  lite_home=$(bash "$PROJECT/scripts/get_lite.sh" --where) ||
    fail "MindSpore Lite is not there. For CPU: bash scripts/get_lite.sh. For Ascend: unpack mindspore-lite-VERSION-linux-{x64,aarch64}.tar.gz of MindSpore's download page and set LITE_HOME to its folder."
}

check_tools
check_bundle_libraries
[ -z "$check_only" ] || exit 0 # Lite and the header come with the project's own set-up
lite_home=""
[ $program = OFF ] || find_lite
generator=()
if command -v ninja >/dev/null; then generator=(-G Ninja); fi
# A folder that was set up by another generator, or for sources elsewhere, is set up anew.
rm -f "$out/CMakeCache.txt"
cmake -S "$HERE" -B "$out" "${generator[@]}" "-DCMAKE_CXX_COMPILER=$cxx" \
  "-DDEFRCN_PROGRAM=$program" "-DDEFRCN_TESTS=$tests" "-DDEFRCN_SANITIZE=$sanitize" \
  "-DLITE_HOME=$lite_home" "-DJSON_INCLUDE_DIR=$json_folder"
cmake --build "$out" --parallel "${DEFRCN_BUILD_JOBS:-2}"
[ $program = OFF ] || say "built $out/main"
[ $tests = OFF ] || say "built $out/defrcn_tests"
