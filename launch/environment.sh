# Sourced by the other scripts: goes to the repository's root and makes .venv with what setup.py asks for.
# usage: environment [EXTRA]
environment() {
  local extra="${1:-}" python stamp
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  python="$(command -v python3.13 || command -v python3.12 || command -v python3.11 || command -v python3 || true)"
  if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "groupvit: Python 3.11 or newer is needed; install it and run this again" >&2
    exit 2
  fi
  [ -x .venv/bin/python ] || "$python" -m venv .venv || { echo "groupvit: no .venv: install python3-venv" >&2; exit 2; }
  stamp=".venv/installed-${extra:-core}"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$(cksum setup.py)" ]; then
    echo "installing into .venv (a minute or two the first time)"
    .venv/bin/pip install --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}"
    cksum setup.py > "$stamp"
  fi
  PATH="$PWD/.venv/bin:$PATH"
}
