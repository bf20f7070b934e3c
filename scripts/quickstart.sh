#!/usr/bin/env bash
# The main job, for real: converts a slim ResNet checkpoint to PyTorch and Keras, and verifies both.
#   bash scripts/quickstart.sh [CHECKPOINT]
# Without CHECKPOINT, tf_slim writes a full-size resnet_v2_50 with random weights first. The results are in build/quickstart.
set -euo pipefail
checkpoint=${1:+$(realpath "$1" 2>/dev/null || echo "$1")}
cd "$(dirname "$0")/.."
source scripts/environment.sh all

out=build/quickstart
mkdir -p "$out"
if [ -z "$checkpoint" ]; then
  checkpoint=$out/resnet_v2_50.ckpt
  python -m scripts.make_checkpoint resnet_v2_50 "$checkpoint" --format v1
fi
run() { echo; echo "\$ $*"; "$@"; }

run slimport inspect "$checkpoint" | head -8
for suffix in safetensors keras; do
  run slimport convert "$checkpoint" "$out/model.$suffix"
  for dtype in float64 float32; do
    run slimport verify "$checkpoint" "$out/model.$suffix" --dtype "$dtype"
  done
done
