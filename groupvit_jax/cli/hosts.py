"""The flags of a run on several hosts, one process each."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
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
    wait_in_abort()


def wait_in_abort() -> None:
    """When process 0 has gone, JAX aborts the others from a thread of its own. Lets that thread sleep first, while the
    main one, whose step or whose wait fails at the same time, says what happened and ends the process: the C library's
    `sleep`, as the handler, gets the signal's number, 6, for seconds. With no word from the main thread, the abort goes
    on."""
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def joined() -> bool:
    """Whether this process is one of several."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def leave(code: int, error: BaseException) -> NoReturn:
    """sys.exit after an error. JAX would wait for ever for others, who may be gone or wait for this one; here it has
    a moment, as all may be about to leave for the same reason, and process 0, without which JAX aborts the others, has
    longer than they. At once where the run's watch has told them."""
    if joined():
        import jax

        if not getattr(error, "others_know", False):
            shutdown = threading.Thread(target=jax.distributed.shutdown, daemon=True)
            shutdown.start()
            shutdown.join(20 if jax.process_index() == 0 else 4)  # seconds; 4 with one who waits in its abort
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
