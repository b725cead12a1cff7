#!/usr/bin/env bash
# Train on every device of this machine: one process sees them all. Installs first what the accelerator wants, and says
# which one was found. Run again after an interruption, it resumes.
# Usage: bash launch/local.sh configs/msddf.py runs/msddf [--config.optim.lr=... more flags]
# EXTRAS: what is installed; auto (the accelerator that is found) where it is not set. JAX_PLATFORMS=cpu: on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
config="${1:?config file}" workdir="${2:?workdir}"
shift 2
bash launch/install.sh "${EXTRAS:-auto}"
exec .venv/bin/python -m msddf_jax.main --config "$config" --workdir "$workdir" "$@"
