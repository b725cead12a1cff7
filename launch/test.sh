#!/usr/bin/env bash
# Installs into .venv and runs the tests. Arguments go to pytest: bash launch/test.sh -k losses
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/install.sh test
exec .venv/bin/python -m pytest "$@"
