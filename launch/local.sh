#!/usr/bin/env bash
# Train on every device of this machine: one process sees them all.
# Usage: bash launch/local.sh configs/msddf.py runs/msddf [--config.optim.lr=... more flags]
set -euo pipefail
cd "$(dirname "$0")/.."
config="${1:?config file}" workdir="${2:?workdir}"
shift 2
exec .venv/bin/python -m msddf_jax.main --config "$config" --workdir "$workdir" "$@"
