"""The console script `groupvit`: one verb, its flags, one call."""

import logging as python_logging
import pathlib
import sys
import traceback

from absl import logging

from groupvit_jax.cli import arguments, help, hosts, verbs
from groupvit_jax.errors import InputError, RunAgain

PACKAGE = str(pathlib.Path(__file__).parent.parent)


def run(argv: list[str]) -> None:
    """Runs `groupvit ARGV...`; raises InputError for what the user got wrong."""
    if not argv:
        raise InputError("usage: groupvit VERB --flags; groupvit --help lists the commands")
    if answer := asked(argv):
        print(answer)
        return
    if argv[0] == "data":
        argv = [" ".join(argv[:2]), *argv[2:]]
    module = verbs.find(argv[0])
    module.define_flags()
    rest = arguments.parse(argv)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(message)s"))
    for part in (logging.get_absl_logger(), logging.get_absl_handler()):  # Orbax logs by one, JAX past it
        part.addFilter(of_interest)
    module.main(rest)


def asked(argv: list[str]) -> str | None:
    """The answer to --help and --version; None if something is to be done."""
    if argv[0] in ("--version", "-version", "version"):
        return help.version()
    if not set(help.WORDS[1:]) & set(argv) and "help" not in (argv[0], *argv[1:2]):
        return None
    words = [word for word in argv if not word.startswith("-") and word != "help"]
    if not words:
        return help.overview()
    if words[0] != "data":
        return help.of(words[0])
    return help.of(" ".join(words[:2])) if len(words) > 1 else help.data()


def of_interest(record: python_logging.LogRecord) -> bool:
    """The run's own log, and others' warnings; Orbax tells of its inner life at that level too."""
    least = python_logging.ERROR if "orbax" in record.pathname else python_logging.WARNING
    return record.pathname.startswith(PACKAGE) or record.levelno >= least


def main() -> None:
    try:
        run(sys.argv[1:])
    except (InputError, RunAgain) as error:
        line = " ".join(["groupvit:", *str(error).split()])  # one, whatever was quoted
        sys.stderr.write(line + "\n")  # at once, as other threads may be writing, too
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
