"""`groupvit compile` of a tiny configuration."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# One stage, no noise: a few seconds of compiling.
SMALL = ("import tiny\n\n\ndef get_config():\n    return tiny.config(model__image__depths=(1, 1), "
         "model__image__group_tokens=(4, 0), model__image__output_groups=(4, 0), model__image__drop_path=0.0, "
         "augment__erase=0.0, augment__flip=0.0, model__dtype='bfloat16')\n")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Path of the configuration."""
    path = tmp_path_factory.mktemp("recipes") / "configs" / "small.py"
    path.parent.mkdir()
    path.write_text(SMALL)
    return path


def begin(folder, config, topology, *overrides):
    """Starts `groupvit compile` in a process of its own that writes into a folder, its exit code last."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    env.pop("JAX_PLATFORMS", None)
    command = [sys.executable, "-c", "from groupvit_jax.cli.main import main; main()", "compile", f"--config={config}",
               f"--topology={topology}", f"--output={folder}/new/report.json", *overrides]
    noting = f"{shlex.join(command)} > {folder}/out 2> {folder}/err; echo $? > {folder}/c; mv {folder}/c {folder}/code"
    return subprocess.Popen(["bash", "-c", noting], cwd=ROOT, env=env, start_new_session=True)


class Compiled(NamedTuple):
    """A compilation that was begun; `done()` waits for it -> code, out, err, the report, and the path of the exported
    step."""

    folder: pathlib.Path

    def done(self):
        while not (self.folder / "code").exists():
            time.sleep(0.1)
        output = self.folder / "new" / "report.json"
        code, out, err = ((self.folder / name).read_text() for name in ("code", "out", "err"))
        return SimpleNamespace(code=int(code), out=out, err=err, exported=output.with_suffix(".stablehlo"),
                               report=json.loads(output.read_text()) if output.exists() else None)


@pytest.fixture(scope="session")
def compiling(tmp_path_factory):
    """`compiling(config, "v5e:2x2", "--config.data.batch=8")`: see `Compiled.done`."""
    def call(*how):
        folder = tmp_path_factory.mktemp("compiled")
        begin(folder, *how).wait()
        return Compiled(folder).done()

    return call


def pytest_collection_modifyitems(items):
    """What waits for the published recipe's compilation, minutes, comes last."""
    items.sort(key=lambda item: "published" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def compilation_of_the_published_recipe(request, tmp_path_factory):
    """Begins before the first of these tests, and goes on beside all others. With several workers of pytest-xdist one
    makes it, the first that has such a test; they share what they find in their common folder."""
    if not any("published" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    shared = tmp_path_factory.getbasetemp()
    shared = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "published"
    try:
        shared.mkdir()
    except FileExistsError:
        yield Compiled(shared)
        return
    process = begin(shared, "configs/base.py", "v5e:8x8")
    yield Compiled(shared)
    if "PYTEST_XDIST_WORKER" not in os.environ:  # else another worker may have use for it
        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def published(compilation_of_the_published_recipe):
    """The published recipe on 64 chips of v5e: see `Compiled.done`."""
    return compilation_of_the_published_recipe.done()
