"""`groupvit` in this process and in one of its own, a saved run, and scenes."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tiny_run

from groupvit_jax.drawn import scenes


@pytest.fixture(scope="module", autouse=True)
def _quickly(quick_compilation):
    pass


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The workdir of a tiny model."""
    workdir = tmp_path_factory.mktemp("run")
    tiny_run.save(workdir, tiny_run.config())
    return workdir


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    scenes.write(folder, train=16, val=3, seed=5, size=48, workers=1)
    return folder


@pytest.fixture(scope="session")
def process():
    """The same in a process of its own; the Python in `before` runs in it first."""

    def call(*arguments, before=""):
        code = f"{before}\nfrom groupvit_jax.cli.main import main; main()"
        ended = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
                               env=os.environ | {"JAX_PLATFORMS": "cpu"}, timeout=120)
        return SimpleNamespace(code=ended.returncode, out=ended.stdout, err=ended.stderr)

    return call
