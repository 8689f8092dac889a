"""The flags of a run on several hosts, one process each."""

import contextlib
import os
import sys
from typing import NoReturn

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_bool("multihost", False, "one process a host of a pod: join the others before anything else")
    flags.DEFINE_string("coordinator", None, "with --multihost where nothing (a TPU pod, SLURM, Open MPI) tells the "
                        "processes of each other: HOST:PORT of process 0")
    flags.DEFINE_integer("processes", None, "likewise: how many there are")
    flags.DEFINE_integer("process", None, "likewise: this one's number, from 0")


def join(heartbeat: float = 100.0) -> None:
    """With --multihost, waits for the other processes; InputError if nothing says who they are.

    heartbeat: seconds after which JAX takes a silent process for dead, and aborts the others.
    """
    if not FLAGS.multihost:
        if given := [name for name in ("coordinator", "processes", "process") if FLAGS[name].present]:
            raise InputError(f"--{given[0]} says how several processes find each other: give --multihost, too")
        return
    if FLAGS.coordinator and not FLAGS.coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator={FLAGS.coordinator}: give HOST:PORT of process 0")
    import jax  # after the flags: a typing error should not wait for it

    try:
        jax.distributed.initialize(FLAGS.coordinator, FLAGS.processes, FLAGS.process,
                                   heartbeat_timeout_seconds=int(heartbeat))
    except (ValueError, RuntimeError) as error:  # nothing told it who the others are, or they do not answer
        raise InputError(f"--multihost: {error} Give --coordinator, --processes and --process") from None


def joined() -> bool:
    """Whether this process is one of several."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def leave(code: int) -> NoReturn:
    """sys.exit; but a process that joined others ends at once: JAX would wait for them, who may be gone or wait for
    this one."""
    if joined():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
