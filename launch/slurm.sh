#!/usr/bin/env bash
# Training under SLURM: one process a node, with all its GPUs; JAX finds the coordinator from SLURM's variables.
# Usage, from the repository's root, on a file system that every node sees:
#   sbatch --nodes=2 launch/slurm.sh configs/msddf.py /shared/runs/msddf [--config.optim.lr=... more flags]
# What stands behind #SBATCH is changed on the command line: --gpus-per-node=4, --partition=..., --time=...; tasks of
# one node (--ntasks-per-node=2) share its GPUs evenly. On CPUs: --gpus-per-node=0.
# The job installs into .venv first, where something lacks. Nodes without a way to the package index: run
# `bash launch/install.sh cuda13` (or cuda12) before, on a machine with one. EXTRAS: what is installed; auto by default.
# Two minutes before the time limit, and at a preemption with a grace time, the processes get SIGTERM: training saves,
# and this script puts the job back into the queue, where it resumes. The same by hand: scancel --signal=TERM JOB.
# `scancel JOB` ends it for good; submitted again, the same command resumes.
#SBATCH --job-name=msddf_jax
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
# SLURM runs a copy of this file.
cd "${SLURM_SUBMIT_DIR:?this is a job: sbatch launch/slurm.sh CONFIG WORKDIR}"
if [ ! -e launch/train.sh ]; then
  echo "submit from the root of the repository: there is no launch/train.sh in $PWD" >&2
  exit 1
fi
config="${1:?config file}" workdir="${2:?workdir on a file system that every node sees, or gs:// or s3://}"
shift 2
bash launch/install.sh "${EXTRAS:-auto}"
# Where one process fails, the others say so and end by themselves (msddf_jax/cluster.py); killed, they could not.
# A step does not take the job's --cpus-per-task over since SLURM 22.05: without it, one core would feed eight GPUs.
code=0
srun --kill-on-bad-exit=0 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  bash launch/train.sh --distributed --config "$config" --workdir "$workdir" "$@" || code=$?
if [ "$code" = 75 ]; then
  echo "stopped before its end: job $SLURM_JOB_ID goes back into the queue" >&2
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
