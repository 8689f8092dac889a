"""Training, told once: shards to a checkpoint.

The order inside the loop is the one thing to keep: a state is evaluated and saved *before* the next batch is fetched,
so that the saved place in the data and the saved step agree. A step is only dispatched: while it runs, the loop waits
for the one before and logs it, and brings the next batch to the devices. So a row of the log is written one step late,
with the counts of its own step; before a state is evaluated or saved its row is written, too.
"""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from groupvit_jax import parallel
from groupvit_jax.data import pipeline, sources
from groupvit_jax.data.examples import MakeExample
from groupvit_jax.data.health import Health
from groupvit_jax.errors import InputError, RunAgain
from groupvit_jax.training import flops, initial, record, trace, vitals
from groupvit_jax.training import program as programs
from groupvit_jax.training import state as states
from groupvit_jax.training.checkpoint import Checkpoints, to_json
from groupvit_jax.training.log import Log
from groupvit_jax.training.plan import check_best, plan
from groupvit_jax.training.preemption import Notice
from groupvit_jax.training.skips import Skips
from groupvit_jax.training.speed import Speed
from groupvit_jax.training.watch import Watch
from groupvit_jax.writer import MetricWriter, Progress, check_wandb, open_wandb

MakeEvaluator = Callable[..., Callable[[dict], dict[str, dict]]]
MakeReport = Callable[[str, Any, int], Any]


def train(config: ConfigDict, workdir: str, make_evaluator: MakeEvaluator | None = None,
          force: bool = False, make_report: MakeReport | None = None) -> dict[str, float]:
    """Runs `config` in `workdir`, from its newest checkpoint when it has one; returns the last metrics.

    Every `config.eval.every` steps the state's variables, wherever they are, are given to what
    make_evaluator(model, config.eval, mesh=mesh) makes; it returns scores by task. `force`: see record.check.
    What make_report(workdir, that evaluator, steps) makes has a `write(n, variables)` that is called at each save.
    Raises InputError for configurations and data that cannot work, before anything is written where possible; RunAgain
    when it was told to stop and has saved. A hang, or the loss of another process, ends this one (see watch.py).
    """
    with contextlib.ExitStack() as stack:
        def closing(thing: Any) -> Any:
            return stack.enter_context(contextlib.closing(thing))

        if jax.process_count() > 1:
            prepare(workdir)  # the watch writes there
        watch = stack.enter_context(Watch.of_run(workdir, config.train.hang_timeout))
        # 1. Devices, data, model, optimizer.
        mesh = parallel.create_mesh(config.mesh)
        programs.check(config, mesh)
        initial.check(config, workdir)
        check_wandb(config.train.wandb)
        opened = sources.open_sources(config.data)
        pairs, health = sum(map(len, opened)), Health(config.data.max_bad)
        health.opened(pairs, sources.problems(opened))
        lengths = plan(config, pairs)
        if config.data.prompts:  # "auto" depends on the machine, and a run must not: the checkpoint says which it was
            config = config.copy_and_resolve_references()
            config.data.tagger = sources.tagger_name(config.data, opened)
        described, fingerprint = sources.describe(config.data, opened), sources.fingerprint(config.data, opened)
        parallel.check_agreement([config.data.tagger, *described, fingerprint])
        program = programs.build(config, mesh, lengths.warmup, lengths.steps)
        model, step = program.model, program.step
        make_example = MakeExample(config.data, config.augment, model.image.image_size, model.text.length)
        batches = pipeline.Batches(opened, config.data, make_example, config.seed, *parallel.share_of_batch(mesh))
        evaluator = make_evaluator(model, config.eval, mesh=mesh) if make_evaluator and lengths.eval_every else None
        watch.doing("starting", compiles=True)  # again, as making indexes has moved
        best = check_best(config)
        collapse = vitals.Collapse(config.train.collapse, lengths.warmup, config.model.image.output_groups)
        stack.enter_context(parallel.use(mesh))

        # 2. The state: fresh, or where the last run stopped.
        prepare(workdir)
        run = stack.enter_context(record.Run(workdir, fingerprint))
        checkpoints = closing(Checkpoints(workdir, config.checkpoint.keep, best, config.checkpoint.keep_every))
        before = resumable(checkpoints, config, workdir, run, force)
        position = before.get("position", 0)
        logging.info("%s", "\n".join(described))
        if config.data.prompts:
            logging.info("words for prompts by the %s tagger", config.data.tagger)
        logging.info("%s parameters on %s; %d steps, %d done", f"{states.count_parameters(program.state):,}",
                     dict(mesh.shape), lengths.steps, position)
        if position >= lengths.steps:
            logging.info("%s is complete; to train on, raise config.train.steps or epochs and give --resume=force",
                         workdir)
            return before["metrics"]
        state = checkpoints.restore(checkpoints.latest(), program.state)[0] if before else fresh(program, config)
        notice = closing(Notice())
        run.start(config, position)
        writer = None
        if jax.process_index() == 0:
            wandb = open_wandb(config.train.wandb, run.id, workdir, to_json(config))
            writer = closing(MetricWriter(workdir, position, wandb))
        stream = closing(pipeline.stream(batches, config.data, position))
        progress = stack.enter_context(Progress("step", lengths.steps, "images", position, config.data.batch))
        pace = closing(Speed(config.data.batch, 3 * flops.forward_flops(model, program.batch), mesh))
        traced = closing(trace.Trace(config.train.profile, workdir))
        skips = Skips(config.train.skip_limit)
        report = make_report(workdir, evaluator, lengths.steps) if make_report else None
        log = Log(writer, progress, health, pace, skips, collapse, step._cache_size)
        stack.push(watch.leaves)  # before anything above is closed
        if before.get("owed") and evaluator is not None:  # the last run was told to stop at an evaluation
            watch.doing("evaluating", compiles=True)
            log.scores(position, evaluator(state.variables))

        for n, batch in enumerate(pace.batches(stream), position + 1):
            watch.doing(f"waiting for step {n}", compiles=n == position + 1)
            logs, late = lengths.due(n, lengths.log_every), False
            stops = notice.given(n) and n < lengths.steps  # the last step ends it anyway
            # 3. One step, dispatched; then wait for the one before.
            health.add(batch)
            if logs:
                counts = log.counts()
                late = bool(lengths.save_minutes) and parallel.first(checkpoints.minutes()) >= lengths.save_minutes
            with traced.step(n):
                state, metrics = step(state, parallel.to_global(mesh, batch))
            pace.ran(metrics)
            skips.add(n, metrics)
            traced.done(n, metrics)
            if skips.too_many():
                pace.wait()  # as for log.counts: restoring has collectives of its own
                state = go_back(n, skips, checkpoints, program, batches, workdir)
            # 4. Log the step before, and this one if its state is asked for.
            scores_due = evaluator is not None and lengths.due(n, lengths.eval_every)
            evaluates = scores_due and not stops  # it may take longer than one is given
            saves = (lengths.due(n, lengths.save_every) or late or bool(best) and evaluates) and not skips.row
            saves = saves or stops or n == lengths.steps
            if logs:
                log.add(n, metrics, counts)
            if evaluates or saves:
                pace.wait()
                skips.settle()
            log.write(before=n + 1 if evaluates or saves else n)
            progress.advance(1)
            run.step = n
            # 5. Evaluate, 6. save: this state, before the next batch.
            if evaluates:
                watch.doing("evaluating", compiles=True)
            scores = log.scores(n, evaluator(state.variables)) if evaluates and evaluator else {}
            if saves:
                watch.doing("saving")
                stall = checkpoints.save(state, config, n, log.last, scores, owed=scores_due and stops)
                log.put(n, {"checkpoint_stall": stall})
            if saves and report and not stops:
                watch.doing(f"writing the report of step {n}", compiles=True)  # any may be the first with samples
                report.write(n, state.variables)
            if evaluates or saves:
                pace.restart()
            if n == lengths.steps:
                logging.info("data since step %d: %s", position, health.report(parallel.total(health.counts)))
                watch.doing("saving")
                break
            if stops:
                checkpoints.wait()
                run.how = "preempted"
                raise RunAgain(f"told to stop: step {n} is saved in {workdir}, and the same command goes on from there")
            watch.doing("waiting for a batch")
    return log.last


