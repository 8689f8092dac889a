"""Eight virtual CPU devices for every test, set before JAX is used; and `groupvit` in this process."""

import sys
from types import SimpleNamespace

import jax
import pytest
from absl import flags, logging

from groupvit_jax.cli import main

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests where compiling costs more than running."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Programs that are the same are compiled once in a module, as in processes that share JAX's cache."""
    settings = {"jax_persistent_cache_min_compile_time_secs": (0, 1),
                "jax_compilation_cache_dir": (str(tmp_path_factory.mktemp("compiled")), None)}
    for name, (value, _) in settings.items():
        jax.config.update(name, value)
    yield
    for name, (_, value) in settings.items():
        jax.config.update(name, value)


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
