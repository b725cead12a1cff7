#!/usr/bin/env bash
# One process a node, every GPU of the node in it; JAX finds the coordinator from SLURM's variables.
# Usage: sbatch --nodes=2 launch/slurm.sh configs/msddf.py /shared/runs/msddf
#SBATCH --job-name=msddf_jax
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
config="${1:?config file}" workdir="${2:?workdir on a file system that every node sees}"
shift 2
# SIGTERM comes two minutes before the limit: training saves, and the requeued job resumes.
exec srun --kill-on-bad-exit=1 .venv/bin/python -m msddf_jax.main --distributed --config "$config" --workdir "$workdir" "$@"
