#!/usr/bin/env bash
# Runs on each worker of a slice; launch/tpu.sh sends and calls it. All that it makes lies in ~/groupvit.
#   setup SOURCE REVISION [MOUNT...]              SOURCE: a tarball in the home folder or a git URL
#   start WORKDIR ATTEMPTS PAUSE [TRAIN-FLAGS...] in the background; the log is WORKDIR/logs/HOSTNAME.log
#   status                                        prints "HOSTNAME STATE: last line of the log"; STATE is running, done,
#                                                 refused (wrong input), failed, stopped, dead (ended unasked) or idle
#   tail LINES [-F] | stop
set -euo pipefail
self=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/$(basename "${BASH_SOURCE[0]}")
home=$HOME/groupvit
python=3.12   # the images' own is 3.10, JAX 0.10 asks for 3.11
uv_version=0.13.9

fail() { # with code 2, which starting again does not heal
  echo "groupvit: $(hostname): $*" >&2
  exit "${code:-2}"
}

# The lock belongs to whoever has descriptor 9 open: the loop and the training it started, until the last of them ends.
lock() {
  exec 9>> lock
  flock --wait 2 9 # not at once, as `busy` takes it for a moment
}

busy() {
  ! flock --nonblock lock true
}

setup() {
  local source=$1 revision=$2
  shift 2
  lock || code=1 fail "a run is going on here: launch/tpu.sh stop, then setup"
  : > mounts
  [ $# -eq 0 ] || printf '%s\n' "$@" > mounts
  mount_all
  fetch "$source" "$revision"
  install
  echo "$(hostname) is set up: $(venv/bin/python --version), $(head -n 1 revision)"
}

fetch() {
  local source=$1 revision=$2
  rm -rf new
  mkdir new
  if [[ $source == *.tar.gz ]]; then
    tar -xzf "$HOME/$source" -C new
    revision="a copy of the operator's checkout"
  else
    git init --quiet new
    git -C new fetch --quiet --depth=1 "$source" "$revision" \
      || fail "cannot fetch $revision of $source: see that the URL and the revision exist and are public"
    git -C new checkout --quiet --detach FETCH_HEAD
    revision=$(git -C new rev-parse HEAD)
  fi
  rm -rf code
  mv new code
  echo "$revision" > revision
}

# uv installs a standalone Python in seconds, without root or a package archive that may be gone when the image is old.
install() {
  local uv=$home/bin/uv stamp
  stamp="$python $(cat code/setup.py code/launch/constraints.txt | cksum)"
  if [ -x venv/bin/groupvit ] && [ "$(cat installed 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  rm -f installed
  if [ ! -x "$uv" ]; then
    curl -LsSf "https://astral.sh/uv/$uv_version/install.sh" | UV_UNMANAGED_INSTALL="$home/bin" sh
  fi
  "$uv" venv --quiet --clear --python "$python" venv
  "$uv" pip install --quiet --python venv/bin/python \
    --constraint code/launch/constraints.txt --editable "code[tpu]" gcsfs # which reads data from gs://
  echo "$stamp" > installed
}

# Again at each start, as mounts do not outlive a reboot.
mount_all() {
  local line source folder
  while read -r line; do
    source=${line%:/*} folder=/${line##*:/}
    if mountpoint -q "$folder"; then
      continue
    fi
    sudo mkdir -p "$folder"
    if [[ $source == gs://* ]]; then
      mount_bucket "${source#gs://}" "$folder"
    else
      command -v mount.nfs > /dev/null || apt_install nfs-common
      sudo mount -t nfs "$source" "$folder"
      [ -w "$folder" ] || sudo chmod go+rw "$folder" # a new Filestore share belongs to root
    fi
  done < mounts
}

mount_bucket() { # BUCKET[/DIR] FOLDER
  local apt=https://packages.cloud.google.com/apt key=/usr/share/keyrings/cloud.google.asc
  if ! command -v gcsfuse > /dev/null; then # as cloud.google.com/storage/docs/cloud-storage-fuse/install says
    curl -LsSf "$apt/doc/apt-key.gpg" | sudo tee "$key" > /dev/null
    echo "deb [signed-by=$key] $apt gcsfuse-$(lsb_release -cs) main" \
      | sudo tee /etc/apt/sources.list.d/gcsfuse.list > /dev/null
    apt_install gcsfuse
  fi
  sudo chown "$(id -u):$(id -g)" "$2"
  local only=()
  [[ $1 != */?* ]] || only=("--only-dir=${1#*/}")
  gcsfuse --implicit-dirs "${only[@]}" "${1%%/*}" "$2" > /dev/null 9>&- # it stays, and must not keep the lock
}

apt_install() {
  sudo apt-get update -qq
  sudo DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$1" > /dev/null
}

start() {
  local workdir=$1 log config="" asked flag
  asked=$(printf '%q ' "$@")
  if ! lock; then
    [ "$(cat asked 2>/dev/null)" = "$asked" ] || code=1 fail "another run is going on: launch/tpu.sh stop, then run"
    echo "$(hostname) is running it already"
    return
  fi
  [ -x venv/bin/groupvit ] || fail "not set up yet: launch/tpu.sh setup"
  for flag in "${@:4}"; do
    [[ $flag != --config=* ]] || config=${flag#--config=}
  done
  (cd code && [ -f "${config%%:*}" ]) || fail "no ${config%%:*} in what setup brought here: add it, then setup again"
  mount_all
  mkdir -p "$workdir/logs" 2>/dev/null \
    || fail "cannot write $workdir: give a --workdir below a folder that setup --mount mounts"
  log=$workdir/logs/$(hostname).log
  rm -f "$workdir/logs/done"
  echo "$asked" > asked
  echo "$log" > log
  echo running > state
  setsid nohup bash "$self" loop "$@" < /dev/null >> "$log" 2>&1 &
  echo $! > pid
  echo "$(hostname) is running it; log: $log"
}

# Starts the training again until it ends with 0 or says that its input is wrong (2). After a failure on one host JAX
# ends the training on the others, too, and all meet again here. Of attempts, only those in a row count that left no new
# checkpoint, whatever their code: a training that is preempted or hangs (75) goes on for ever only if it gets on.
loop() {
  local workdir=$1 attempts=$2 pause=$3 failures=0 before code
  shift 3
  cd code
  while true; do
    echo "groupvit: starting at $(date -u +%FT%TZ)"
    before=$(checkpoints) code=0
    "$home/venv/bin/groupvit" train --multihost --workdir="$workdir" "$@" || code=$?
    reap
    if [ "$code" = 2 ]; then
      end refused 2
    elif [ "$code" = 0 ] || [ -e "$workdir/logs/done" ]; then # the latter: on another worker it ended with 0
      touch "$workdir/logs/done"
      end 'done' 0
    fi
    if [ "$(checkpoints)" = "$before" ]; then failures=$((failures + 1)); else failures=0; fi
    echo "groupvit: the training ended with exit code $code ($failures in a row without a new checkpoint, of at most" \
      "$attempts)"
    [ "$failures" -lt "$attempts" ] || end failed 1
    sleep "$pause"
  done
}

checkpoints() { # those that are there, of all seeds
  find "$workdir/checkpoints" "$workdir"/seed-*/checkpoints -maxdepth 1 2> /dev/null | grep '/[0-9]*$' | sort || true
}

# What a training that was killed leaves behind, as its loader's processes: they keep memory and the lock.
reap() {
  local pid
  for pid in $(pgrep -g $$); do
    [ "$pid" = $$ ] || kill -KILL "$pid" 2>/dev/null || true
  done
}

end() { # STATE CODE
  echo "$1" > "$home/state"
  exit "$2"
}

status() {
  local state last going=""
  if busy; then going=true; fi # before the state is read: a run says how it ended, then leaves the lock
  state=$(cat state 2>/dev/null || echo idle)
  if [ "$state" = running ] && [ -z "$going" ]; then
    state=dead
  fi
  last=$(tail -n 20 "$(cat log)" 2>/dev/null | tr '\r' '\n' | grep . | tail -n 1) || last="no log"
  echo "$(hostname) $state: $last"
}

stop() {
  local pid
  if busy && pid=$(cat pid 2>/dev/null); then
    kill -TERM -- "-$pid" 2>/dev/null || true
    flock --wait 120 lock true || kill -KILL -- "-$pid" 2>/dev/null || true # while it writes a checkpoint
  fi
  echo stopped > state
  echo "$(hostname) is stopped"
}

mkdir -p "$home"
cd "$home"
case ${1:-} in
  setup | start | loop | status | stop) "$@" ;;
  tail)
    [ -f log ] || fail "nothing was started here: launch/tpu.sh run"
    exec tail -n "${@:2}" "$(cat log)"
    ;;
  *) fail "this script is for launch/tpu.sh to call" ;;
esac
