#!/usr/bin/env bash
# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
# The whole trial of the project on one device, step by step; a step that fails does not end it.
#   bash benchmarks/device.sh OUT [GPU|Ascend|CPU]
# OUT/STEP.log has what each step wrote, OUT/table.md which passed, their seconds, and all tables.
# Settings, all optional:
#   DEFRCN_VENV      folder of the environment (default: .venv; for a GPU: scripts/setup_env.sh --gpu)
#   DEFRCN_TWIN      Python of the twin's environment (benchmarks/requirements-torch.txt)
#   DEFRCN_TRIAL     the steps to do (default: all), such as "check golden"
#   DEFRCN_TRIAL_REPEATS  calls of each measurement after the first one (default: 10)
#   DEFRCN_TRIAL_STEPS  steps of the two trainings whose losses are compared (default: 200)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  sed -n '4p' "${BASH_SOURCE[0]}" | sed 's/^# *//' >&2
  exit 2
fi
mkdir -p "$1" || exit 1
out=$(cd "$1" && pwd) target=${2:-GPU}
python=${DEFRCN_VENV:-$PWD/.venv}/bin/python
steps=${DEFRCN_TRIAL:-check golden demo speed twin losses}
count=${DEFRCN_TRIAL_STEPS:-200}
[ ! -e "$out/table.md" ] || { echo "error: $out holds a trial; name another folder." >&2 && exit 1; }
rows="" tables=() wrong=0

# step NAME COMMAND…: logs and times a command; a "| table" in its output goes into the page.
step() {
  local name=$1 started=$SECONDS verdict=passed
  shift
  case " $steps " in *" $name "*) ;; *) return ;; esac
  printf '== %s: %s\n' "$name" "$*"
  "$@" >"$out/$name.log" 2>&1 || { verdict="**failed** (status $?)" && wrong=1; }
  printf '   %s, %d s\n' "$verdict" "$((SECONDS - started))"
  rows+="| $name | $verdict | $((SECONDS - started)) | $name.log |"$'\n'
  tables+=("$name")
}

# shellcheck disable=SC2317  # called by `step`
train() {
  "$python" train.py --config_path=configs/demo/shapes_base.yaml "--device_target=$1" \
    "--datasets_root=$out/data" "--train_mindrecord_dir=$out/mindrecord/train" \
    "--test_mindrecord_dir=$out/mindrecord/test" "--save_checkpoint_path=$out/losses/$2" \
    "--solver.scale_to_iter=$count" --log.period=1 --test.eval_at_end=false
}

# shellcheck disable=SC2317  # called by `step`
losses() {
  "$python" -m src.demo.make_data --output "$out/data/shapes" &&
    train "$target" device && train CPU cpu &&
    "$python" benchmarks/device.py --losses "$out/losses/device/loss_0.log" "$out/losses/cpu/loss_0.log"
}

precisions=float32,half
case $target in
  GPU) precisions=float32,TF32,half ;;
  CPU) precisions=float32 ;;
esac

step check "$python" -m src.tools.check_device "$target"
step golden env "DEFRCN_TEST_DEVICE=$target" "$python" -m pytest -q -m golden tests/golden
step demo env "DEFRCN_DEMO_ARGS=--device_target=$target" bash scripts/run_demo.sh "$out/demo"
step speed "$python" benchmarks/device.py "--device_target=$target" "--precisions=$precisions" \
  "--repeats=${DEFRCN_TRIAL_REPEATS:-10}" \
  "--json=$out/speed.json"
if [ -n "${DEFRCN_TWIN:-}" ]; then
  device=cuda
  [ "$target" != CPU ] || device=cpu
  step twin "$DEFRCN_TWIN" benchmarks/torch_twin.py time "--device=$device" \
    "--repeats=${DEFRCN_TRIAL_REPEATS:-10}"
elif [[ " $steps " == *" twin "* ]]; then
  rows+="| twin | not run: DEFRCN_TWIN names no Python | | |"$'\n'
fi
step losses losses

{
  printf '# Trial on %s\n\n| step | result | seconds | log |\n|---|---|---|---|\n%s' "$target" "$rows"
  for name in "${tables[@]}"; do
    if grep -q '^|' "$out/$name.log"; then
      printf '\n## %s\n\n' "$name"
      grep '^|' "$out/$name.log"
    fi
  done
} >"$out/table.md.part"
mv "$out/table.md.part" "$out/table.md"
cat "$out/table.md"
exit "$wrong"
