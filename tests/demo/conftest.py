"""A tiny run, the demo that serves it, and calls that end."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tiny_run
from demo_server import COMMAND, serving


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The workdir of a tiny model with two stages."""
    workdir = tmp_path_factory.mktemp("run")
    tiny_run.save(workdir, tiny_run.config(**tiny_run.TWO_STAGES))
    return workdir


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
