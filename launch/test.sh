#!/usr/bin/env bash
# Installs into .venv and runs the tests. Arguments go to pytest: bash launch/test.sh -k losses
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/install.sh test
# A file at a time on each core: fixtures are shared within a file.
exec .venv/bin/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder "$@"
