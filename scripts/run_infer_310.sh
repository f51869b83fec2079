#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Evaluates an exported detector with the C++ program: preprocess, build, infer, postprocess.
#   bash scripts/run_infer_310.sh MINDIR_PATH DATA_PATH CONFIG_PATH DEVICE_TARGET \
#        [IMAGE_WIDTH] [IMAGE_HEIGHT] [DEVICE_ID]
# MINDIR_PATH    the model, as export.py wrote it (for CPU with --mindir_version=1)
# DATA_PATH      datasets_root, or the COCO folder itself
# CONFIG_PATH    the configuration (.yaml). Or an annotation file (.json) in COCO's format: DATA_PATH
#                is then the folder of its pictures, and DEFRCN_CONFIG names the configuration
# DEVICE_TARGET  CPU, GPU or Ascend
# IMAGE_WIDTH, IMAGE_HEIGHT  as at the export; if left out, or 0, the model's own
# DEVICE_ID      0 if left out
# Writes preprocess_Result, result_Files, time_Result, a log of each step and acc.log into the
# current folder, or into DEFRCN_INFER_OUTPUT. Further settings:
#   DRY_RUN=1             prints the commands and runs none
#   LITE_HOME             MindSpore Lite, see ascend310_infer/build.sh; for CPU it is fetched
#   DEFRCN_INFER_ARGS     more flags of the program, such as "--instances=2"
#   DEFRCN_CONFIG_ARGS    more flags of preprocess.py and postprocess.py, such as "--seed=1"
set -euo pipefail
# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

usage() {
  echo "usage: bash scripts/run_infer_310.sh MINDIR_PATH DATA_PATH CONFIG_PATH DEVICE_TARGET [IMAGE_WIDTH] [IMAGE_HEIGHT] [DEVICE_ID]" >&2
  exit 2
}

case "${1:-}" in
  -h | --help)
    sed -n '3,21s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
