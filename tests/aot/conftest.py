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


@pytest.fixture(scope="session")
def compiling(tmp_path_factory):
    """`compiling(config, "v5e:2x2", "--config.data.batch=8")`, in a process of its own -> code, out, err, the report,
    and the path of the exported step."""

    def call(config, topology, *overrides):
        output = tmp_path_factory.mktemp("compiled") / "new" / "report.json"
        env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        env.pop("JAX_PLATFORMS", None)
        ended = subprocess.run([sys.executable, "-c", "from groupvit_jax.cli.main import main; main()", "compile",
                                f"--config={config}", f"--topology={topology}", f"--output={output}", *overrides],
                               cwd=ROOT, env=env, capture_output=True, text=True)
        report = json.loads(output.read_text()) if output.exists() else None
        return SimpleNamespace(code=ended.returncode, out=ended.stdout, err=ended.stderr, report=report,
                               exported=output.with_suffix(".stablehlo"))

    return call
