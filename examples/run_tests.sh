#!/usr/bin/env bash
# Makes a virtual environment, installs pancrafter for development, and runs every check: lint, types, layers, tests.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
bin=.venv/bin
"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
"$bin/lint-imports"
# Two tests at a time, each with one thread of arithmetic: small tensors gain nothing from a second one.
OMP_NUM_THREADS=1 "$bin/python" -m pytest -n 2 --dist worksteal "$@"
