"""The flags of a run on several hosts, one process each."""

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_bool("multihost", False, "one process a host of a pod: join the others before anything else")
    flags.DEFINE_string("coordinator", None, "with --multihost where nothing (a TPU pod, SLURM, Open MPI) tells the "
                        "processes of each other: HOST:PORT of process 0")
    flags.DEFINE_integer("processes", None, "likewise: how many there are")
    flags.DEFINE_integer("process", None, "likewise: this one's number, from 0")


def join() -> None:
    """With --multihost, waits for the other processes; InputError if nothing says who they are."""
    if not FLAGS.multihost:
        if given := [name for name in ("coordinator", "processes", "process") if FLAGS[name].present]:
            raise InputError(f"--{given[0]} says how several processes find each other: give --multihost, too")
        return
    if FLAGS.coordinator and not FLAGS.coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator={FLAGS.coordinator}: give HOST:PORT of process 0")
    import jax  # after the flags: a typing error should not wait for it

    try:
        jax.distributed.initialize(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
    except (ValueError, RuntimeError) as error:  # nothing told it who the others are, or they do not answer
        raise InputError(f"--multihost: {error} Give --coordinator, --processes and --process") from None
