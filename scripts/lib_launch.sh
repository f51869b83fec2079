# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# shellcheck shell=bash
# Sourced by the run_*.sh launchers, which only say what they are:
#
#   launch train|eval_pretrain|finetune|eval_finetune standalone|distribute Ascend|GPU|CPU "$@"
#
# Everything goes below checkpoints/DATASET/EXP_NAME; nothing is ever removed there. Settings:
#   DRY_RUN=1     print the commands, do nothing
#   PYTHON        the interpreter (default: .venv of the project, else python3 of the PATH)
#   DEVICE_ID     card of a standalone launcher
#   RANK_TABLE_FILE, MPIRUN_ARGS     see python -m src.launch --help

# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

CALLER_DIR=$PWD
SCRIPT=$(basename "$0")

usage() {
  cat <<USAGE
usage: bash scripts/$SCRIPT [EXP_NAME] [options] [--key=value ...]
  EXP_NAME               name of the experiment (default: defrcn)
  --dataset=coco|voc|NAME  data set (default: coco); NAME: one's own, with --config_path
  --split=1|2|3          of VOC (default: 1)
  --config_path=FILE     instead of the data set's own configuration; {shot} in it stands for K
  --checkpoints=DIR      folder of all results (default: checkpoints in the project)
USAGE
  case $STAGE in
    train) echo "  --resume=true          go on with the experiment's training" ;;
    finetune)
      cat <<USAGE
  --setting=fsod|gfsod|both  (default: both)
  --shots=1,2,3,5,10,30  (default: all of the data set)
  --seeds=0-9            fsrw: seeds of the repeats; tfa: K-shot sets (default: 0-9)
  --protocol=fsrw|tfa    (default: fsrw for fsod, tfa for gfsod)
  --base_checkpoint=PATH (default: the experiment's own), or --model_pretrained_path=PATH
  and the flags of python -m src.sweep, such as --keep_going or --keep_checkpoints=none
USAGE
      ;;
    eval_finetune)
      cat <<USAGE
  --setting=fsod|gfsod|both, --shots, --seeds, --protocol: as for fine-tuning (default: all runs
                         that have a checkpoint)
USAGE
      ;;
  esac
  if [ "$MODE" = distribute ] || [[ $STAGE == eval_* ]]; then
    cat <<USAGE
  --cards=N              cards of this machine (default: $DEFAULT_CARDS)
USAGE
  fi
  if [ "$MODE" = distribute ]; then
    cat <<USAGE
  --worker_num=N --local_worker_num=N --master_addr=IP --master_port=N --node_rank=N
                         several machines: the same on each, with its own node_rank, 0 first
  --engine=msrun|mpirun|ranktable  (default: msrun; ranktable if RANK_TABLE_FILE is set, Ascend)
USAGE
  fi
  cat <<USAGE
  --key=value            any key of the configuration, such as --solver.base_lr=0.01
Relative paths start at the project's folder. DRY_RUN=1 prints the commands only.
USAGE
}

wrong() {
  printf 'error: %s\n' "$*" >&2
  usage >&2
  exit 2
}

# Splits the command line into the launcher's own options (OPT_*), words for the cluster
# (CLUSTER) and words for the program (WORDS).
read_arguments() {
  local word value
  EXP_NAME=defrcn
  if [ $# -gt 0 ] && [[ $1 != -* ]]; then
    EXP_NAME=$1
    shift
  fi
  [[ $EXP_NAME =~ ^[A-Za-z0-9_][A-Za-z0-9_.\ +=-]*$ ]] ||
    wrong "EXP_NAME '$EXP_NAME' may hold letters, digits, spaces and _ . + = -"
  OPT_DATASET=coco OPT_SPLIT="" OPT_CONFIG="" OPT_ROOT=checkpoints OPT_SETTING=both OPT_SHOTS=""
  OPT_SEEDS="" OPT_PROTOCOL="" OPT_CARDS="" OPT_BASE="" OPT_START="" OPT_RESULT="" OPT_RESUME=""
  CLUSTER=() WORDS=()
  for word in "$@"; do
    [[ $word == --?* ]] || wrong "'$word' is not an option; write --key=value"
    value=${word#*=}
    case $word in
      --help) usage; exit 0 ;;
      --dataset=*) OPT_DATASET=$value ;;
      --split=*) OPT_SPLIT=$value ;;
      --config_path=*) OPT_CONFIG=$(from_caller "$value") ;;
      --checkpoints=*) OPT_ROOT=$value ;;
      --cards=* | --device_num=*) OPT_CARDS=$value ;;
      --worker_num=* | --local_worker_num=* | --master_addr=* | --master_port=* | --node_rank=* | \
        --engine=* | --cluster_time_out=* | --grace=*)
        CLUSTER+=("$word")
        ;;
      --setting=* | --shots=* | --seeds=* | --protocol=* | --base_checkpoint=* | \
        --model_pretrained_path=* | --result_path=* | --resume | --resume=*)
        read_stage_option "$word" "$value"
        ;;
      --device_target=* | --save_checkpoint_path=* | --eval_checkpoint_path=*)
        wrong "${word%%=*} is set by the launcher"
        ;;
      *) WORDS+=("$word") ;;
    esac
  done
  check_options
}