def go_back(n: int, skips: Skips, checkpoints: Checkpoints, program: programs.Program, batches: pipeline.Batches,
            workdir: str) -> states.State:
    """The state to meet batch n + 1 with, after too many steps in a row whose loss or gradient was no number; where
    going back does not help, an InputError that names a report of these steps and what their batches held."""
    if (state := skips.back(n, checkpoints, program.state)) is None:
        rows = {step: jax.tree.map(float, jax.device_get(metrics)) for step, metrics in skips.row}
        if jax.process_index() == 0:
            vitals.report(workdir, rows, lambda step: batches.keys(step - 1))
        parallel.first(0)  # the others wait for it
        raise InputError(f"steps {min(rows)} to {max(rows)} had a loss or gradient that is no number, and there is no "
                         "checkpoint to go back to, or going back did not help: lower config.optim.lr, or look at the "
                         f"samples named in {workdir}/report-{max(rows)}.json")
    return state


def prepare(workdir: str) -> None:
    if "://" in workdir:
        raise InputError(f"--workdir={workdir}: remote folders are not written to; give a local or mounted one "
                         "(a bucket mounts with gcsfuse)")
    try:
        pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to --workdir={workdir} ({error.strerror}): choose another") from None


def resumable(checkpoints: Checkpoints, config: ConfigDict, workdir: str, run: record.Run,
              force: bool) -> dict[str, Any]:
    """`meta` of the checkpoint to go on from, {} if there is none. InputError where it is not to be gone on from."""
    latest = checkpoints.latest()
    if latest is None:
        return {}
    meta = checkpoints.meta(latest)
    if meta.get("imported"):
        raise InputError(f"--workdir={workdir} holds imported weights: choose another --workdir, and start from these "
                         f"with --config.init_from={workdir}")
    record.check(config, meta["config"], workdir, force, run.data, run.data_at(latest))
    logging.info("going on from step %d in %s", latest, workdir)
    return meta


def fresh(program: programs.Program, config: ConfigDict) -> states.State:
    state = program.create()
    return initial.start(state, config) if config.init_from.path else state
