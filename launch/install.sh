#!/usr/bin/env bash
# Makes .venv in the repository root and installs the pinned packages and this project into it.
# Usage: bash launch/install.sh [test]
set -euo pipefail
cd "$(dirname "$0")/.."
extra="${1:-}"
python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "Python 3.11 or newer is needed; $("$python" --version) was found. Set PYTHON to another interpreter." >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=".venv/.installed${extra:+-$extra}"
if [ ! -e "$stamp" ] || [ requirements.lock -nt "$stamp" ] || [ setup.py -nt "$stamp" ]; then
  # The lock was made with Python 3.11; newer interpreters resolve the ranges of setup.py instead.
  constraint=()
  if .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    constraint=(-c requirements.lock)
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "${constraint[@]}" -e ".${extra:+[$extra]}"
  touch "$stamp"
fi
# OpenCV's wheel links system libraries that a bare server lacks.
if ! .venv/bin/python -c 'import cv2' 2>/dev/null; then
  echo "OpenCV cannot load: installing the system libraries it links (libgl1, libglib2.0-0)" >&2
  if command -v apt-get >/dev/null; then
    sudo="$(command -v sudo || true)"
    [ "$(id -u)" = 0 ] && sudo=""
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq libgl1 libglib2.0-0 >/dev/null
  fi
  .venv/bin/python -c 'import cv2'
fi