# read_stage_option WORD VALUE: those that only some launchers have.
read_stage_option() {
  case $STAGE:$1 in
    finetune:--setting=* | eval_finetune:--setting=*) OPT_SETTING=$2 ;;
    finetune:--shots=* | eval_finetune:--shots=*) OPT_SHOTS=$2 ;;
    finetune:--seeds=* | eval_finetune:--seeds=*) OPT_SEEDS=$2 ;;
    finetune:--protocol=* | eval_finetune:--protocol=*) OPT_PROTOCOL=$2 ;;
    finetune:--base_checkpoint=*) OPT_BASE=$2 ;;
    finetune:--model_pretrained_path=*) OPT_START=$2 ;;
    eval_pretrain:--result_path=*) OPT_RESULT=$2 ;;
    train:--model_pretrained_path=*) WORDS+=("$1") ;;
    train:--resume | train:--resume=*) OPT_RESUME=${1#--resume} ;;
    *) wrong "${1%%=*} is no option of $SCRIPT" ;;
  esac
}

# one_of NAME VALUE ALLOWED...
one_of() {
  local name=$1 value=$2 allowed
  shift 2
  for allowed in "$@"; do
    [ "$value" != "$allowed" ] || return 0
  done
  wrong "--$name=$value: give one of $*"
}

check_options() {
  local list='^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$' cards='^[1-9][0-9]*$'
  [[ $OPT_DATASET =~ ^[A-Za-z0-9][A-Za-z0-9_-]*$ ]] ||
    wrong "--dataset=$OPT_DATASET: give coco, voc or the name of one's own data"
  if [ "$OPT_DATASET" = voc ]; then
    OPT_SPLIT=${OPT_SPLIT:-1}
    one_of split "$OPT_SPLIT" 1 2 3
  else
    [ -z "$OPT_SPLIT" ] || wrong "--split goes with --dataset=voc"
  fi
  [[ $OPT_DATASET == coco || $OPT_DATASET == voc || -n $OPT_CONFIG ]] ||
    wrong "--dataset=$OPT_DATASET needs --config_path"
  one_of setting "$OPT_SETTING" fsod gfsod both
  one_of protocol "${OPT_PROTOCOL:-tfa}" fsrw tfa
  [[ -z $OPT_SHOTS || $OPT_SHOTS =~ $list ]] || wrong "--shots=$OPT_SHOTS: such as 1,2,3"
  [[ -z $OPT_SEEDS || $OPT_SEEDS =~ $list ]] || wrong "--seeds=$OPT_SEEDS: such as 0-9 or 0,1"
  [[ -z $OPT_CARDS || $OPT_CARDS =~ $cards ]] || wrong "--cards=$OPT_CARDS: give a number"
  [ -n "$OPT_ROOT" ] || wrong "--checkpoints= is empty"
  if [ "$MODE" = standalone ] && [[ $STAGE != eval_* ]]; then
    [ -z "$OPT_CARDS${CLUSTER[*]-}" ] ||
      wrong "a standalone launcher has one card; use scripts/${SCRIPT/standalone/distribute}"
  fi
  if [ "$STAGE" = finetune ] && [[ "${CLUSTER[*]-}" == *--node_rank=* ]]; then
    wrong "fine-tuning uses the cards of one machine; give each machine other --seeds"
  fi
}

