"""`groupvit compile` of a tiny configuration."""

import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

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


class Compilation:
    """`groupvit compile` in a process of its own; `done()` waits for it -> code, out, err, the report, and the path of
    the exported step."""

    def __init__(self, folder, config, topology, *overrides):
        self.output = folder / "new" / "report.json"
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        env.pop("JAX_PLATFORMS", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from groupvit_jax.cli.main import main; main()", "compile", f"--config={config}",
             f"--topology={topology}", f"--output={self.output}", *overrides],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def done(self):
        out, err = self.process.communicate()
        report = json.loads(self.output.read_text()) if self.output.exists() else None
        return SimpleNamespace(code=self.process.returncode, out=out, err=err, report=report,
                               exported=self.output.with_suffix(".stablehlo"))


@pytest.fixture(scope="session")
def compiling(tmp_path_factory):
    """`compiling(config, "v5e:2x2", "--config.data.batch=8")`: see `Compilation.done`."""
    return lambda *how: Compilation(tmp_path_factory.mktemp("compiled"), *how).done()


def pytest_collection_modifyitems(items):
    """What waits for the published recipe's compilation, minutes, comes last."""
    items.sort(key=lambda item: "published" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def compilation_of_the_published_recipe(request, tmp_path_factory):
    """Begins before the first of these tests and goes on beside all others."""
    if not any("published" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    compilation = Compilation(tmp_path_factory.mktemp("published"), "configs/base.py", "v5e:8x8")
    yield compilation
    compilation.process.kill()


@pytest.fixture(scope="session")
def published(compilation_of_the_published_recipe):
    """The published recipe on 64 chips of v5e: see `Compilation.done`."""
    return compilation_of_the_published_recipe.done()
