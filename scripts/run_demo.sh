#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# Teaches a small detector three novel classes from five objects each, on generated pictures and a
# CPU, with and without the calibration block.
#   bash scripts/run_demo.sh [--from-scratch] [--overwrite] [OUTPUT_DIR]
# OUTPUT_DIR is demo_output in the project by default. The detector of the nine base classes and the
# calibration's encoder are those in configs/demo; --from-scratch trains them too. Makes or reuses
# .venv, draws the pictures, trains, evaluates, predicts, also by the C++ program where a compiler is,
# prints the results and where the pictures are. Every figure printed is in OUTPUT_DIR/summary.json.
# An interrupted demo goes on with the step that was not finished. A finished one is kept;
# --overwrite moves it to OUTPUT_DIR.old-N, but for the drawn pictures.
# DEFRCN_DEMO_ARGS holds more flags for trainings and evaluations, such as "--seed=1";
# DEFRCN_DEMO_ENCODER_STEPS is the number of steps of the encoder, with --from-scratch.
set -euo pipefail
# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

BASE=configs/demo/shapes_base.yaml
NOVEL=configs/demo/shapes_fsod_5shot.yaml
SHIPPED_BASE=configs/demo/shapes_base.ckpt
SHIPPED_ENCODER=configs/demo/shapes_encoder.ckpt
DEMO_MB=1000 # pictures, checkpoints and results
MARKER_FILE=.made-by-run-demo # whose folder it is; locked while a demo runs in it
STEPS_FILE=steps.txt          # the settings, then a line for each finished step with its seconds
SHAPE=208 # pixels, one input shape for the exported detector: the longest side of these pictures

usage() {
  echo "usage: bash scripts/run_demo.sh [--from-scratch] [--overwrite] [OUTPUT_DIR]" \
    "(quote a name with spaces)" >&2
  exit 2
}

overwrite="" scratch="" output=""
for word in "$@"; do
  case $word in
    -h | --help)
      sed -n '3,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --overwrite) overwrite=yes ;;
    --from-scratch) scratch=yes ;;
    -*) usage ;;
    *)
      [ -z "$output" ] || usage
      output=$word
      ;;
  esac
done
output=${output:-$PROJECT/demo_output}
settings="settings${scratch:+ --from-scratch} ${DEFRCN_DEMO_ARGS:-} ${DEFRCN_DEMO_ENCODER_STEPS:-}"

# Makes the folder and keeps other demos out of it, as long as this one or a step of it runs.
claim() {
  mkdir -p "$output" 2>/dev/null || fail "$output cannot be made; name another folder."
  output=$(cd "$output" && pwd -P)
  [ -e "$output/$MARKER_FILE" ] || [ -z "$(ls -A "$output")" ] ||
    fail "$output holds other files; name a new or empty folder."
  touch "$output/$MARKER_FILE" 2>/dev/null || fail "$output cannot be written; name another folder."
  exec 9<>"$output/$MARKER_FILE"
  if command -v flock >/dev/null && ! flock -n 9; then
    fail "$output is in use by another demo (process $(cat "$output/$MARKER_FILE")) or a step of it;" \
      "wait for its end, or name another folder."
  fi
  echo "$$" >"$output/$MARKER_FILE"
}

# Refuses what another demo left, unless it can be gone on with or is to be moved away.
look() {
  local found ways="name another folder, or add --overwrite, which moves it to $output.old-N"
  [ -z "$overwrite" ] || return 0
  if [ -e "$output/summary.json" ]; then
    found=$(date -r "$output/summary.json" '+%Y-%m-%d %H:%M')
    fail "$output holds a finished demo (summary.json of $found); $ways."
  fi
  [ -e "$output/$STEPS_FILE" ] || return 0
  found=$(head -n 1 "$output/$STEPS_FILE")
  [ "$found" = "$settings" ] ||
    fail "$output holds an interrupted demo with other settings ($found); set these, $ways."
}

# The folder as a whole, so that its results stay together; pictures are used again.
move_away() {
  local number=1 name
  [ -e "$output/$STEPS_FILE" ] || [ -e "$output/checkpoints" ] || return 0 # nothing but pictures
  while [ -e "$output.old-$number" ]; do number=$((number + 1)); done
  mv "$output" "$output.old-$number"
  mkdir "$output"
  for name in data mindrecord; do
    if [ -e "$output.old-$number/$name" ]; then mv "$output.old-$number/$name" "$output/"; fi
  done
  say "the demo that was here is in $output.old-$number now"
  touch "$output/$MARKER_FILE"
  claim
}

if [ -z "$scratch" ] && [ -n "${DEFRCN_DEMO_ENCODER_STEPS:-}" ]; then
  fail "DEFRCN_DEMO_ENCODER_STEPS goes with --from-scratch: without it no encoder is trained."
fi
need_disk "$output" "$DEMO_MB" "the demo's output"
claim
look

read -r -a more <<<"${DEFRCN_DEMO_ARGS:-}"
more=("--datasets_root=$output/data" "${more[@]+"${more[@]}"}")
base_weights=$SHIPPED_BASE encoder=$SHIPPED_ENCODER
if [ -n "$scratch" ]; then
  base_weights=$output/checkpoints/base/ckpt_0 encoder=$output/checkpoints/encoder.ckpt
