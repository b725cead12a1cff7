#!/usr/bin/env bash
# Install on every host of a TPU VM slice and start one process a host.
# Usage: TPU_NAME=my-slice ZONE=us-central2-b bash launch/tpu_vm.sh configs/msddf.py /mnt/shared/runs/msddf
# Needs gcloud with access to the slice; built data sets at config.data.data_dir must be readable on every host.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${TPU_NAME:?name of the TPU VM}" "${ZONE:?its zone}"
config="${1:?config file}" workdir="${2:?workdir on a file system that every host mounts}"
shift 2
on_all() { gcloud compute tpus tpu-vm ssh "$TPU_NAME" --zone "$ZONE" --worker=all --command "$1"; }
archive="$(mktemp -t msddf_jax.XXXXXX.tar.gz)"
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output "$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$TPU_NAME:msddf_jax.tar.gz" --zone "$ZONE" --worker=all
on_all "mkdir -p msddf_jax && tar -xzf msddf_jax.tar.gz -C msddf_jax && cd msddf_jax && bash launch/install.sh tpu"
flags="$(printf ' %q' "$@")"
on_all "cd msddf_jax && .venv/bin/python -m msddf_jax.main --distributed --config $(printf %q "$config") --workdir $(printf %q "$workdir")$flags"
