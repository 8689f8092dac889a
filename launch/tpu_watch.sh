# Sourced by tpu.sh: what state the slice and its workers are in, and `run --until-done`.
# shellcheck shell=bash disable=SC2154 # the variables are tpu.sh's

describe() { # prints the state of the slice or of the queued resource
  if [ -n "$queued" ]; then
    call queued-resources describe "$name" "--format=value(state.state)"
  else
    call tpu-vm describe "$name" "--format=value(state)"
  fi
}

slice_state() { # ABSENT if there is none, UNKNOWN if gcloud cannot say
  local said
  if said=$(describe 2>&1); then
    echo "${said##*$'\n'}" # warnings come before it
  elif [[ $said == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    echo "$said" >&2
    echo UNKNOWN
  fi
}

worker_states() { # a line a worker, "HOST STATE: last line of its log"
  call tpu-vm ssh "$name" --worker=all \
    "--command=if [ -f tpu_worker.sh ]; then bash tpu_worker.sh status; else echo \"\$(hostname) idle: not set up\"; fi"
}

show_status() {
  if [ -n "$dry_run" ]; then
    describe
    worker_states
    return
  fi
  local state
  state=$(slice_state)
  echo "$name $state"
  [[ $state != READY && $state != ACTIVE ]] || worker_states
}

until_done() {
  local state
  if [ -n "$dry_run" ]; then
    echo "# every $poll s:"
    describe
    echo "# where there is none:"
    create
    echo "# where it was preempted, has failed or was terminated:"
    delete
    create
    echo "# where it is ready:"
    worker_states
    echo "# where no worker is running the training:"
    setup
    run
    return
  fi
  while true; do
    state=$(slice_state)
    echo "$(date -u +%FT%TZ) $name $state"
    case $state in
      READY | ACTIVE) if tend; then return; fi ;;
      ABSENT) try_create ;;
      PREEMPTED | TERMINATED | SUSPENDED | FAILED) delete && try_create || true ;;
    esac
    sleep "$poll"
  done
}

# Capacity comes back, so that a refusal is tried again; but not one that the same words would meet for ever.
try_create() {
  local said
  said=$(create 2>&1) && return
  echo "$said" >&2
  case $said in
    *PERMISSION_DENIED* | *INVALID_ARGUMENT* | *UNAUTHENTICATED* | *"unrecognized arguments"*)
      fail "gcloud refuses to create $name (above): mend the flags or the project's rights, then run again" ;;
  esac
}

# Success when the training is done. A worker that was rebooted joins the others again; a new slice is set up first.
tend() {
  local said states
  said=$(worker_states 2>/dev/null) || true # those that answer
  echo "$said"
  states=" $(awk '{print $2}' <<< "$said" | sort -u | tr '\n' ' ')"
  if [[ $states == *" refused: "* ]]; then
    fail "a worker refused its input (above): mend it, setup, then run again"
  elif [[ $states == *" failed: "* || $states == *" stopped: "* ]]; then
    fail "the run was stopped, or fails whenever it starts: see launch/tpu.sh logs, then run again"
  elif [[ $states == *" running: "* ]]; then
    [[ $states != *" dead: "* && $states != *" idle: "* ]] || run || true
  elif [[ $states == *" done: "* ]]; then
    return 0
  elif [[ $states == *" dead: "* || $states == *" idle: "* ]]; then
    begin
  fi
  return 1
}

# A worker that cannot be reached is tried again; what a worker refuses is not.
begin() {
  local code=0
  { setup && run; } || code=$?
  [ "$code" != 2 ] || fail "a worker refuses the setup or the run (above): mend it, then run again"
}
