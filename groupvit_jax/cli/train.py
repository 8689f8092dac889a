"""Trains a model on pictures with captions, or goes on.

    groupvit train --config=configs/scenes.py --workdir=runs/first
    groupvit train --config=configs/scenes.py --workdir=runs/first \\
        --config.train.steps=200 --config.data.batch=64
    groupvit train --config=configs/scenes.py --workdir=runs/seeds \\
        --config.seeds="(0,1,2)"
    groupvit train --config=configs/gcc_yfcc_30e.py --dry_run

--config is a Python file; configs/base.py lists every field with its unit,
and --config.FIELD=VALUE changes one. The same command again goes on where the
run stopped. With config.seeds it trains once with each, in DIR/seed-0 and so
on. --dry_run says how large and how long the run would be, and does nothing.
"""

from absl import flags, logging
from ml_collections import config_flags

from groupvit_jax.cli import hosts
from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "configuration file; override a field by --config.a.b=value",
                                    lock_config=True)
    flags.DEFINE_string("workdir", None, "folder for checkpoints, metrics.jsonl and TensorBoard events")
    flags.DEFINE_enum("resume", "auto", ["auto", "force"], "go on with the run in --workdir, if there is one: auto "
                      "only if configuration and data compute the same, force whenever its state fits")
    flags.DEFINE_bool("report", True, "write WORKDIR/report.html at each checkpoint: curves of the metrics, and with "
                      "config.eval.every samples of what training makes of some pictures")
    flags.DEFINE_bool("dry_run", False, "print parameters, memory a chip, operations, the sharding of every array and "
                      "the time it would take; write nothing")
    flags.DEFINE_float("images_per_second", None, "with --dry_run: the throughput to tell the time for", 1e-3, 1e12)
    hosts.define_flags()


def main(rest: list[str]) -> None:
    if rest:
        raise InputError(f"train takes no argument {rest[0]!r}: write --config=FILE --workdir=DIR")
    if FLAGS.config is None or not FLAGS.workdir and not FLAGS.dry_run:
        raise InputError("train needs --config=FILE and --workdir=DIR, as in "
                         "groupvit train --config=configs/scenes.py --workdir=runs/first")
    if FLAGS.images_per_second and not FLAGS.dry_run:
        raise InputError("--images_per_second says what --dry_run reckons with: give --dry_run, too")
    hosts.join(heartbeat=FLAGS.config.train.hang_timeout + 60)  # the run's own watch speaks first
    if FLAGS.dry_run:
        print_dry_run()
        return
    from groupvit_jax.evals.runner import Evaluator
    from groupvit_jax.reports.training import Report
    from groupvit_jax.training import loop, seeds

    how = FLAGS.config, FLAGS.workdir, Evaluator.from_config, FLAGS.resume == "force", Report if FLAGS.report else None
    if FLAGS.config.seeds:
        if result := seeds.train(*how):
            print(seeds.table(result))
        return
    last = loop.train(*how)
    logging.info("done: %s", "  ".join(f"{name} {value:.4g}" for name, value in last.items()))


def print_dry_run() -> None:
    import jax

    from groupvit_jax.training import dry_run, seeds

    seeds.check(FLAGS.config.seeds)
    for line in dry_run.lines(FLAGS.config, FLAGS.images_per_second or 0.0):
        if jax.process_index() == 0:
            print(line, flush=True)
    if FLAGS.config.seeds and jax.process_index() == 0:
        print(f"\nall this {len(FLAGS.config.seeds)} times, once for each of config.seeds={FLAGS.config.seeds}")
