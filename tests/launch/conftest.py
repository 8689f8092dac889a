"""The launch scripts against a cloud of folders: a `gcloud` that writes down its calls and, where a slice stands, runs
what is sent to its workers in a home folder each; with stand-ins for what a worker has or downloads."""

import os
import pathlib
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
TOOLS = {
    # A slice is the folder slice/, a worker is a home in it. $4 is the verb, $5 the name. A line of answers/VERB,
    # "0 TEXT" or a code and an error, is said instead; the last one stays.
    "gcloud": r"""
printf -v line ' %q' "$@"; echo "gcloud$line" >> "$BENCH/calls"
answers=$BENCH/answers/$4
if [ -s "$answers" ]; then
  read -r code text < "$answers"
  [ "$(wc -l < "$answers")" = 1 ] || sed -i 1d "$answers"
  if [ "$code" != 0 ]; then echo "ERROR: $text" >&2; exit "$code"; fi
  if [ "$4" != create ] && [ "$4" != scp ]; then echo "${text//|/$'\n'}"; exit; fi
fi
case $4 in
  create) mkdir -p "$BENCH/slice/w-0" "$BENCH/slice/w-1" ;;
  describe) if [ -d "$BENCH/slice" ]; then cat "$BENCH/state"; else echo "ERROR: NOT_FOUND: no $5" >&2; exit 1; fi ;;
  delete) rm -rf "$BENCH/slice"; echo READY > "$BENCH/state" ;;
  ssh) for home in "$BENCH"/slice/*/; do
      for word in "$@"; do
        [[ $word != --command=* ]] || (cd "$home" && HOME=${home%/} bash -c "${word#--command=}") || code=$?
      done
    done; exit "${code:-0}" ;;
  scp) for home in "$BENCH"/slice/*/; do
      for word in "${@:5}"; do [[ $word != /* ]] || cp "$word" "$home"; done
    done ;;
esac
""",
    "hostname": 'basename "$HOME"',
    "sudo": '"$@"',
    "mountpoint": '[ -e "$2/mounted" ]',
    "gcsfuse": r"""
echo "gcsfuse $*" >> "$BENCH/calls"
mkdir -p "${@: -1}"; touch "${@: -1}/mounted"; sleep 30 > /dev/null 2>&1 & echo $! >> "$BENCH/pids"
""",
    "mount.nfs": "",
    "mount": r"""
echo "mount $*" >> "$BENCH/calls"; touch "${@: -1}/mounted"
""",
    # The installer that it prints makes a uv that makes a venv.
    "curl": r"""
echo "curl $*" >> "$BENCH/calls"
echo 'mkdir -p "$UV_UNMANAGED_INSTALL"; cp "$BENCH/bin/uv" "$UV_UNMANAGED_INSTALL/uv"'
""",
    "uv": r"""
echo "uv $*" >> "$BENCH/calls"
if [ "$1" = venv ]; then mkdir -p venv/bin; echo 'echo Python 3.12.0' > venv/bin/python; chmod +x venv/bin/python; fi
case "$*" in *--editable*) cp "$BENCH/bin/groupvit" venv/bin/groupvit ;; esac
""",
    # Ends with the first line of ~/codes, which it removes; with 0 if there is none. "75 300" leaves a checkpoint of
    # step 300, too. While ~/hold is there, it trains.
    "groupvit": r"""
printf -v line ' %q' "$@"; echo "$line" >> "$HOME/trainings"
trap 'echo ended; exit 75' TERM
echo "step 1: loss 2.0"
while [ -e "$HOME/hold" ]; do sleep 0.05; done
code=0
if [ -s "$HOME/codes" ]; then read -r code step < "$HOME/codes"; sed -i 1d "$HOME/codes"; fi
if [ -n "${step:-}" ]; then mkdir -p "$BENCH/runs/first/checkpoints/$step"; fi
exit "$code"
""",
}


class Bench:
    def __init__(self, folder: pathlib.Path):
        self.folder, self.checkout, self.home = folder, folder / "checkout", folder / "slice/w-0"
        self.workdir = folder / "runs/first"
        for name in ("bin", "answers", "checkout/configs", "checkout/launch"):
            (folder / name).mkdir(parents=True)
        for name, text in TOOLS.items():
            (folder / "bin" / name).write_text("#!/usr/bin/env bash\n" + text)
            (folder / "bin" / name).chmod(0o755)
        for file in [*(ROOT / "launch").glob("*.sh"), ROOT / "launch/constraints.txt"]:
            shutil.copy(file, self.checkout / "launch")
        (self.checkout / "setup.py").write_text("")
        (self.checkout / "configs/tiny.py").write_text("")
        (self.checkout / ".gitignore").write_text("build/\n")
        self.git("init", "--quiet")
        (folder / "state").write_text("READY\n")

    def git(self, *arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=self.checkout, check=True, capture_output=True, text=True).stdout

    def commit(self) -> None:
        self.git("add", ".")
        self.git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message=all")

    def shell(self, script: str, *arguments, home: pathlib.Path | None = None, **environment) -> SimpleNamespace:
        done = subprocess.run(["bash", script, *map(str, arguments)], cwd=self.folder, text=True, timeout=200,
                              stdin=subprocess.DEVNULL, capture_output=True,
                              env={"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "BENCH": str(self.folder),
                                   "HOME": str(home or self.folder)} | environment)
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    def tpu(self, verb: str, *flags, **environment) -> SimpleNamespace:
        where = () if environment or verb == "help" else ("--name=pod", "--zone=us-west4-a")
        return self.shell(str(self.checkout / "launch/tpu.sh"), verb, *where, *flags, **environment)

    def worker(self, verb: str, *arguments, home: pathlib.Path | None = None) -> SimpleNamespace:
        """One worker's part; `set_up` has brought it there."""
        return self.shell(str((home or self.home) / "tpu_worker.sh"), verb, *arguments, home=home or self.home)

    def set_up(self) -> "Bench":
        assert self.tpu("create", "--type=v4-16").code == 0
        done = self.tpu("setup")
        assert done.code == 0, done.err
        return self

    def start(self, *flags, attempts: int = 3) -> SimpleNamespace:
        return self.worker("start", self.workdir, attempts, 0, "--config=configs/tiny.py", *flags)

    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def trainings(self, home: pathlib.Path | None = None) -> list[str]:
        file = (home or self.home) / "trainings"
        return file.read_text().splitlines() if file.exists() else []

    def answer(self, verb: str, *lines: str) -> None:
        (self.folder / "answers" / verb).write_text("".join(line + "\n" for line in lines))

    def until(self, condition) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, self.worker("status").out
            time.sleep(0.02)

    def state(self) -> str:
        return self.worker("status").out.split()[1].rstrip(":")

    def close(self) -> None:
        for home in self.folder.glob("slice/*/groupvit/pid"):
            kill(-int(home.read_text()))
        for line in (self.folder / "pids").read_text().split() if (self.folder / "pids").exists() else ():
            kill(int(line))


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL) if pid > 0 else os.killpg(-pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.close()
