"""`groupvit` in processes of its own, alone or several that join each other."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "tests/end_to_end/tiny_training.py"


def environment(folder: Path, devices: int) -> dict[str, str]:
    """Of a process on so many CPU devices; those of one folder share compiled programs, as compiling is most of their
    time."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONWARNINGS": "ignore"}


def groupvit(folder: Path, *arguments: str, devices: int = 1) -> subprocess.Popen:
    """`groupvit ARGUMENTS` in a process of its own, in the `environment` of `folder`."""
    program = "from groupvit_jax.cli.main import main; main()"
    return subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=ROOT, env=environment(folder, devices),
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def children(process: int, what: str) -> list[int]:
    """The processes that this one's threads started whose command line has `what`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and what in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


def joining(number: int) -> list[list[str]]:
    """Of each of `number` processes, the flags by which they join each other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [["--multihost", f"--coordinator=localhost:{port}", f"--processes={number}", f"--process={i}"]
            for i in range(number)]


def together(start, number: int, code: int = 0) -> list[str]:
    """What `number` processes that join each other printed, which end with this code: start(*flags) starts one with the
    flags of --multihost."""
    processes = [start(*flags) for flags in joining(number)]
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [code] * number, "\n".join(outputs)
    return outputs
