"""The console script `groupvit`: one verb, its flags, one call."""

import logging as python_logging
import os
import pathlib
import sys

from absl import flags, logging

from groupvit_jax.errors import InputError

VERBS = ("train", "eval", "segment", "data")
USAGE = "usage: groupvit {train|eval|segment|data scenes} [--flags]; groupvit VERB --help lists a verb's flags"


def verb_module(verb: str):
    """The module of a verb; imported here, so that `data` does not wait for JAX."""
    if verb == "train":
        from groupvit_jax.cli import train as module
    elif verb == "eval":
        from groupvit_jax.cli import eval as module
    elif verb == "segment":
        from groupvit_jax.cli import segment as module
    elif verb == "data":
        from groupvit_jax.cli import data as module
    else:
        raise InputError(f"unknown command {verb!r}; {USAGE}")
    return module


def config_folders(argv: list[str]) -> list[str]:
    """Where `from configs import base` in a --config file is looked for: beside the file's folder, and here."""
    files = [arg.partition("=")[2].partition(":")[0] for arg in argv if arg.startswith(("--config=", "-config="))]
    return [*(str(pathlib.Path(file).absolute().parent.parent) for file in files), os.getcwd()]


def run(argv: list[str]) -> None:
    """Runs `groupvit ARGV...`; raises InputError for what the user got wrong."""
    if not argv or argv[0] in ("help", "--help", "-h"):
        print(USAGE)
        return
    module = verb_module(argv[0])
    module.define_flags()
    sys.path[:0] = config_folders(argv)
    if {"--help", "-h", "-help"} & set(argv):
        print(module.__doc__)
        print(flags.FLAGS.module_help(module.__name__))
        return
    try:
        rest = flags.FLAGS(["groupvit " + argv[0], *argv[1:]])[1:]
    except Exception as error:  # a configuration is a Python file, and ml_collections runs it while flags are read
        raise InputError(" ".join(f"{error or type(error).__name__}".split())) from None
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(message)s"))
    # Orbax and JAX tell of their inner life at INFO; a reader of the log wants the run's.
    logging.get_absl_logger().addFilter(lambda record: record.levelno > python_logging.INFO
                                        or "groupvit" in record.pathname)
    module.main(rest)


def main() -> None:
    try:
        run(sys.argv[1:])
    except InputError as error:
        print(f"groupvit: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
