#!/usr/bin/env bash
# Trains and evaluates a small detector on generated pictures, from nothing, on a CPU.
#   bash scripts/run_demo.sh [OUTPUT_DIR]     (default: demo_output in the project)
# Makes or reuses .venv, draws the pictures, trains, evaluates, prints the results and where the
# pictures are. Every figure printed is in OUTPUT_DIR/summary.json. May be run again: pictures
# are kept, training starts anew. DEFRCN_DEMO_ARGS holds more flags for train.py and eval.py,
# such as "--solver.max_iter=200 --solver.steps=[150]".
set -euo pipefail
# shellcheck source=scripts/lib_env.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib_env.sh"

CONFIG=configs/demo/shapes_base.yaml
DEMO_MB=1000 # pictures, checkpoints and results
DEMO_MARKER=.made-by-run-demo

case "${1:-}" in
  -h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  -*)
    echo "usage: bash scripts/run_demo.sh [OUTPUT_DIR]" >&2
    exit 2
    ;;
esac
if [ $# -gt 1 ]; then
  echo "usage: bash scripts/run_demo.sh [OUTPUT_DIR]   (quote a name with spaces)" >&2
  exit 2
fi

output=${1:-$PROJECT/demo_output}
need_disk "$output" "$DEMO_MB" "the demo's output"
mkdir -p "$output" 2>/dev/null || fail "$output cannot be made; name another folder."
output=$(cd "$output" && pwd)
# An earlier run's results are removed below, so the folder has to be the demo's own.
[ -e "$output/$DEMO_MARKER" ] || [ -z "$(ls -A "$output")" ] ||
  fail "$output holds other files; name a new or empty folder."
touch "$output/$DEMO_MARKER" 2>/dev/null || fail "$output cannot be written; name another folder."

say "[1/5] Python environment"
set_up_environment requirements.txt
cd "$PROJECT"

say "[2/5] pictures"
started=$SECONDS
"$VENV_PYTHON" -m src.make_demo_data --output "$output/data/shapes" --seed 0
data_seconds=$((SECONDS - started))

read -r -a more <<<"${DEFRCN_DEMO_ARGS:-}"
flags=(
  "--config_path=$CONFIG"
  "--datasets_root=$output/data"
  "--train_mindrecord_dir=$output/mindrecord/train"
  "--test_mindrecord_dir=$output/mindrecord/test"
  "--save_checkpoint_path=$output/checkpoints"
  "--result_path=$output/results"
  "${more[@]+"${more[@]}"}"
)

rm -rf "$output/checkpoints" "$output/results" "$output"/{train,eval}.log "$output/summary.json"
say "[3/5] training"
started=$SECONDS
"$VENV_PYTHON" train.py "${flags[@]}" --test.eval_at_end=false |
  tee "$output/train.log"
train_seconds=$((SECONDS - started))

say "[4/5] evaluation on held-out pictures"
started=$SECONDS
"$VENV_PYTHON" eval.py "${flags[@]}" "--eval_checkpoint_path=$output/checkpoints/ckpt_0" |
  tee "$output/eval.log"
eval_seconds=$((SECONDS - started))

say "[5/5] results"
"$VENV_PYTHON" -m src.demo_summary --output "$output" \
  --data_seconds "$data_seconds" --train_seconds "$train_seconds" --eval_seconds "$eval_seconds"
