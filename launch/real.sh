#!/usr/bin/env bash
# The table on real faces, from the material's folders. Usage: bash launch/real.sh MATERIAL [OUT] [FLAGS...]
# MATERIAL holds ffpp_crops/ and dfdc_faces/, each with crops and label lists (FF_train.txt, FF_val.txt, FF_test.txt;
# DFDC_test.txt), and weight files, such as clip_b16.safetensors: docs/results/real_faces.md says what they are. FLAGS go
# to benchmarks.real: --rows, --seeds, --leave_out, --steps, --tested. Run again after an interruption, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
material="${1:?folder of the material}" out="${2:-real}"
shift
shift || true
bash launch/install.sh "${EXTRAS:-auto}"
python=.venv/bin/python
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$(realpath -m "$out")/jax_cache}"
export GRPC_VERBOSITY=ERROR GLOG_minloglevel=2 TF_CPP_MIN_LOG_LEVEL=2
for name in ffpp_crops dfdc_faces; do
  if [ ! -e "$out/$name/built" ]; then
    $python -m data_prep.prepare --layout=sjedd --config=list --root "$material/$name" --out "$out/$name"
    $python -m data_prep.build sjedd --config list --manual_dir "$out/$name" --data_dir "$out/$name/tfds"
    touch "$out/$name/built"
  fi
done
$python -m benchmarks.real --data_dir="$out/ffpp_crops/tfds" --dfdc_dir="$out/dfdc_faces/tfds" \
  --weights="$material" --out="$out/runs" "$@"
