"""groupvit train --config=FILE --workdir=DIR: trains; run again, it goes on where it stopped."""

from absl import flags, logging
from ml_collections import config_flags

from groupvit_jax.cli import hosts
from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "configuration file; override a field by --config.a.b=value",
                                    lock_config=True)
    flags.DEFINE_string("workdir", None, "folder for checkpoints, metrics.jsonl and TensorBoard events")
    hosts.define_flags()


def main(rest: list[str]) -> None:
    if rest:
        raise InputError(f"train takes no argument {rest[0]!r}: write --config=FILE --workdir=DIR")
    if FLAGS.config is None or FLAGS.workdir is None:
        raise InputError("train needs --config=FILE and --workdir=DIR, as in "
                         "groupvit train --config=configs/scenes.py --workdir=runs/first")
    hosts.join()
    from groupvit_jax.evals.runner import Evaluator
    from groupvit_jax.training import loop

    last = loop.train(FLAGS.config, FLAGS.workdir, Evaluator.from_config)
    logging.info("done: %s", "  ".join(f"{name} {value:.4g}" for name, value in last.items()))
