#!/usr/bin/env bash
# Prints which extra of setup.py this machine's accelerator wants: cuda13, cuda12, tpu, or an empty line.
# Usage: bash launch/accelerator.sh     What was found, and why, goes to standard error.
# MSDDF_DEV: folder of the device files, /dev where it is not set.
set -euo pipefail
devices="${MSDDF_DEV:-/dev}"

found() {
  echo "accelerator: $2" >&2
  echo "$1"
  exit 0
}

# The first of the paths that a pattern gives, or nothing.
first() { compgen -G "$1" | sort -V | head -n 1 || true; }

if [ "${JAX_PLATFORMS:-}" = cpu ]; then
  found "" "none looked for, since JAX_PLATFORMS=cpu"
fi
if command -v nvidia-smi >/dev/null; then
  if ! said="$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1)"; then
    found "" "none used: nvidia-smi is there and failed: ${said%%$'\n'*}"
  fi
  driver="${said%%$'\n'*}"
  major="${driver%%.*}"
  if ! [[ "$major" =~ ^[0-9]+$ ]]; then
    found "" "none used: nvidia-smi gave no driver version but: $driver"
  fi
  count="$(grep -c . <<<"$said")"
  if ((major < 525)); then
    found "" "none used: $count NVIDIA GPU(s) with driver $driver; JAX needs 525 or newer (580 for CUDA 13): update it"
  fi
  if ((major < 580)); then
    found cuda12 "$count NVIDIA GPU(s), driver $driver: CUDA 12 (CUDA 13 needs driver 580)"
  fi
  # CUDA 13 has no code for what is older than Turing.
  oldest="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -V | head -n 1 || true)"
  if [[ "$oldest" =~ ^[0-9]+\.[0-9]+$ ]] && ((${oldest/./} < 75)); then
    found cuda12 "$count NVIDIA GPU(s), driver $driver, compute capability $oldest: CUDA 12 (CUDA 13 needs 7.5)"
  fi
  found cuda13 "$count NVIDIA GPU(s), driver $driver: CUDA 13"
fi
card="$(first "$devices/nvidia[0-9]*")"
if [ -n "$card" ]; then
  found "" "none used: $card is there, and nvidia-smi, which tells the driver's version, is not: name cuda12 or cuda13"
fi
# /dev/accel without a number is a folder of other makers' accelerators.
chip="$(first "$devices/accel[0-9]*")"
chip="${chip:-$(first "$devices/vfio/[0-9]*")}"
if [ -n "$chip" ]; then
  found tpu "TPU ($chip)"
fi
found "" "none found (no nvidia-smi, no TPU in $devices): the CPU"
