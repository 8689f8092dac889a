#!/usr/bin/env bash
# A pod on one machine: N processes that join each other and train on the CPU, by the code path of a real pod.
# usage: launch/local_pod.sh N CONFIG [flags of groupvit train]      --workdir is runs/local_pod if none is given
# Process 0 speaks here; WORKDIR/logs/process-I.log has what process I said. When one fails, the others have a minute to
# end by themselves (PATIENCE, seconds), as those do that save a checkpoint; then they are stopped, and its code is
# returned. INT and TERM are handed on to all, which have a minute, too; a second one ends them at once. RESTARTS=N
# starts all again up to N times, after any code but 0 and 2 (wrong input).
# JAX_NUM_CPU_DEVICES says how many devices each process has (1); PYTHON names an interpreter to use as it is, with
# groupvit_jax in it, in place of .venv. Needs bash 5.1 and GNU tail, as Linux has them.
set -euo pipefail

fail() {
  echo "local_pod: $1" >&2
  exit 2
}

[[ $# -ge 2 ]] || fail "usage: launch/local_pod.sh N CONFIG [flags of groupvit train]"
number=$1 config=$2
shift 2
[[ $number =~ ^[1-9][0-9]{0,2}$ ]] || fail "N=$number: give the number of processes, 1 to 999"
[[ -f ${config%%:*} ]] || fail "CONFIG=$config: no such file; configs/ has some, as configs/scenes.py"
devices=${JAX_NUM_CPU_DEVICES:-1}
[[ $devices =~ ^[1-9][0-9]{0,2}$ ]] || fail "JAX_NUM_CPU_DEVICES=$devices: give the devices of a process, 1 to 999"
restarts=${RESTARTS:-0} patience=${PATIENCE:-60} # seconds
[[ $restarts =~ ^[0-9]{1,6}$ ]] || fail "RESTARTS=$restarts: give how often to start again, 0 to 999999"
[[ $patience =~ ^[0-9]{1,6}$ ]] || fail "PATIENCE=$patience: give seconds in which processes may end, 0 to 999999"
workdir=runs/local_pod before=
for flag in "$@"; do
  if [[ $flag =~ ^--?workdir=(.*)$ ]]; then workdir=${BASH_REMATCH[1]}; fi
  if [[ $before =~ ^--?workdir$ ]]; then workdir=$flag; fi
  [[ ! $flag =~ ^--?(no)?(config|multihost|coordinator|processes|process)(=|$) ]] \
    || fail "$flag: is set here, from N and CONFIG; leave it out"
  before=$flag
done
[[ -n $workdir && ! $before =~ ^--?workdir$ ]] || fail "--workdir: name a folder"
logs=$workdir/logs
mkdir -p "$logs" 2> /dev/null || fail "--workdir=$workdir: cannot make $logs; choose another"

if [[ -z ${PYTHON:-} ]]; then
  here=$PWD
  # shellcheck source=launch/environment.sh
  source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
  environment
  cd "$here" # paths among the flags are the caller's
  PYTHON=python
fi

declare -A running=() # process id -> number
wait_for_all() { # SECONDS
  local end=$((SECONDS + $1)) pid
  while [[ ${#running[@]} -gt 0 && $SECONDS -le $end ]]; do
    for pid in "${!running[@]}"; do
      kill -0 "$pid" 2> /dev/null || unset "running[$pid]"
    done
    sleep 0.1
  done
}
stop() { # [SECONDS between TERM and KILL]
  trap - EXIT
  trap 'end=0' INT TERM HUP # told again: no more waiting
  for signal in TERM KILL; do # the first is a notice to save and end
    for pid in "${!running[@]}"; do kill -$signal -- "-$pid" || true; done
    wait_for_all "${1:-$patience}"
  done
  wait "$speaker" || true # for the last words of process 0
} 2> /dev/null # where bash would say which of them it saw killed

set -m # each process is a group, with the workers that read its data
start() {
  local port i lines
  port=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
  for ((i = 0; i < number; i++)); do
    [[ $attempt -gt 0 ]] || : > "$logs/process-$i.log" # is there when tail looks
    lines=$(wc -l < "$logs/process-$i.log")
    JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices "$PYTHON" -c 'from groupvit_jax.cli.main import main; main()' \
      train --config="$config" "$@" --workdir="$workdir" --multihost \
      --coordinator="localhost:$port" --processes="$number" --process="$i" \
      >> "$logs/process-$i.log" 2>&1 < /dev/null &
    running[$!]=$i
    [[ $i -gt 0 ]] || { tail -n +$((lines + 1)) -s 0.2 -f "$logs/process-0.log" --pid=$! & speaker=$!; }
  done
}

join() { # until all have ended; the code is that of the first that failed, in `code`, and its number in `i`
  local pid
  while [[ ${#running[@]} -gt 0 ]]; do
    code=0
    wait -n -p pid "${!running[@]}" || code=$?
    i=${running[$pid]}
    unset "running[$pid]"
    if [[ $code -ne 0 ]]; then
      wait_for_all "$patience"
      stop 5
      return
    fi
  done
}

for ((attempt = 0; ; attempt++)); do
  trap stop EXIT
  trap 'stop; exit 130' INT
  trap 'stop; exit 143' TERM HUP
  start "$@"
  join
  [[ $code -ne 0 ]] || exit 0
  echo "local_pod: process $i ended with code $code; $logs/process-$i.log ends: $(tail -n 1 "$logs/process-$i.log")" >&2
  [[ $code -ne 2 && $attempt -lt $restarts ]] || exit "$code"
  echo "local_pod: starting again, $((attempt + 1)) of at most $restarts times" >&2
done
