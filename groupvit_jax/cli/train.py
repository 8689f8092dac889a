"""groupvit train --config=FILE --workdir=DIR: trains; run again, it goes on where it stopped."""

from absl import flags, logging
from ml_collections import config_flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "configuration file; override a field by --config.a.b=value",
                                    lock_config=True)
    flags.DEFINE_string("workdir", None, "folder for checkpoints, metrics.jsonl and TensorBoard events")
    flags.DEFINE_bool("multihost", False, "one process a host of a pod: join the others before anything else")
    flags.DEFINE_string("coordinator", None, "with --multihost where nothing (a TPU pod, SLURM, Open MPI) tells the "
                        "processes of each other: HOST:PORT of process 0")
    flags.DEFINE_integer("processes", None, "likewise: how many there are")
    flags.DEFINE_integer("process", None, "likewise: this one's number, from 0")


def main(rest: list[str]) -> None:
    if rest:
        raise InputError(f"train takes no argument {rest[0]!r}: write --config=FILE --workdir=DIR")
    if FLAGS.config is None or FLAGS.workdir is None:
        raise InputError("train needs --config=FILE and --workdir=DIR, as in "
                         "groupvit train --config=configs/scenes.py --workdir=runs/first")
    import jax  # after the flags: a typing error should not wait for it

    if FLAGS.multihost:
        try:
            jax.distributed.initialize(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
        except ValueError as error:  # nothing told it who the others are
            raise InputError(f"--multihost: {error} Give --coordinator, --processes and --process") from None
    from groupvit_jax.evals.runner import Evaluator
    from groupvit_jax.training import loop

    last = loop.train(FLAGS.config, FLAGS.workdir, Evaluator.from_config)
    logging.info("done: %s", "  ".join(f"{name} {value:.4g}" for name, value in last.items()))
