#!/usr/bin/env bash
# Lints, type-checks and tests, in a virtual environment that it makes. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh test

ruff check .
ruff format --check .
mypy
python -m pytest --numprocesses 2 --dist worksteal "$@"
