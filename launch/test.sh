#!/usr/bin/env bash
# Installs into .venv and runs the tests. Arguments go to pytest: bash launch/test.sh -k losses
# EXTRAS=test,torch brings PyTorch, transformers, timm and open_clip for the tests that compare with them.
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/install.sh "${EXTRAS:-test}"
# A file at a time on each core: fixtures are shared within a file.
exec .venv/bin/python -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder "$@"