fi
base_flags=(
  "--config_path=$BASE"
  "--train_mindrecord_dir=$output/mindrecord/base/train"
  "--test_mindrecord_dir=$output/mindrecord/base/test"
  "--save_checkpoint_path=$output/checkpoints/base"
  "${more[@]}"
)
novel_flags=(
  "--config_path=$NOVEL"
  "--train_mindrecord_dir=$output/mindrecord/novel/train"
  "--test_mindrecord_dir=$output/mindrecord/novel/test"
  "--save_checkpoint_path=$output/checkpoints/novel"
  "--pcb_modelpath=$encoder"
  "${more[@]}"
)

novel_weights=$output/checkpoints/novel/ckpt_0

draw() { "$VENV_PYTHON" -m src.demo.make_data --output "$output/data/shapes" --seed 0; }

train_base() {
  "$VENV_PYTHON" train.py "${base_flags[@]}" --test.eval_at_end=false --resume=true |
    tee -a "$output/train_base.log"
}

# evaluate NAME WEIGHTS FLAGS...: results/NAME and eval_NAME.log
evaluate() {
  local name=$1 weights=$2
  shift 2
  "$VENV_PYTHON" eval.py "$@" "--eval_checkpoint_path=$weights" \
    "--result_path=$output/results/$name" | tee "$output/eval_$name.log"
}

operate() {
  "$VENV_PYTHON" -m src.tools.draw_kshot "--config_path=$BASE" --shots 5 --seeds 3 "${more[@]}"
  "$VENV_PYTHON" -m src.model_surgery "--dataset=$BASE" --method=remove \
    "--src-path=$base_weights" "--save-dir=$output/checkpoints" "${more[@]}"
}

train_encoder() {
  "$VENV_PYTHON" -m src.tools.pretrain_encoder --output "$encoder" \
    "--steps=${DEFRCN_DEMO_ENCODER_STEPS:-400}" "${base_flags[@]}" | tee "$output/encoder.log"
}

train_novel() {
  "$VENV_PYTHON" train.py "${novel_flags[@]}" --test.eval_at_end=false --resume=true \
    "--model_pretrained_path=$output/checkpoints/model_reset_remove.ckpt" |
    tee -a "$output/train_novel.log"
}

predict() {
  "$VENV_PYTHON" -m src.demo.make_data --output "$output/data/new" --seed 1 --train 1 --test 12
  "$VENV_PYTHON" -m src.predict "${novel_flags[@]}" \
    "--eval_checkpoint_path=$novel_weights" \
    "--input_path=$output/data/new/images/test" "--result_path=$output/predictions"
}

# The base detector once more, exported, by the C++ program.
deploy() {
  local why
  if ! why=$(bash ascend310_infer/build.sh --check 2>&1); then
    say "left out: $why"
    return
  fi
  if ! bash scripts/get_lite.sh; then
    say "left out: MindSpore Lite could not be fetched; scripts/get_lite.sh says why"
    return
  fi
  "$VENV_PYTHON" export.py "${base_flags[@]}" "--img_height=$SHAPE" "--img_width=$SHAPE" \
    --mindir_version=1 "--export_ckpt_file=$base_weights" \
    "--export_file_name=$output/inference/base"
  DEFRCN_INFER_OUTPUT="$output/inference" DEFRCN_CONFIG_ARGS="${DEFRCN_DEMO_ARGS:-}" \
    bash scripts/run_infer_310.sh "$output/inference/base.mindir" "$output/data" "$BASE" CPU
}

# step NUMBER NAME TITLE COMMAND...: unless an interrupted demo has finished it; times it.
step() {
  local name=$2 started=$SECONDS
  say "[$1/11] $3"
  shift 3
  if grep -q "^$name " "$output/$STEPS_FILE"; then
    say "finished before"
    return
  fi
  "$@"
  echo "$name $((SECONDS - started))" >>"$output/$STEPS_FILE"
}

# learn NUMBER NAME TITLE COMMAND...: a step whose result the project ships.
learn() {
  if [ -n "$scratch" ]; then
    step "$@"
  else
    say "[$1/11] $3: left out, as configs/demo has it; --from-scratch does it"
  fi
}

say "[1/11] Python environment"
set_up_environment requirements.txt
cd "$PROJECT"
if [ -n "$overwrite" ]; then move_away; fi
[ -e "$output/$STEPS_FILE" ] || echo "$settings" >"$output/$STEPS_FILE"
step 2 data "pictures" draw
learn 3 train "training on nine base classes" train_base
step 4 eval "evaluation on held-out pictures" evaluate base "$base_weights" "${base_flags[@]}"
step 5 surgery "five objects of each novel class; model surgery" operate
learn 6 encoder "encoder of the calibration block, on objects of the base classes" train_encoder
step 7 finetune "fine-tuning on the novel classes" train_novel
step 8 eval_novel "evaluation without calibration" \
  evaluate novel "$novel_weights" "${novel_flags[@]}" --test.pcb.enable=false
step 9 eval_novel_pcb "evaluation with calibration, and a report" \
  evaluate novel_pcb "$novel_weights" "${novel_flags[@]}" --test.report=true
step 10 predict "predictions on new pictures" predict
step 11 deploy "export, and evaluation of the base detector by the C++ program" deploy
say "results"
"$VENV_PYTHON" -m src.demo.summary --output "$output"
