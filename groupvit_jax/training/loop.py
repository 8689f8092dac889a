"""Training, told once: shards to a checkpoint.

The order inside the loop is the one thing to keep: a state is evaluated and saved *before* the next batch is fetched,
so that the saved place in the data and the saved step agree. A step is only dispatched: while it runs, the loop waits
for the one before and logs it, and brings the next batch to the devices. So a row of the log is written one step late,
with the counts of its own step; before a state is evaluated or saved its row is written, too.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable

import jax
from absl import logging
from ml_collections import ConfigDict

from groupvit_jax import parallel
from groupvit_jax.data import pipeline, sources
from groupvit_jax.data.examples import MakeExample
from groupvit_jax.data.health import Health
from groupvit_jax.errors import InputError
from groupvit_jax.training import flops, initial, trace
from groupvit_jax.training import program as programs
from groupvit_jax.training import state as states
from groupvit_jax.training.checkpoint import Checkpoints, check_same_model
from groupvit_jax.training.log import Log
from groupvit_jax.training.speed import Speed
from groupvit_jax.writer import MetricWriter, Progress

SCORES = ("mIoU", "accuracy", "image_top1", "top1", "top5")  # by which a checkpoint can be the best
MakeEvaluator = Callable[..., Callable[[dict], dict[str, dict]]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Every length of a run, in steps."""

    steps: int
    warmup: int
    log_every: int
    save_every: int
    eval_every: int

    def due(self, n: int, every: int) -> bool:
        """Whether step n is one of every so many, or the last."""
        return n % every == 0 or n == self.steps


def plan(config: ConfigDict, pairs: int) -> Plan:
    """Turns epochs over `pairs` training pairs into steps, once."""
    epoch = pairs / config.data.batch
    total = config.train.steps or int(config.train.epochs * epoch)
    warmup = config.train.warmup_steps or int(config.train.warmup_epochs * epoch)
    if total < 1:
        raise InputError(f"config.train gives no step: {config.train.epochs} epochs of {pairs} pairs in batches of "
                         f"{config.data.batch}; raise train.epochs or set train.steps")
    for section, name, least in (("train", "log_every", 1), ("checkpoint", "every", 1), ("checkpoint", "keep", 1),
                                 ("eval", "every", 0)):
        if config[section][name] < least:
            raise InputError(f"config.{section}.{name}={config[section][name]}: give {least} or more")
    trace.check(config.train.profile, total)
    return Plan(total, warmup, config.train.log_every, config.checkpoint.every, config.eval.every)


