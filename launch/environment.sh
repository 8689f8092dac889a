# Sourced by the other scripts: goes to the repository's root and makes .venv with what setup.py asks for, in the
# versions of launch/constraints.txt.
# usage: environment [EXTRA]
# shellcheck shell=bash
environment() {
  local extra="${1:-}" python stamp versions
  cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
  if [ ! -x .venv/bin/pip ]; then
    for python in python3 python3.13 python3.12 python3.11 none; do
      "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    done
    if [ "$python" = none ]; then
      echo "groupvit: Python 3.11 or newer with its venv module is needed (Debian: apt install python3-venv)" >&2
      exit 2
    fi
    "$python" -m venv --clear .venv
  fi
  stamp=".venv/installed-${extra:-core}"
  versions=$(cat setup.py launch/constraints.txt | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$versions" ]; then
    echo "installing into .venv (a minute or two the first time)"
    .venv/bin/pip install --quiet --disable-pip-version-check --constraint launch/constraints.txt \
      --editable ".${extra:+[$extra]}"
    echo "$versions" > "$stamp"
  fi
  PATH="$PWD/.venv/bin:$PATH"
}
