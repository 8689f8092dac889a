"""`groupvit` in this process and in one of its own, a saved run, and scenes."""

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
import tiny_run
from absl import flags, logging

from groupvit_jax.cli import main
from groupvit_jax.data import scenes


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Compiling costs more than running here."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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


@pytest.fixture
def groupvit(monkeypatch, capfd):
    """`groupvit("eval", "--checkpoint=P")` -> code, out, err. Here, without the seconds that importing JAX takes;
    absl's flags and logging are as before afterwards."""

    def call(*arguments):
        known, path, filters = set(flags.FLAGS), sys.path[:], logging.get_absl_logger().filters[:]
        monkeypatch.setattr(sys, "argv", ["groupvit", *map(str, arguments)])
        capfd.readouterr()
        try:
            main.main()
            code = 0
        except SystemExit as exit:
            code = exit.code
        finally:
            for name in set(flags.FLAGS) - known:
                if not name.startswith("grain"):  # of a library that stays imported and reads them
                    delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
            sys.modules.pop("config_config", None)  # ml_collections' name for the module of --config
            sys.path[:], logging.get_absl_logger().filters[:] = path, filters
        return SimpleNamespace(code=code, **capfd.readouterr()._asdict())

    return call


@pytest.fixture(scope="session")
def process():
    """The same in a process of its own; the Python in `before` runs in it first."""

    def call(*arguments, before=""):
        code = f"{before}\nfrom groupvit_jax.cli.main import main; main()"
        ended = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
                               env=os.environ | {"JAX_PLATFORMS": "cpu"}, timeout=120)
        return SimpleNamespace(code=ended.returncode, out=ended.stdout, err=ended.stderr)

    return call


@pytest.fixture(scope="session")
def refused():
    """Asserts that a call ended as wrong input does, and said all of `words` in its one line."""

    def check(ended, *words):
        assert ended.code == 2, ended.err
        lines = ended.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("groupvit: "), ended.err
        assert len(lines[0]) < 500 and ended.out == ""
        for word in words:
            assert str(word) in lines[0], (word, lines[0])

    return check
