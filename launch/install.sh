#!/usr/bin/env bash
# Makes .venv in the repository root and installs the pinned packages and this project into it.
# Usage: bash launch/install.sh [EXTRAS]     extras of setup.py, by commas: test, cuda13, cuda12, tpu, torch, ...
# The word auto among them stands for the accelerator that launch/accelerator.sh finds.
# Needs Python 3.11 or newer: python3, or python3.13 to python3.11 on the path; PYTHON names another. Where there is
# none, Python 3.11 comes from apt-get or, without an administrator's rights, from uv.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-}"

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
# Debian has the module that makes environments in a package of its own.
complete() { new_enough "$1" && "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Installs Debian packages by name, if they are to be had and this user may.
apt_install() {
  command -v apt-get >/dev/null || return 1
  local sudo=""
  if [ "$(id -u)" != 0 ]; then
    sudo="$(command -v sudo)" || return 1
  fi
  # A machine that has just started may be updating itself.
  $sudo apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq -o DPkg::Lock::Timeout=300 "$@" >/dev/null
} >&2

# Prints a Python that uv brought: into the user's folder, from a wheel that needs no administrator.
python_of_uv() {
  local folder uv
  uv="$(command -v uv)" || {
    folder="$(mktemp -d)"
    python3 -m pip install --quiet --disable-pip-version-check --target "$folder" uv >&2 || return 1
    uv="$folder/bin/uv"
  }
  "$uv" python install 3.11 >&2 && UV_PYTHON_PREFERENCE=only-managed "$uv" python find 3.11
  local code=$?
  if [ -n "${folder:-}" ]; then rm -rf "$folder"; fi
  return $code
}

# Prints an interpreter to make .venv with; says on standard error which, where it is not python3.
find_python() {
  if [ -n "${PYTHON:-}" ]; then
    if ! new_enough "$PYTHON"; then
      echo "Python 3.11 or newer is needed; PYTHON=$PYTHON is $("$PYTHON" --version 2>&1)." >&2
      return 1
    fi
    echo "$PYTHON"
    return
  fi
  local name bare="" have="no python3" want=python3.11
  if command -v python3 >/dev/null; then have="$(python3 --version 2>&1)"; fi
  for name in python3 python3.13 python3.12 python3.11; do
    if complete "$name"; then
      if [ "$name" != python3 ]; then echo "$have is too old or incomplete: using $name" >&2; fi
      echo "$name"
      return
    fi
    if [ -z "$bare" ] && new_enough "$name"; then bare="$name"; fi
  done
  if [ -n "$bare" ]; then
    want="python$("$bare" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    echo "$bare lacks the modules venv and ensurepip: asking apt-get for $want-venv" >&2
  else
    echo "Python 3.11 or newer is needed and $have was found: asking apt-get for python3.11" >&2
  fi
  if apt_install "$want" "$want-venv" && complete "$want"; then
    echo "using $want from apt-get" >&2
    echo "$want"
    return
  fi
  echo "not to be had from apt-get: asking uv for Python 3.11" >&2
  if name="$(python_of_uv)" && complete "$name"; then
    echo "using $name from uv" >&2
    echo "$name"
    return
  fi
  echo "Python 3.11 or newer is needed; found: $have. Neither apt-get nor uv could bring one (what they said stands" \
    "above). Install it, with its venv module, and set PYTHON to it." >&2
  return 1
}

if [[ ",$extras," == *,auto,* ]]; then
  accelerator="$(bash launch/accelerator.sh)"
  extras=",$extras,"
  extras="${extras//,auto,/,$accelerator,}"
  extras="$(tr -s , <<<"$extras")"
  extras="${extras#,}"
  extras="${extras%,}"
fi
# pip only warns of a name that it does not know, and the accelerator would stand idle.
for extra in ${extras//,/ }; do
  if ! grep -q "^    \"$extra\": \[" setup.py; then
    known="$(sed -n '/^EXTRAS/,/^}/s/^    "\([a-z0-9]*\)": \[.*/\1/p' setup.py | paste -sd ' ')"
    echo "setup.py has no extra $extra; it has: auto (the accelerator that is found) $known" >&2
    exit 1
  fi
done
if [ ! -x .venv/bin/python ]; then
  python="$(find_python)"
fi
mkdir -p .venv
# Jobs that start at the same time install once.
exec 9>.venv/.lock
if command -v flock >/dev/null; then
  code=0
  flock --nonblock --conflict-exit-code 1 9 || code=$?
  if [ "$code" = 1 ]; then
    echo "another installation into .venv is at work: waiting for it" >&2
    flock 9
  elif [ "$code" != 0 ]; then
    echo "this file system has no locks: let one installation at a time work in this folder" >&2
  fi
fi
if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv
fi
missing=""
for extra in "" ${extras//,/ }; do
  stamp=".venv/.installed${extra:+-$extra}"
  if [ ! -e "$stamp" ] || [ requirements.lock -nt "$stamp" ] || [ setup.py -nt "$stamp" ]; then
    missing="$missing $stamp"
  fi
done
if [ -n "$missing" ]; then
  # The lock was made with Python 3.11; newer interpreters resolve the ranges of setup.py instead.
  constraint=()
  if .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
    constraint=(-c requirements.lock)
  fi
  # JAX takes one of the two only, and a driver may have been updated since.
  for pair in cuda12:cuda13 cuda13:cuda12; do
    if [[ ",$extras," == *",${pair%:*},"* && -e ".venv/.installed-${pair#*:}" ]]; then
      echo "${pair%:*} takes the place of ${pair#*:} in .venv" >&2
      .venv/bin/python -m pip uninstall --quiet --yes "jax-${pair#*:}-plugin" "jax-${pair#*:}-pjrt"
      rm ".venv/.installed-${pair#*:}"
    fi
  done
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "${constraint[@]}" -e ".${extras:+[$extras]}"
  # shellcheck disable=SC2086  # a list of names without spaces
  touch $missing
fi
# OpenCV's wheel links system libraries that a bare server lacks.
if ! .venv/bin/python -c 'import cv2' 2>/dev/null; then
  echo "OpenCV cannot load: installing the system libraries it links (libgl1, libglib2.0-0)" >&2
  apt_install libgl1 libglib2.0-0 || true
  .venv/bin/python -c 'import cv2'
fi