if [ $# -lt 4 ] || [ $# -gt 7 ]; then usage; fi

# Prints a path that stays right in the project's folder.
absolute() {
  case $1 in
    /*) echo "$1" ;;
    *) echo "$PWD/$1" ;;
  esac
}

# number NAME VALUE: ends unless it is one.
number() {
  [[ $2 =~ ^[0-9]{1,5}$ ]] || fail "$1 is '$2'; it is a whole number."
}

[ -f "$1" ] || fail "MINDIR_PATH: there is no file $1; export.py writes it."
[ -d "$2" ] || fail "DATA_PATH: there is no folder $2."
[ -f "$3" ] || fail "CONFIG_PATH: there is no file $3."
case $3 in
  *.yaml | *.yml | *.json) ;;
  *) fail "CONFIG_PATH is $3; it is a configuration (.yaml) or an annotation file (.json)." ;;
esac
case $4 in
  CPU | GPU | Ascend | Ascend310 | Ascend310P) ;;
  *) fail "DEVICE_TARGET is '$4'; it may be CPU, GPU or Ascend." ;;
esac
mindir=$(absolute "$1") data=$(absolute "$2") config=$(absolute "$3") device=$4
width=${5:-0} height=${6:-0} device_id=${7:-0}
number IMAGE_WIDTH "$width"
number IMAGE_HEIGHT "$height"
number DEVICE_ID "$device_id"
output=$(absolute "${DEFRCN_INFER_OUTPUT:-$PWD}")
[ "$device" = CPU ] || [ -n "${LITE_HOME:-}" ] ||
  fail "set LITE_HOME for $device: the folder of MindSpore Lite's tarball, see ascend310_infer/build.sh."
if [ -n "${LITE_HOME:-}" ]; then
  [ -d "$LITE_HOME" ] || fail "LITE_HOME: there is no folder $LITE_HOME."
  LITE_HOME=$(absolute "$LITE_HOME")
  export LITE_HOME
fi
read -r -a infer_args <<<"${DEFRCN_INFER_ARGS:-}"
read -r -a config_args <<<"${DEFRCN_CONFIG_ARGS:-}"

# Prints "HEIGHT WIDTH" of the note that export.py leaves beside the model.
size_of_model() {
  "$VENV_PYTHON" - "$mindir.json" <<'PYTHON'
import json, sys
with open(sys.argv[1], encoding="utf-8") as handle:
    print(*map(int, json.load(handle)["input_shape"][-2:]))
PYTHON
}

# Fills in a width or height of 0.
find_size() {
  local size model_height model_width
  [ "$width" = 0 ] || [ "$height" = 0 ] || return 0
  [ -f "$mindir.json" ] ||
    fail "give IMAGE_WIDTH and IMAGE_HEIGHT: $mindir.json, which says them, is missing."
  size=$(size_of_model) || fail "$mindir.json is damaged: export again, or give IMAGE_WIDTH and IMAGE_HEIGHT."
  read -r model_height model_width <<<"$size"
  [ "$width" != 0 ] || width=$model_width
  [ "$height" != 0 ] || height=$model_height
}

# Sets data_flags: which configuration and data set the two Python steps read.
find_data() {
  case $config in
    *.json)
      data_flags=(
        "--config_path=$(absolute "${DEFRCN_CONFIG:-$PROJECT/configs/coco/defrcn_det_r101_base.yaml}")"
        "--data.custom.infer.format=coco"
        "--data.custom.infer.train.annotations=$config" "--data.custom.infer.train.images=$data"
        "--data.custom.infer.test.annotations=$config" "--data.custom.infer.test.images=$data"
        "--data.test=[infer_test_all]"
      )
      ;;
    *)
      data_flags=("--config_path=$config" "--datasets_root=$data")
      if [ -d "$data/annotations" ]; then data_flags+=("--coco_root=$data"); fi
      ;;
  esac
  data_flags+=("--img_width=$width" "--img_height=$height")
  data_flags+=("${config_args[@]+"${config_args[@]}"}")
}

# step NUMBER NAME COMMAND...: into NAME.log and on the screen; ends the script if it fails.
step() {
  local number=$1 name=$2 status=0
  shift 2
  say "[$number/5] $name"
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@"
    printf '\n'
    return
  fi
  "$@" 2>&1 | tee "$output/$name.log" || status=$?
  [ "$status" = 0 ] || fail "$name failed (exit status $status); its log is $output/$name.log"
}

if [ -z "${DRY_RUN:-}" ]; then
  mkdir -p "$output" 2>/dev/null || fail "$output cannot be made; set DEFRCN_INFER_OUTPUT."
  # What is missing is said before minutes of preprocessing.
  bash "$PROJECT/ascend310_infer/build.sh" --check
  set_up_environment requirements.txt
fi
find_size
find_data
cd "$PROJECT"
if [ -z "${LITE_HOME:-}" ]; then
  step 1 get_lite bash scripts/get_lite.sh
fi
step 2 preprocess "$VENV_PYTHON" preprocess.py "${data_flags[@]}" \
  "--result_path=$output/preprocess_Result"
step 3 build bash ascend310_infer/build.sh
# Lite's warnings are about single operators; 3 keeps its errors.
export GLOG_v="${GLOG_v:-3}"
step 4 infer "$PROJECT/ascend310_infer/out/main" "--mindir_path=$mindir" \
  "--dataset_path=$output/preprocess_Result" "--result_path=$output/result_Files" \
  "--time_path=$output/time_Result" "--device_type=$device" "--device_id=$device_id" \
  "--IMAGEWIDTH=$width" "--IMAGEHEIGHT=$height" "${infer_args[@]+"${infer_args[@]}"}"
step 5 postprocess "$VENV_PYTHON" postprocess.py "${data_flags[@]}" \
  "--input_path=$output/preprocess_Result" "--result_path=$output/result_Files"
say "times: $output/time_Result/test_perform_static.txt"
