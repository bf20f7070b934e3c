#!/usr/bin/env bash
# Builds the reference of the Python interface, build/api/index.html, in a virtual environment that it makes.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh docs

python -m scripts.api_reference build/api
