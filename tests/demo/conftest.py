"""The demo as people start it: `groupvit demo` in a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import tiny_run

COMMAND = [sys.executable, "-c", "from groupvit_jax.cli.main import main; main()", "demo"]
# Says which addresses the process connects to or looks up.
WATCH = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        print(event, arguments, file=sys.stderr, flush=True)
sys.addaudithook(watch)
"""


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The workdir of a tiny model with two stages."""
    workdir = tmp_path_factory.mktemp("run")
    tiny_run.save(workdir, tiny_run.config(**tiny_run.TWO_STAGES))
    return workdir


@contextlib.contextmanager
def serving(folder, *flags):
    """`groupvit demo --port=0 FLAGS` -> its `url`, `process`, the folders `tmp` for temporary files and `cwd`, and
    `log()`, what it has printed."""
    places = {name: folder / name for name in ("tmp", "cwd", "watch")}
    for place in places.values():
        place.mkdir()
    (places["watch"] / "sitecustomize.py").write_text(WATCH)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "HOME": str(folder),
                                "TMPDIR": str(places["tmp"]), "GRADIO_ANALYTICS_ENABLED": "True",
                                "PYTHONPATH": os.pathsep.join([str(places["watch"]), *filter(None, sys.path)])}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([*COMMAND, "--port=0", *map(str, flags)], cwd=places["cwd"], env=environment,
                                   stdout=log, stderr=log, start_new_session=True)
    read = (folder / "log").read_text
    try:
        until = time.monotonic() + 120
        while not (found := re.search(r"groupvit demo: (http://\S+) ", read())):
            assert process.poll() is None and time.monotonic() < until, read()
            time.sleep(0.1)
        yield SimpleNamespace(url=found[1], process=process, log=read, **places)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def demo(run, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("demo"), f"--checkpoint={run}") as served:
        yield served


@pytest.fixture(scope="session")
def start():
    """Runs `groupvit demo FLAGS` to its end -> code, out, err; the Python in `before` runs in it first."""

    def call(*flags, before=""):
        command = [sys.executable, "-c", f"{before}\n{COMMAND[2]}", "demo", *map(str, flags)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120,
                               env=os.environ | {"JAX_PLATFORMS": "cpu"})
        return SimpleNamespace(code=ended.returncode, out=ended.stdout, err=ended.stderr)

    return call
