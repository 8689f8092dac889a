"""The demo as people start it: `groupvit demo` in a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

# Tests that a shell starts in the background ignore SIGINT, those below nohup SIGHUP, and what they start does, too.
CODE = ("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from groupvit_jax.cli.main import main; main()")
COMMAND = [sys.executable, "-c", CODE, "demo"]
# Says which addresses the process connects to or looks up.
WATCH = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        print(event, arguments, file=sys.stderr, flush=True)
sys.addaudithook(watch)
"""


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
                process.wait(120)
            finally:
                process.kill()
