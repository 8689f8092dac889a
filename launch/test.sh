#!/usr/bin/env bash
# Installs the pinned test requirements and runs every test, two files at a time. Arguments are handed to pytest, e.g.
# -m "not slow", tests/models, or -n 0 for one after the other.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment test
if [ -z "$(command -v chromium chromium-browser google-chrome chrome)" ]; then  # pages are tested in a real browser
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "installing Chromium"
    { apt-get update && apt-get install --yes --no-install-recommends chromium; } > /dev/null
  else
    echo "no Chromium on the PATH: tests of pages are left out (Debian: apt install chromium)"
  fi
fi
export JAX_PLATFORMS=cpu
ruff check .
python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder --durations=10 "$@"
