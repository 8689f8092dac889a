"""How long a run is, and when what is due: epochs and intervals of a configuration as steps."""

import dataclasses

from ml_collections import ConfigDict

from groupvit_jax.errors import InputError
from groupvit_jax.training import trace

SCORES = ("mIoU", "accuracy", "image_top1", "top1", "top5")  # by which a checkpoint can be the best


@dataclasses.dataclass(frozen=True)
class Plan:
    """Every length of a run, in steps; save_minutes beside them, 0 for none."""

    steps: int
    warmup: int
    log_every: int
    save_every: int
    save_minutes: float
    eval_every: int

    def due(self, n: int, every: int) -> bool:
        """Whether step n is one of every so many, or the last."""
        return n % every == 0 or n == self.steps


def plan(config: ConfigDict, pairs: int) -> Plan:
    """Turns epochs over `pairs` training pairs into steps, once. Raises InputError for lengths that cannot be."""
    for section, name, least in (
            ("train", "epochs", 0), ("train", "steps", 0), ("train", "warmup_epochs", 0), ("train", "warmup_steps", 0),
            ("train", "log_every", 1), ("train", "skip_limit", 1), ("train", "hang_timeout", 1),
            ("checkpoint", "every", 1), ("checkpoint", "minutes", 0), ("checkpoint", "keep", 1),
            ("checkpoint", "keep_every", 0), ("eval", "every", 0)):
        if not least <= config[section][name] < 1e12:  # nor NaN
            raise InputError(f"config.{section}.{name}={config[section][name]}: give {least} or more")
    epoch = pairs / config.data.batch
    total = config.train.steps or int(config.train.epochs * epoch)
    warmup = config.train.warmup_steps or int(config.train.warmup_epochs * epoch)
    if total < 1:
        raise InputError(f"config.train gives no step: {config.train.epochs} epochs of {pairs} pairs in batches of "
                         f"{config.data.batch}; raise train.epochs or set train.steps")
    trace.check(config.train.profile, total)
    return Plan(total, warmup, config.train.log_every, config.checkpoint.every, config.checkpoint.minutes,
                config.eval.every)


def check_best(config: ConfigDict) -> tuple[str, ...]:
    """`config.checkpoint.best`; InputError for what no evaluation in training gives."""
    best = tuple(config.checkpoint.best)
    for score in best:
        task, _, name = str(score).partition("/")
        if not config.eval.every or task not in config.eval.tasks or name not in SCORES:
            raise InputError(f"config.checkpoint.best has {score!r}: name scores of config.eval.tasks "
                             f"({', '.join(config.eval.tasks)}) as 'voc/mIoU' or 'imagenet/top1', by one of "
                             f"{', '.join(SCORES)}, and set config.eval.every")
    return best
