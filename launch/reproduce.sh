#!/usr/bin/env bash
# From built data sets to the cross-data-set table: every config, three seeds, every test set that is built.
# Usage: bash launch/reproduce.sh DATA_DIR OUT [--configs=configs/msddf.py,...] [--sets=celebdf_v2,...] [--seeds=3]
# With --protocol=logo: on each manipulation of a set (--set=faceforensics/c23), left out of training in turn.
# With --protocol=gf, gfq or gfd (Celeb-DF++), df40_1 to df40_4 (DF40): as published; see benchmarks/protocols.py.
# Run again after an interruption or when another data set has been built: only what is missing is run.
# Beside published figures, afterwards: python -m benchmarks.cross_dataset --out OUT --table --against=published
set -euo pipefail
cd "$(dirname "$0")/.."
data="${1:?folder of built data sets (--data_dir of data_prep.build)}" out="${2:?folder for the runs}"
shift 2
bash launch/install.sh "${EXTRAS:-auto}"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$(realpath -m "$out")/jax_cache}"
python=.venv/bin/python
flags=() program=benchmarks.cross_dataset
for flag in "$@"; do
  case "$flag" in
    --protocol=logo) program=benchmarks.leave_one_out ;;
    --protocol=*) program=benchmarks.protocols && flags+=("$flag") ;;
    *) flags+=("$flag") ;;
  esac
done
if [ "$program" != benchmarks.cross_dataset ]; then
  exec $python -m $program --data_dir="$data" --out="$out" "${flags[@]}"
fi
$python -m benchmarks.cross_dataset --data_dir="$data" --out="$out" "$@"
mapfile -t workdirs < <(find "$out" -mindepth 3 -maxdepth 3 -path '*/0/results.json' -printf '%h\n' | sort)
$python -m msddf_jax.report "${workdirs[@]/#/--workdir=}" --out "$out/report.html" --data_dir "$data"
