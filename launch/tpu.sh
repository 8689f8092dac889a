#!/usr/bin/env bash
# Trains on a Cloud TPU slice by plain gcloud. `launch/tpu.sh help` lists the verbs; --dry-run only prints the commands.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=${TPU_NAME:-} zone=${TPU_ZONE:-} project=${TPU_PROJECT:-} type=${TPU_TYPE:-} version=${TPU_VERSION:-}
queued="" spot="" valid_until="" repository="" revision=HEAD mounts=() config="" workdir="" attempts=20 pause=30
until_done="" poll=60 lines=100 follow="" worker=0 output="" yes="" dry_run="" rest=()
source "$root/launch/tpu_watch.sh"

usage() {
  cat << 'END'
usage: launch/tpu.sh VERB --name=NAME --zone=ZONE [--project=PROJECT] [--queued] [--dry-run] [flags]
  create  --type=v5litepod-64|v4-32|v5p-32|v6e-32|... [--spot] [--version=RUNTIME] [-- gcloud's flags, as --reserved]
          With --queued it is a queued resource, which waits for capacity, at most [--valid-until=6h]; give --queued to
          the other verbs then, too.
  setup   Copies this checkout, changes included, to all workers, or fetches [--repository=URL [--revision=REVISION]],
          and installs it. [--mount=gs://BUCKET[/DIR]:/FOLDER] by gcsfuse, [--mount=HOST:/SHARE:/FOLDER] by NFS
          (Filestore); may be repeated.
  run     --config=FILE --workdir=/FOLDER [--attempts=20] [--pause=30] [-- flags of groupvit train]
          On all workers, in the background; started again after failures. WORKDIR is a folder that all of them share.
          With --until-done it stays and looks every [--poll=60] seconds: creates the slice (with create's flags), sets
          it up (with setup's), runs, replaces a slice that was preempted, and ends when the training is done.
  status  Of the slice, and every worker's last line.
  logs    [--lines=100] [--worker=0|all] [--follow], or --workdir=/FOLDER --output=DIR: copies all logs here.
  stop    Ends the run on all workers.
  delete  [--yes]
TPU_NAME, TPU_ZONE, TPU_PROJECT, TPU_TYPE and TPU_VERSION in the environment stand for the flags.
END
}

fail() {
  echo "groupvit: $*" >&2
  exit 2
}

parse() { # VERB FLAGS
  local known key created="type version spot valid-until" prepared="repository revision mount"
  verb=${1:-}
  shift || true
  case $verb in
    create) known=$created ;;
    setup) known=$prepared ;;
    run) known="config workdir attempts pause until-done poll $created $prepared" ;;
    logs) known="lines follow worker workdir output" ;;
    delete) known=yes ;;
    status | stop) known="" ;;
    help | --help | -h) usage && exit ;;
    *) fail "unknown verb '$verb': create, setup, run, status, logs, stop or delete; launch/tpu.sh help says more" ;;
  esac
  while [ $# -gt 0 ]; do
    if [ "$1" = -- ]; then
      rest=("${@:2}")
      break
    fi
    key=${1%%=*} key=${key#--}
    [[ $1 == --* && " name zone project queued dry-run $known " == *" $key "* ]] \
      || fail "$verb takes no '$1': launch/tpu.sh help lists its flags"
    case $key in
      queued | dry-run | spot | until-done | follow | yes)
        [ "$1" = "--$key" ] || fail "--$key takes no value"
        printf -v "${key//-/_}" true
        ;;
      *)
        [[ $1 == --$key=?* ]] || fail "--$key needs a value: write --$key=VALUE"
        if [ "$key" = mount ]; then mounts+=("${1#*=}"); else printf -v "${key//-/_}" %s "${1#*=}"; fi
        ;;
    esac
    shift
  done
}

