#!/usr/bin/env bash
# The trainer as one process of a run that something else starts, ends and starts again: slurm.sh, kubernetes.yaml,
# tpu_vm.sh. Usage: bash launch/train.sh FLAGS OF msddf_jax.main...
# Exit code 0: trained and evaluated. 75: told to stop by SIGTERM; the same command goes on where it was. Else: failed.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
mkfifo "$folder/pipe"
# SLURM sends SIGTERM to every program of a task: what reads along must outlive the trainer.
(trap '' TERM && exec tee "$folder/said" <"$folder/pipe") &
reader=$!
trainer="" told=""
trap 'told=1; [ -z "$trainer" ] || kill -TERM "$trainer" 2>/dev/null || true' TERM
PYTHONUNBUFFERED=1 .venv/bin/python -m msddf_jax.main "$@" >"$folder/pipe" &
trainer=$!
if [ -n "$told" ]; then kill -TERM "$trainer"; fi
code=0
while true; do
  wait "$trainer" && code=0 || code=$?
  # A signal ends `wait`, not the trainer.
  kill -0 "$trainer" 2>/dev/null || break
done
wait "$reader" || true
# A run that stops with a checkpoint exits with 0 too, as docs/howto/many_devices.md says: its words tell the two apart.
if [ "$code" = 0 ] && grep -q "Run the same command to resume" "$folder/said"; then
  exit 75
fi
# Outside of the loop (reading weights, compiling, evaluating) SIGTERM simply ends it: nothing is lost.
if [ "$code" = 143 ] && [ -n "$told" ]; then
  exit 75
fi
exit "$code"
