"""The console script `groupvit`: one verb, its flags, one call."""

import logging as python_logging
import pathlib
import sys
import traceback

from absl import flags, logging

from groupvit_jax.cli import arguments, hosts
from groupvit_jax.errors import InputError, RunAgain

PACKAGE = str(pathlib.Path(__file__).parent.parent)
USAGE = ("usage: groupvit {train|eval|segment|import|export|compile|data scenes|data fashion|data index|"
         "data inspect|data convert} [--flags]; groupvit VERB --help lists a verb's flags")


def verb_module(verb: str):
    """The module of a verb, as "train" or "data index"; imported here, so that `data` does not wait for JAX."""
    if verb == "train":
        from groupvit_jax.cli import train as module
    elif verb == "eval":
        from groupvit_jax.cli import eval as module
    elif verb == "segment":
        from groupvit_jax.cli import segment as module
    elif verb == "import":
        from groupvit_jax.cli import import_weights as module
    elif verb == "export":
        from groupvit_jax.cli import export as module
    elif verb == "compile":
        from groupvit_jax.cli import compile as module
    elif verb == "data scenes":
        from groupvit_jax.cli import data_scenes as module
    elif verb == "data fashion":
        from groupvit_jax.cli import data_fashion as module
    elif verb == "data index":
        from groupvit_jax.cli import data_index as module
    elif verb == "data inspect":
        from groupvit_jax.cli import data_inspect as module
    elif verb == "data convert":
        from groupvit_jax.cli import data_convert as module
    else:
        raise InputError(f"unknown command {verb!r}; {USAGE}")
    return module


def run(argv: list[str]) -> None:
    """Runs `groupvit ARGV...`; raises InputError for what the user got wrong."""
    if not argv:
        raise InputError(USAGE)
    if argv[0] == "data":
        argv = [" ".join(argv[:2]), *argv[2:]]
    if argv[0].removeprefix("data ") in ("help", "--help", "-help", "-h"):
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
    for part in (logging.get_absl_logger(), logging.get_absl_handler()):  # Orbax logs by one, JAX past it
        part.addFilter(of_interest)
    module.main(rest)


def of_interest(record: python_logging.LogRecord) -> bool:
    """The run's own log, and others' warnings; Orbax tells of its inner life at that level too."""
    least = python_logging.ERROR if "orbax" in record.pathname else python_logging.WARNING
    return record.pathname.startswith(PACKAGE) or record.levelno >= least


def main() -> None:
    try:
        run(sys.argv[1:])
    except (InputError, RunAgain) as error:
        print("groupvit:", *str(error).split(), file=sys.stderr)  # one line, whatever was quoted
        if isinstance(error, RunAgain):  # on all hosts, which may wait for each other still
            sys.exit(RunAgain.code)
        hosts.leave(2, error)
    except KeyboardInterrupt as error:
        hosts.leave(130, error)
    except Exception as error:
        if not hosts.joined():
            raise
        traceback.print_exc()
        hosts.leave(1, error)