check() {
  [[ $name =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] || fail "--name='$name': give letters a-z, digits and dashes"
  [[ $zone =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || fail "--zone='$zone': give the zone of the slice, as --zone=us-west4-a"
  [[ $project =~ ^([a-z][-a-z0-9.:]*)?$ ]] || fail "--project='$project': give the project's id, not its name or number"
  case $verb in
    create) check_create ;;
    setup) check_setup ;;
    run) check_run ;;
    logs)
      [[ $lines =~ ^[0-9]+$ ]] || fail "--lines='$lines': give a number"
      [[ $worker =~ ^([0-9]+|all)$ ]] || fail "--worker='$worker': give a worker's number, or all"
      [[ -z $output || $workdir == /* ]] || fail "--output needs the run's --workdir=/FOLDER, too"
      ;;
  esac
  [[ ${#rest[@]} -eq 0 || $verb == create || $verb == run ]] || fail "$verb takes nothing after --"
  [ -n "$dry_run" ] || command -v gcloud > /dev/null \
    || fail "gcloud is not installed: see cloud.google.com/sdk/docs/install, or look at the commands with --dry-run"
}

check_create() {
  local family=${type%-*} chips=${type##*-}
  [[ $type == *-* && $chips =~ ^[1-9][0-9]*$ ]] || fail "--type='$type': give one as v5litepod-64, v4-32 or v6e-32"
  if [ -z "$version" ]; then
    case $family in # as cloud.google.com/tpu/docs/runtimes says
      v4) version=tpu-ubuntu2204-base ;;
      v5litepod) version=v2-alpha-tpuv5-lite ;;
      v5p) version=v2-alpha-tpuv5 ;;
      v6e) version=v2-alpha-tpuv6e ;;
      v5e) fail "--type='$type': Cloud TPU calls it v5litepod-$chips" ;;
      *) fail "--type='$type': give its --version=RUNTIME (TPU7x is for GKE alone: launch/gke.yaml)" ;;
    esac
  fi
  if [ -n "$valid_until" ]; then
    [ -n "$queued" ] || fail "--valid-until limits the wait of a queued resource: give --queued, too"
    [[ $valid_until =~ ^[0-9]+[smhd]$ ]] || fail "--valid-until='$valid_until': give a time from now, as 90m, 6h or 2d"
  fi
}

check_setup() {
  local mount
  [[ $repository =~ ^(https://.+)?$ ]] || fail "--repository='$repository': give a public https:// URL, or leave it out"
  [[ -n $repository || $revision == HEAD ]] || fail "--revision is one of --repository=URL: give that, too"
  for mount in ${mounts[@]+"${mounts[@]}"}; do
    [[ $mount =~ ^(gs://[^:]+|[^:/]+:/[^:]+):/[^:]+$ ]] \
      || fail "--mount='$mount': write gs://BUCKET[/DIR]:/FOLDER or HOST:/SHARE:/FOLDER"
  done
  [[ -n $repository || -e $root/.git ]] || fail "$root is not a git checkout: give --repository=URL"
}

check_run() {
  [ -n "$config" ] || fail "run needs --config=FILE of the repository, as --config=configs/gcc_yfcc_30e.py"
  [[ $workdir == /* ]] || fail "--workdir='$workdir': give a folder that all workers share, as /mnt/runs/first;" \
    "setup --mount=... makes one of an NFS share or a bucket"
  [[ $attempts =~ ^[1-9][0-9]*$ && $pause =~ ^[0-9]+$ && $poll =~ ^[0-9]+$ ]] \
    || fail "--attempts='$attempts' --pause='$pause' --poll='$poll': give whole numbers, attempts from 1"
  if [ -n "$until_done" ]; then
    check_create
    check_setup
  elif [ "$type" != "${TPU_TYPE:-}" ] || [ -n "$spot$valid_until$repository${mounts[*]+x}" ]; then
    fail "run creates and sets up only with --until-done: give that, or call create and setup first"
  fi
}

call() { # runs gcloud compute tpus ARGUMENTS, or prints it
  set -- compute tpus "$@" "--zone=$zone" ${project:+"--project=$project"} --quiet
  if [ -n "$dry_run" ]; then
    printf gcloud
    printf ' %q' "$@"
    echo
  else
    gcloud "$@"
  fi
}

on_workers() { # WORKER ARGUMENTS: of tpu_worker.sh; those after the verb are quoted for the remote shell
  local worker=$1 quoted
  shift
  printf -v quoted ' %q' "$@"
  call tpu-vm ssh "$name" "--worker=$worker" "--command=bash tpu_worker.sh$quoted"
}

create() {
  if [ -n "$queued" ]; then
    call queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" "--runtime-version=$version" \
      ${spot:+--spot} ${valid_until:+"--valid-until-duration=$valid_until"} ${1+"$@"}
  else
    call tpu-vm create "$name" "--accelerator-type=$type" "--version=$version" ${spot:+--spot} ${1+"$@"}
  fi
}

pack() { # the checkout as it is, without what git ignores
  local file
  mkdir -p "$root/build"
  cd "$root"
  git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi # one that is deleted is still listed
  done | tar --null -T - -czf build/groupvit.tar.gz
}

setup() {
  local source=$repository
  if [ -z "$source" ]; then
    source=groupvit.tar.gz
    if [ -n "$dry_run" ]; then echo "# git ls-files | tar -czf $root/build/$source"; else (pack) || return; fi
    call tpu-vm scp "$root/launch/tpu_worker.sh" "$root/build/$source" "$name:" --worker=all || return
  else
    call tpu-vm scp "$root/launch/tpu_worker.sh" "$name:" --worker=all || return
  fi
  on_workers all setup "$source" "$revision" ${mounts[@]+"${mounts[@]}"}
}

run() {
  on_workers all start "$workdir" "$attempts" "$pause" "--config=$config" ${rest[@]+"${rest[@]}"}
}

logs() {
  if [ -n "$output" ]; then
    [ -n "$dry_run" ] || mkdir -p "$output"
    call tpu-vm scp "$name:$workdir/logs" "$output" --worker=0 --recurse
  else
    on_workers "$worker" tail "$lines" ${follow:+-F}
  fi
}

delete() {
  if [ -n "$queued" ]; then
    call queued-resources delete "$name" --force # with its slice
  else
    call tpu-vm delete "$name"
  fi
}

confirm() {
  local answer=""
  [ -z "$yes$dry_run" ] || return 0
  [ -t 0 ] || fail "delete asks first, and nobody is there to answer: give --yes"
  read -r -p "delete $name in $zone? [y/N] " answer
  [ "$answer" = y ] || fail "not deleted"
}

parse "$@"
check
case $verb in
  create) create ${rest[@]+"${rest[@]}"} ;;
  setup) setup ;;
  run) if [ -n "$until_done" ]; then until_done; else run; fi ;;
  status) show_status ;;
  logs) logs ;;
  stop) on_workers all stop ;;
  delete) confirm && delete ;;
esac
