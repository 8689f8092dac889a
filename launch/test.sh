#!/usr/bin/env bash
# Installs the pinned test requirements and runs every test. Arguments are handed to pytest, e.g. -m "not slow".
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment test
export JAX_PLATFORMS=cpu
ruff check .
python -m pytest --durations=10 "$@"