def train(config: ConfigDict, workdir: str, make_evaluator: MakeEvaluator | None = None) -> dict[str, float]:
    """Runs `config` in `workdir`, from its newest checkpoint when it has one; returns the last metrics.

    Every `config.eval.every` steps the state's variables, wherever they are, are given to what
    make_evaluator(model, config.eval, mesh=mesh) makes; it returns scores by task.
    Raises InputError for configurations and data that cannot work, before anything is written where possible.
    """
    # 1. Devices, data, model, optimizer.
    mesh = parallel.create_mesh(config.mesh)
    programs.check(config, mesh)
    initial.check(config, workdir)
    opened = sources.open_sources(config.data)
    pairs, health = sum(map(len, opened)), Health(config.data.max_bad)
    health.opened(pairs, sources.problems(opened))
    lengths = plan(config, pairs)
    if config.data.prompts:  # "auto" depends on the machine, and a run must not: the checkpoint says which it was
        config = config.copy_and_resolve_references()
        config.data.tagger = sources.tagger_name(config.data, opened)
    parallel.check_agreement([config.data.tagger, *sources.describe(config.data, opened)])
    program = programs.build(config, mesh, lengths.warmup, lengths.steps)
    model, step = program.model, program.step
    make_example = MakeExample(config.data, config.augment, model.image.image_size, model.text.length)
    batches = pipeline.Batches(opened, config.data, make_example, config.seed, *parallel.share_of_batch(mesh))
    evaluator = make_evaluator(model, config.eval, mesh=mesh) if make_evaluator and lengths.eval_every else None
    best = check_best(config)

    with parallel.use(mesh), contextlib.ExitStack() as stack:
        # 2. The state: fresh, or where the last run stopped.
        prepare(workdir)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, config.checkpoint.keep, best)))
        state, position = resume(checkpoints, config, workdir, program)
        logging.info("%s", "\n".join(sources.describe(config.data, opened)))
        if config.data.prompts:
            logging.info("words for prompts by the %s tagger", config.data.tagger)
        logging.info("%s parameters on %s; %d steps, %d done", f"{states.count_parameters(state):,}",
                     dict(mesh.shape), lengths.steps, position)
        if position >= lengths.steps:
            logging.info("%s is complete; raise config.train.steps or epochs to train on", workdir)
            return checkpoints.meta(position)["metrics"]
        writer = None
        if jax.process_index() == 0:
            writer = stack.enter_context(contextlib.closing(MetricWriter(workdir, position)))
        work = 3 * flops.forward_flops(model, program.batch)
        stream = stack.enter_context(contextlib.closing(batches.iterate(config.data, position)))
        progress = stack.enter_context(Progress("step", lengths.steps, "images", position, config.data.batch))
        pace = stack.enter_context(contextlib.closing(Speed(config.data.batch, work, mesh)))
        traced = stack.enter_context(contextlib.closing(trace.Trace(config.train.profile, workdir)))
        log = Log(writer, progress, health, pace, step._cache_size)
        for n, batch in enumerate(pace.batches(pipeline.watched(stream)), position + 1):
            logs = lengths.due(n, lengths.log_every)
            evaluates = evaluator is not None and lengths.due(n, lengths.eval_every)
            saves = lengths.due(n, lengths.save_every) or bool(best) and evaluates
            # 3. One step, dispatched; then wait for the one before.
            health.add(batch)
            counts = log.counts() if logs else None
            with traced.step(n):
                state, metrics = step(state, parallel.to_global(mesh, batch))
            pace.ran(metrics)
            traced.done(n, metrics)
            # 4. Log the step before, and this one if its state is asked for.
            if logs:
                log.add(n, metrics, counts)
            log.write(before=n + 1 if evaluates or saves else n)
            progress.advance(1)
            # 5. Evaluate, 6. save: this state, before the next batch.
            if evaluates or saves:
                pace.wait()
                scores = log.scores(n, evaluator(state.variables)) if evaluates else {}
                if saves:
                    checkpoints.save(state, config, n, log.last, scores)
                pace.restart()
            if n == lengths.steps:
                logging.info("data since step %d: %s", position, health.report(parallel.total(health.counts)))
                break
    return log.last


def check_best(config: ConfigDict) -> tuple[str, ...]:
    """`config.checkpoint.best`; InputError for what no evaluation in training gives."""
    best = tuple(config.checkpoint.best)
    for score in best:
        task, _, name = score.partition("/")
        if not config.eval.every or task not in config.eval.tasks or name not in SCORES:
            raise InputError(f"config.checkpoint.best has {score!r}: name scores of config.eval.tasks "
                             f"({', '.join(config.eval.tasks)}) as 'voc/mIoU' or 'imagenet/top1', by one of "
                             f"{', '.join(SCORES)}, and set config.eval.every")
    return best


def prepare(workdir: str) -> None:
    if "://" in workdir:
        raise InputError(f"--workdir={workdir}: remote folders are not written to; give a local or mounted one "
                         "(a bucket mounts with gcsfuse)")
    try:
        pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to --workdir={workdir} ({error.strerror}): choose another") from None


def resume(checkpoints: Checkpoints, config: ConfigDict, workdir: str,
           program: programs.Program) -> tuple[states.State, int]:
    """The state to go on from and the number of the next batch."""
    latest = checkpoints.latest()
    if latest is None:
        state = program.create()
        return (initial.start(state, config) if config.init_from.path else state), 0
    meta = checkpoints.meta(latest)
    if meta.get("imported"):
        raise InputError(f"--workdir={workdir} holds imported weights: choose another --workdir, and start from these "
                         f"with --config.init_from={workdir}")
    check_same_model(config, meta["config"], workdir)
    logging.info("going on from step %d in %s", latest, workdir)
    return checkpoints.restore(latest, program.state)
