#!/usr/bin/env bash
# From nothing to a verdict on a video, on drawn faces: no GPU, no account, no download but the packages.
# Usage: bash launch/demo.sh [OUT]     (default: demo/; run again after an interruption, it goes on where it was)
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-demo}"
bash launch/install.sh
python=.venv/bin/python
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$(realpath -m "$out")/jax_cache}"
# Quieter libraries; what this project says is not affected.
export GRPC_VERBOSITY=ERROR GLOG_minloglevel=2 TF_CPP_MIN_LOG_LEVEL=2

step() { printf '\n== %s\n' "$1"; }

step "1/7 write the embedded data set (drawn faces, FF++ layout)"
$python -m data_prep.toy --out "$out/toy"
step "2/7 prepare: decode, align, crop"
$python -m data_prep.prepare --layout=faceforensics --root "$out/toy" \
  --methods=ToySwap,ToyReenact,ToyNeural,ToyTexture --landmarks=sidecar --num_frames=8 --size=96
step "3/7 build with TFDS"
$python -m data_prep.build faceforensics --config toy --manual_dir "$out/toy" --data_dir "$out/tfds"
step "4/7 train MSDDF on two of the four manipulations, 5/7 evaluate on all"
$python -m msddf_jax.main --config configs/msddf.py:demo --workdir "$out/workdir" --config.data.data_dir="$out/tfds"
step "6/7 score a test video, and a forgery of it by a method that the detector has not seen"
pair="$($python -c 'import json, sys; print("_".join(json.load(open(sys.argv[1]))[0]))' "$out/toy/test.json")"
real="$out/toy/original_sequences/youtube/c23/videos/${pair%_*}.mp4"
fake="$out/toy/manipulated_sequences/ToyReenact/c23/videos/$pair.mp4"
$python -m msddf_jax.predict --workdir "$out/workdir" --landmarks=sidecar --num_frames=8 --max_overlays=2 \
  --out "$out/predictions" "$real" "$fake"

step "7/7 report; what all test videos are called"
$python -m msddf_jax.report --workdir "$out/workdir" --data_dir "$out/tfds" --out "$out/report.html"

cat <<EOT

What the demo wrote:
  $out/toy              videos, masks, landmarks and prepared crops, in the FF++ layout
  $out/tfds             the built data set (array_record)
  $out/workdir          config, checkpoints, metrics.jsonl, TensorBoard files, results.json, scores/
  $out/predictions      predictions.jsonl, a timeline plot and heat-map overlays
  $out/report.html      how good, where worst, what not to conclude; then tables and curves

EOT
$python -m msddf_jax.confusion --workdir "$out/workdir" --root "$out/toy"
