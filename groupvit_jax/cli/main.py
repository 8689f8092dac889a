"""The console script `groupvit`: one verb, its flags, one call."""

import logging as python_logging
import pathlib
import sys

from absl import flags, logging

from groupvit_jax.cli import arguments
from groupvit_jax.errors import InputError

PACKAGE = str(pathlib.Path(__file__).parent.parent)
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


def run(argv: list[str]) -> None:
    """Runs `groupvit ARGV...`; raises InputError for what the user got wrong."""
    if not argv:
        raise InputError(USAGE)
    if argv[0] in ("help", "--help", "-help", "-h"):
        print(USAGE)
        return
    module = verb_module(argv[0])
    module.define_flags()
    if {"--help", "-h", "-help"} & set(argv):
        print(module.__doc__)
        print(flags.FLAGS.module_help(module.__name__).partition(":\n")[2])
        return
    rest = arguments.parse(argv)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(message)s"))
    # JAX tells of its inner life at INFO, Orbax at WARNING too; a reader of the log wants the run's.
    logging.get_absl_handler().addFilter(lambda record: record.pathname.startswith(PACKAGE) or record.levelno > (
        python_logging.WARNING if "orbax" in record.pathname else python_logging.INFO))
    module.main(rest)


def main() -> None:
    try:
        run(sys.argv[1:])
    except InputError as error:
        print("groupvit:", *str(error).split(), file=sys.stderr)  # one line, whatever was quoted
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
