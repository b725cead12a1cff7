#!/usr/bin/env bash
# Training on a TPU VM or a slice of many hosts: one process a host, detached from the session that starts it.
# Usage: TPU_NAME=my-slice ZONE=us-central2-b bash launch/tpu_vm.sh VERB ...     Needs gcloud with its login.
#   create [FLAGS OF gcloud]         makes the slice now (--spot, --network=...); ACCELERATOR (v4-32) and VERSION
#                                    (tpu-ubuntu2204-base; `gcloud compute tpus versions list`) say what it is
#   queue [FLAGS OF gcloud]          asks for it as a queued resource (--spot, --valid-until-duration=6h)
#   install                          sends the working tree as it is to every host, and installs there
#   train CONFIG WORKDIR [FLAGS]     starts training on every host; WORKDIR is what every host sees: gs://bucket/run
#   logs [HOST]                      follows the log of a host, 0 by default
#   stop                             SIGTERM on every host: training saves, and this waits until it has
#   resume                           the last `train` again, which goes on where it was
#   status                           of the slice and of the training on each host
#   delete [FLAGS OF gcloud]         removes the slice, and the queued resource that it came from (--quiet)
# A spot slice that was taken away: delete, queue, install, and `train` with the arguments it had.
# EXTRAS: what is installed beside tpu; gcs, for gs://, where it is not set. --config.data.data_dir is a gs:// path
# too, or a folder that every host has.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${TPU_NAME:?name of the TPU VM}" "${ZONE:?its zone}"
verb="${1:?create, queue, install, train, logs, stop, resume, status or delete}"
shift

tpu() { gcloud compute tpus "$1" "$2" "$TPU_NAME" --zone="$ZONE" "${@:3}"; }
on() { tpu tpu-vm ssh --worker="$1" --command="$2"; }
# A word for any POSIX shell, whatever is in it.
quote() { printf "'%s'" "${1//\'/\'\\\'\'}"; }
# What runs in the tree on a host, once it is there; the host fills in its own name.
# shellcheck disable=SC2016
there='cd msddf_jax 2>/dev/null && [ -e .venv/bin/python ] || { echo "$(hostname): install first" >&2; exit 1; }'

# The working tree as an archive: what git tracks and what it does not ignore, as it lies on this disk.
pack() {
  local changed name files=()
  while IFS= read -r -d '' name; do
    if [ -e "$name" ] || [ -L "$name" ]; then files+=("$name"); fi # one that was deleted is still in git's index
  done < <(git ls-files -z --cached --others --exclude-standard)
  changed="$(git status --porcelain --untracked-files=all | wc -l)"
  echo "sending ${#files[@]} files of $(git rev-parse --short HEAD); $changed not as committed" >&2
  # With the list, so that the next installation removes what is no longer there, and nothing else.
  printf '%s\0' "${files[@]}" >"$1/.sent"
  printf '%s\0' "${files[@]}" | tar -czf "$1/msddf_jax.tar.gz" --no-recursion --null -T - -C "$1" .sent
}

case "$verb" in
  create)
    tpu tpu-vm create --accelerator-type="${ACCELERATOR:?type of the slice, for example v4-32}" \
      --version="${VERSION:?runtime, for example tpu-ubuntu2204-base}" "$@"
    ;;
  queue)
    tpu queued-resources create --node-id="$TPU_NAME" \
      --accelerator-type="${ACCELERATOR:?type of the slice, for example v4-32}" \
      --runtime-version="${VERSION:?runtime, for example tpu-ubuntu2204-base}" "$@"
    ;;
  install)
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    pack "$folder"
    on all "[ ! -e msddf_jax/launch/detached.sh ] || bash msddf_jax/launch/detached.sh idle"
    gcloud compute tpus tpu-vm scp "$folder/msddf_jax.tar.gz" "$TPU_NAME:msddf_jax.tar.gz" --zone="$ZONE" --worker=all
    # Files get the time of now: whether to install is told by what is newer.
    on all "set -e; mkdir -p msddf_jax; cd msddf_jax; [ ! -e .sent ] || xargs -0 rm -f -- <.sent; \
tar -xzmf ../msddf_jax.tar.gz; bash launch/install.sh $(quote "tpu,${EXTRAS:-gcs}")"
    ;;
  train)
    words="--distributed --config $(quote "${1:?config file}") --workdir $(quote "${2:?workdir that every host sees}")"
    for word in "${@:3}"; do words+=" $(quote "$word")"; done
    on all "$there; bash launch/detached.sh start bash launch/train.sh $words"
    ;;
  stop | resume) on all "$there; bash launch/detached.sh $verb" ;;
  logs) on "${1:-0}" "$there; bash launch/detached.sh logs" ;;
  status)
    if state="$(tpu tpu-vm describe --format='value(state)')"; then
      echo "$TPU_NAME: $state"
      if [ "$state" = READY ]; then on all "$there; bash launch/detached.sh status"; fi
    else
      echo "$TPU_NAME: gcloud describes no such slice; as a queued resource:"
      tpu queued-resources describe --format='value(state.state)'
    fi
    ;;
  delete)
    if tpu queued-resources describe --format='value(state.state)' >/dev/null 2>&1; then
      tpu queued-resources delete --force "$@"
    else
      tpu tpu-vm delete "$@"
    fi
    ;;
  *)
    echo "unknown verb $verb: create, queue, install, train, logs, stop, resume, status or delete" >&2
    exit 1
    ;;
esac
