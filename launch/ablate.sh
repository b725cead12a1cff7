#!/usr/bin/env bash
# The ablation from nothing to its table, on generated faces. Usage: bash launch/ablate.sh [OUT] [FLAGS...]
# (default: ablation/; FLAGS go to benchmarks.ablation; run again after an interruption, it goes on where it was)
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-ablation}"
shift || true
bash launch/install.sh "${EXTRAS:-auto}"
python=.venv/bin/python
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$(realpath -m "$out")/jax_cache}"
export GRPC_VERBOSITY=ERROR GLOG_minloglevel=2 TF_CPP_MIN_LOG_LEVEL=2
$python -m data_prep.toy --out "$out/toy" --compressions=c23,c40
for compression in c23 c40; do
  $python -m data_prep.prepare --layout=faceforensics --root "$out/toy" --compression="$compression" \
    --methods=ToySwap,ToyReenact,ToyNeural,ToyTexture --landmarks=sidecar --num_frames=8 --size=96
done
$python -m data_prep.build faceforensics --config toy --manual_dir "$out/toy" --data_dir "$out/tfds"
$python -m data_prep.build faceforensics --config toy_c40 --manual_dir "$out/toy" --data_dir "$out/tfds"
$python -m benchmarks.ablation --out "$out" --data_dir "$out/tfds" "$@"
