#!/usr/bin/env bash
# Installs the pinned test requirements and runs every test. Arguments are handed to pytest, e.g. -m "not slow".
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
python -m pytest --durations=10 "$@"