# A file's name as the caller meant it: from the caller's folder if it is there.
from_caller() {
  case $1 in
    /*) echo "$1" ;;
    *)
      if [ -e "$CALLER_DIR/$1" ]; then
        echo "$CALLER_DIR/$1"
      elif [[ $1 == *\{* ]] && [ -d "$CALLER_DIR/$(dirname "$1")" ]; then
        echo "$CALLER_DIR/$1"
      else
        echo "$1"
      fi
      ;;
  esac
}

choose_python() {
  if [ -z "${PYTHON:-}" ]; then
    if [ -x "$VENV_PYTHON" ]; then
      PYTHON=$VENV_PYTHON
    else
      PYTHON=$(command -v python3 || command -v python) ||
        fail "there is no Python; run bash scripts/setup_env.sh, or set PYTHON"
    fi
  fi
  [ -n "${DRY_RUN:-}" ] || "$PYTHON" -c '
import importlib.util, sys
sys.exit(importlib.util.find_spec("mindspore") is None)' ||
    fail "$PYTHON has no MindSpore; run bash scripts/setup_env.sh, or set PYTHON"
}

# Words for src.launch that say how many processes, in START.
start_words() {
  local cards=${OPT_CARDS:-$DEFAULT_CARDS}
  START=(-m src.launch "--device_target=$TARGET")
  if [ "$MODE" = distribute ] || { [[ $STAGE == eval_* ]] && [ "$cards" -gt 1 ]; }; then
    [[ "${CLUSTER[*]-}" == *--worker_num=* ]] || START+=("--worker_num=$cards")
    START+=(${CLUSTER[@]+"${CLUSTER[@]}"})
  elif [ -n "${CLUSTER[*]-}" ]; then
    wrong "${CLUSTER[0]%%=*} needs --cards"
  fi
}

# Card of a single process, in DEVICE.
device_words() {
  DEVICE=("--device_target=$TARGET")
  if [ "$MODE" = standalone ] && [ "$TARGET" != CPU ] && [ -n "${DEVICE_ID:-}" ] &&
    [[ " ${WORDS[*]-}" != *" --device_id="* ]]; then
    DEVICE+=("--device_id=$DEVICE_ID")
  fi
}

# Replaces this shell by a command: its signals and its exit status are the launcher's.
finally() {
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@"
    printf '\n'
    exit 0
  fi
  exec "$@"
}

# Runs a command, hands signals on to it, and waits for its end.
run_step() {
  local child status
  if [ -n "${DRY_RUN:-}" ]; then
    printf '%q ' "$@"
    printf '\n'
    return 0
  fi
  set -m # with job control a background process does not ignore Ctrl-C
  "$@" &
  child=$!
  set +m
  trap 'kill -INT "$child"' INT
  trap 'kill -TERM "$child"' TERM
  trap 'kill -HUP "$child"' HUP
  while true; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  trap - INT TERM HUP
  return "$status"
}

has_checkpoint() {
  compgen -G "$(printf '%q' "$1")/ckpt_0/defrcn-*.json" >/dev/null
}

run_train() {
  if [ -n "$OPT_RESUME" ] || [[ $OPT_RESUME == =* ]]; then WORDS+=("--resume$OPT_RESUME"); fi
  if [ -z "$OPT_RESUME" ] && [ -z "${DRY_RUN:-}" ] && has_checkpoint "$BASE_DIR"; then
    fail "$BASE_DIR holds a training already; go on with it by --resume=true, or name" \
      "another EXP_NAME"
  fi
  finally "$PYTHON" "${START[@]}" "--log_dir=$BASE_DIR/logs" train.py \
    "--config_path=$BASE_CONFIG" "${DEVICE[@]}" "--save_checkpoint_path=$BASE_DIR" \
    ${WORDS[@]+"${WORDS[@]}"}
}

run_eval_pretrain() {
  finally "$PYTHON" "${START[@]}" "--log_dir=$BASE_DIR/logs" eval.py \
    "--config_path=$BASE_CONFIG" "${DEVICE[@]}" "--save_checkpoint_path=$BASE_DIR" \
    "--eval_checkpoint_path=$BASE_DIR" "--result_path=${OPT_RESULT:-$BASE_DIR/eval-$STAMP}" \
    ${WORDS[@]+"${WORDS[@]}"}
}

# Folder of a setting's runs, in NOVEL_DIR, and its protocol, in PROTOCOL.
use_setting() {
  NOVEL_DIR=$ROOT_DIR/defrcn_$1${NET}_novel$OPT_SPLIT
  PROTOCOL=${OPT_PROTOCOL:-tfa}
  if [ -z "$OPT_PROTOCOL" ] && [ "$1" = fsod ]; then PROTOCOL=fsrw; fi
}

settings() {
  if [ "$OPT_SETTING" = both ]; then echo fsod gfsod; else echo "$OPT_SETTING"; fi
}

run_finetune() {
  local setting dataset=$OPT_DATASET command=()
  [[ $dataset == coco || $dataset == voc ]] || dataset=own
  [[ $dataset != own || -n $OPT_SHOTS ]] || wrong "one's own data needs --shots"
  for setting in $(settings); do
    use_setting "$setting"
    command=("$PYTHON" -m src.launch --with_parent "--log_dir=$NOVEL_DIR/logs" src.sweep
      "--output=$NOVEL_DIR" "--dataset=$dataset" "--setting=$setting" "--protocol=$PROTOCOL")
    [ -z "$OPT_SPLIT" ] || command+=("--split=$OPT_SPLIT")
    [ -z "$OPT_SHOTS" ] || command+=("--shots=$OPT_SHOTS")
    if [ "$PROTOCOL" = fsrw ]; then
      [ -z "$OPT_SEEDS" ] || command+=("--repeats=$OPT_SEEDS")
    else
      [ -z "$OPT_SEEDS" ] || command+=("--seeds=$OPT_SEEDS")
    fi
    # {setting} in a name of one's own stands for fsod or gfsod
    [ -z "$OPT_CONFIG" ] || command+=("--config_path=${OPT_CONFIG//\{setting\}/$setting}")
    if [ -n "$OPT_START" ]; then
      command+=("--model_pretrained_path=$OPT_START")
    else
      command+=("--base_checkpoint=${OPT_BASE:-$BASE_DIR}")
    fi
    [ "$MODE" = standalone ] || distribute_words
    command+=("${DEVICE[@]}" ${WORDS[@]+"${WORDS[@]}"})
    run_step "${command[@]}" || exit $?
  done
}

# Appends to `command` how the sweep starts each training on several cards.
distribute_words() {
  local word text="" cards=${OPT_CARDS:-$DEFAULT_CARDS}
  for word in "${CLUSTER[@]+"${CLUSTER[@]}"}"; do
    case $word in --worker_num=*) cards=${word#*=} ;; esac
  done
  for word in "$PYTHON" "${START[@]}" "$PROJECT/train.py"; do
    # quoted for Python's shlex
    text+="'${word//\'/\'\"\'\"\'}' "
  done
  command+=("--train_command=${text% }" --run_distribute=true "--device_num=$cards")
}

# Prints the numbers of "0-2,5", one a line.
numbers() {
  local part
  for part in ${1//,/ }; do seq "${part%-*}" "${part#*-}"; done
}

run_eval_finetune() {
  local setting found=0
  for setting in $(settings); do
    use_setting "$setting"
    eval_setting "$setting"
  done
  [ "$found" -gt 0 ] ||
    fail "no fine-tuned checkpoint in $ROOT_DIR for these options;" \
      "run ${SCRIPT/eval/standalone} first"
}

# eval_setting SETTING: every run that has a checkpoint; counts them in `found`.
eval_setting() {
  local folder name shot set seed config
  while IFS= read -r folder; do
    name=${folder#"$NOVEL_DIR/$PROTOCOL-like/"}
    [[ $name =~ ^([0-9]+)shot_seed([0-9]+)(/repeat([0-9]+))?$ ]] || continue
    shot=${BASH_REMATCH[1]} set=${BASH_REMATCH[2]} seed=${BASH_REMATCH[4]:-${BASH_REMATCH[2]}}
    wanted "$OPT_SHOTS" "$shot" || continue
    wanted "$OPT_SEEDS" "$seed" || continue
    has_checkpoint "$folder" || continue
    found=$((found + 1))
    config=${OPT_CONFIG//\{shot\}/$shot}
    config=${config:-configs/$OPT_DATASET/defrcn_$1${NET}_novel${OPT_SPLIT}_${shot}shot.yaml}
    say "$1, $shot-shot, set $set, seed $seed: $folder"
    run_step "$PYTHON" "${START[@]}" --with_parent "--log_dir=$folder/logs" eval.py \
      "--config_path=${config//\{setting\}/$1}" "${DEVICE[@]}" "--shot_seed=$set" "--seed=$seed" \
      "--save_checkpoint_path=$folder" "--eval_checkpoint_path=$folder" \
      "--test_mindrecord_dir=$NOVEL_DIR/mindrecord/test" "--result_path=$folder/eval-$STAMP" \
      ${WORDS[@]+"${WORDS[@]}"} || exit $?
  done < <(find "$NOVEL_DIR/$PROTOCOL-like" -mindepth 1 -maxdepth 2 -type d 2>/dev/null | sort -V)
}

# wanted LIST NUMBER: whether the list is empty or holds it.
wanted() { [ -z "$1" ] || numbers "$1" | grep -qx "$2"; }

# launch STAGE MODE TARGET ARGUMENTS...
launch() {
  STAGE=$1 MODE=$2 TARGET=$3
  shift 3
  DEFAULT_CARDS=1
  if [ "$MODE" = distribute ]; then
    DEFAULT_CARDS=8
    if [ "$TARGET" = CPU ]; then DEFAULT_CARDS=2; fi
  fi
  case ${1:-} in -h | --help) usage; exit 0 ;; esac
  read_arguments "$@"
  cd "$PROJECT" || exit 1
  choose_python
  STAMP=$(date +%Y%m%d-%H%M%S)
  ROOT_DIR=$OPT_ROOT/$OPT_DATASET/$EXP_NAME
  NET="" BASE_CONFIG=$OPT_CONFIG
  if [[ $OPT_DATASET == coco || $OPT_DATASET == voc ]]; then
    NET=_r101
    BASE_CONFIG=${OPT_CONFIG:-configs/$OPT_DATASET/defrcn_det_r101_base$OPT_SPLIT.yaml}
  fi
  BASE_DIR=$ROOT_DIR/defrcn_det${NET}_base$OPT_SPLIT
  start_words
  device_words
  "run_$STAGE"
}
