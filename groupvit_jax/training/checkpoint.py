"""Checkpoints: the model, the optimizer, the place in the data and the configuration, written by Orbax.

A checkpoint is a folder `WORKDIR/checkpoints/STEP` with three items: `model` (parameters and batch statistics: what
evaluation and export read), `optimizer` (its state and the step) and `meta` (JSON: configuration, data position,
metrics). Orbax writes to a temporary name and renames, so that what has a step's name was written whole; checksums go
with it, so that what a disk did to it since is seen, and the one before is taken.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policies

from groupvit_jax import parallel
from groupvit_jax.errors import InputError, RunAgain
from groupvit_jax.interop import reading
from groupvit_jax.models import two_towers
from groupvit_jax.training import checksums
from groupvit_jax.training import state as states
from groupvit_jax.training.state import State

HALF_WRITTEN = ".orbax-checkpoint-tmp"  # behind a step, in what Orbax has not yet renamed


def folder(workdir: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(workdir).expanduser().absolute() / "checkpoints"


class Manager(ocp.CheckpointManager):
    def reached_preemption(self, step: int) -> bool:
        """Asks nobody: what Orbax asks JAX, from a thread too, would disturb preemption.Notice."""
        return False


class Checkpoints:
    """The checkpoints of one run. Newer ones than the newest that is whole are set aside first, and half-written ones
    removed; InputError when there are some and none is whole."""

    def __init__(self, workdir: str, keep: int = 3, best: Sequence[str] = (), keep_every: int = 0) -> None:
        """keep: how many of the newest stay; best: scores, by each of which the best one stays, too; keep_every: those
        of every so many steps stay, too, if it is not 0."""
        self._needed = 0  # bytes of the last checkpoint, this process's part
        self._saving, self._saved_at = 0, time.monotonic()  # step of the last checkpoint, and when it began
        kept = [policies.LatestN(keep), *map(best_by, best)] + [policies.EveryNSteps(keep_every)] * (keep_every > 0)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            best_fn=(lambda scores: 0.0) if best else None,  # so that Orbax stores the scores and reads them again
            async_options=ocp.AsyncOptions(post_finalization_callback=self._sum), create=True)
        try:
            remove_half_written(folder(workdir))
            set_damaged_aside(folder(workdir))
            self.manager = Manager(folder(workdir), options=options)
        except OSError as error:
            raise InputError(f"cannot read or write checkpoints in {folder(workdir)} ({error.strerror or error}): "
                             "mend that, choose another --workdir or make room") from None
        # Each process lists the folder, and a network's file system may show one what it was a moment ago.
        if len(set(newest := parallel.gather_lines([str(self.latest())]))) > 1:
            raise RunAgain(f"the hosts see different newest checkpoints in {folder(workdir)} ({', '.join(newest)}): is "
                           "it one folder that all share? It may be late on some")

    def latest(self, before: float = float("inf")) -> int | None:
        """The newest step, or the newest before that one."""
        return max((step for step in self.manager.all_steps() if step < before), default=None)

    def save(self, state: State, config: ConfigDict, position: int, metrics: dict[str, Any],
             scores: dict[str, float] | None = None, owed: bool = False) -> float:
        """Starts saving, and returns for how many seconds training had to wait; the next save, `wait` or `close` waits
        for the rest. `position` is the next batch's number; scores: of an evaluation of this very state; owed: it was
        due and put off."""
        meta = {"config": to_json(config), "position": position, "metrics": metrics, "owed": owed}
        began, step = time.monotonic(), int(state.step)
        with self._room():
            self._check_free(state)
            self.manager.wait_until_finished()  # of the one before, which knows itself by `_saving`
            self._saving, self._saved_at = step, began
            saved = self.manager.save(step, args=ocp.args.Composite(
                model=ocp.args.StandardSave(state.variables),
                optimizer=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
                meta=ocp.args.JsonSave(meta)), metrics=scores or {})
        if not saved:  # it takes no step before its newest
            raise RuntimeError(f"Orbax has not saved step {step}, its newest is {self.latest()}")
        return time.monotonic() - began

    def minutes(self) -> float:
        """Since the last save began, or since this run began."""
        return (time.monotonic() - self._saved_at) / 60

    def _sum(self) -> None:
        """Called by Orbax when everything is written and not yet renamed."""
        if jax.process_index() == 0:
            for part in self.manager.directory.glob(f"{self._saving}{HALF_WRITTEN}*"):
                checksums.write(pathlib.Path(part))

    def restore(self, step: int, like: State) -> tuple[State, int]:
        """The state at `step` in the shapes and shardings of `like` (arrays or abstract), and the data position."""
        with self._readable(step):
            items = self.manager.restore(step, args=ocp.args.Composite(
                model=ocp.args.StandardRestore(like.variables),
                optimizer=ocp.args.StandardRestore({"step": like.step, "opt_state": like.opt_state}),
                meta=ocp.args.JsonRestore()))
        return State(**items.optimizer, **items.model), items.meta["position"]

    def meta(self, step: int) -> dict[str, Any]:
        """{"config", "position", "metrics", "owed"} of the checkpoint at `step`."""
        with self._readable(step):
            return self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

    def _readable(self, step: int) -> contextlib.AbstractContextManager:
        return readable(pathlib.Path(self.manager.directory) / str(step))

    def wait(self) -> None:
        with self._room():
            self.manager.wait_until_finished()

    def close(self) -> None:
        with self._room():
            try:
                self.manager.wait_until_finished()
            finally:
                self.manager.close()

    def _check_free(self, state: State) -> None:
        """Refuses before writing what cannot fit: Orbax, when it meets a full disk, prints pages of its inner life."""
        self._needed = sum(x.nbytes for x in jax.tree.leaves(state)) // jax.process_count()
        if shutil.disk_usage(self.manager.directory).free < self._needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk surfaces as whichever of Orbax's threads fails first
            if not is_about_room(error) and self._has_room():
                raise
            raise InputError(f"no space to write a checkpoint under {self.manager.directory}: make room and run the "
                             "same command again; it goes on from the last whole checkpoint") from None

    def _has_room(self) -> bool:
        """Whether a file of the last checkpoint's size can be written: quotas and limits count, not only free bytes."""
        try:
            with tempfile.TemporaryFile(dir=self.manager.directory) as file:
                for start in range(0, self._needed, 1 << 24):
                    file.write(bytes(min(1 << 24, self._needed - start)))
            return True
        except OSError as error:
            return not is_about_room(error)


def remove_half_written(directory: pathlib.Path) -> None:
    """Here, as Orbax would in a thread that a run which is refused does not wait for. What somebody still writes to may
    stay: it is in nobody's way, as Orbax removes it when it saves that step."""
    if jax.process_index() == 0:
        for path in directory.glob(f"*{HALF_WRITTEN}*"):
            try:
                shutil.rmtree(path)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    raise


def set_damaged_aside(directory: pathlib.Path) -> None:
    """Renames checkpoints newer than the newest whole one to STEP.damaged, once for all processes; and older ones whose
    scores are damaged, as Orbax reads those of all."""
    lines = []
    if jax.process_index() == 0:
        steps = steps_in(directory)
        step, damaged = newest_whole(directory, steps)
        for older in steps[:steps.index(step)] if step is not None else ():
            if what := checksums.problem(directory / str(older), "metrics/"):
                damaged[older] = what
        for number, what in damaged.items():
            lines.append(f"checkpoint {number} in {directory} is damaged: {what}")
            if step is not None:
                aside = directory / f"{number}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                (directory / str(number)).rename(aside)
                logging.warning("%s; now named %s; that of step %d is taken", lines[-1], aside.name, step)
        lines = lines if step is None else []
    if lines := parallel.gather_lines(lines):
        raise InputError(f"{lines[0]}; and no older one is whole: remove that folder to train from the beginning")


def newest_whole(directory: pathlib.Path, steps: Sequence[int]) -> tuple[int | None, dict[int, str]]:
    """The newest of these steps with nothing wrong, None if there is none; and what is wrong with the newer ones."""
    damaged: dict[int, str] = {}
    for step in sorted(steps, reverse=True):
        if not (what := checksums.problem(directory / str(step))):
            return step, damaged
        damaged[step] = what
    return None, damaged


def steps_in(directory: pathlib.Path) -> list[int]:
    return sorted(int(p.name) for p in directory.glob("*") if is_step(p.name))


def is_step(name: str) -> bool:
    return name.isdecimal() and name.isascii()


@contextlib.contextmanager
def readable(checkpoint: pathlib.Path) -> Iterator[None]:
    """Turns what goes wrong while reading into an InputError, where there are no checksums that would have told."""
    try:
        yield
    except Exception as error:
        if (checkpoint / checksums.NAME).exists():
            raise
        raise InputError(f"{checkpoint} cannot be read ({str(error)[:200]}): it is damaged or of a version without "
                         "checksums; remove it, and the one before is taken") from error


def best_by(score: str) -> policies.BestN:
    """Keeps the checkpoint with the highest score of that name, of those that have it."""
    return policies.BestN(get_metric_fn=lambda scores: scores.get(score, float("-inf")), n=1,
                          keep_checkpoints_without_metrics=False)


def is_about_room(error: Exception) -> bool:
    words = ("No space", "RESOURCE_EXHAUSTED", "File too large", "quota")  # tensorstore's errors have no errno
    return isinstance(error, OSError | ValueError) and any(word in str(error) for word in words)


class Loaded(NamedTuple):
    """A model as it was saved: the run's configuration, {"params", "batch_stats"}, the training's step and metrics."""

    config: ConfigDict
    variables: dict[str, Any]
    step: int
    metrics: dict[str, Any]


def load(path: str, sharding: jax.sharding.Sharding | None = None) -> Loaded:
    """The model of a training workdir's newest checkpoint, of WORKDIR/checkpoints/STEP, of what `groupvit import` made,
    or of PyTorch's weights as `interop.reading` reads them; its arrays lie as `sharding` says, on one device if None.

    Raises InputError when `path` holds none of these.
    """
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    directory, steps = find(path)
    if directory is None or steps is None:
        weights = reading.read(path)
        variables = jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__),
                                 weights.variables)
        return Loaded(weights.config, variables, weights.step, weights.metrics)
    step, damaged = newest_whole(directory, steps)
    for number, what in damaged.items():
        if step is None:
            raise InputError(f"--checkpoint={path}: step {number} is damaged ({what}), and none before it is whole: "
                             "give another")
        logging.warning("the checkpoint of step %d in %s is damaged (%s): taking that of step %d", number, directory,
                        what, step)
    assert step is not None  # there are steps, and none of them would be damaged
    with readable(directory / str(step)), ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(
            read_only=True, create=False, save_interval_steps=0)) as manager:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        config = ConfigDict(meta["config"])
        model = two_towers.build(config.model, multi_label=config.data.prompts > 0)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
                            states.abstract_variables(model))
        variables = manager.restore(step, args=ocp.args.Composite(model=ocp.args.StandardRestore(like))).model
    return Loaded(config, variables, step, meta["metrics"])


def find(path: str) -> tuple[pathlib.Path, list[int]] | tuple[None, None]:
    """The folder of checkpoints and the steps of which `load` would take the newest whole one; None twice if it would
    take PyTorch's weights. InputError for a path that is neither."""
    place = pathlib.Path(path).expanduser().absolute()
    one = place.parent.name == "checkpoints" and is_step(place.name)
    directory = place.parent if one else folder(path)
    try:
        steps = steps_in(directory) if directory.is_dir() else []
    except OSError as error:  # a name too long, or a folder that is not ours to read
        raise InputError(f"--checkpoint={path[:200]}: {error.strerror}; give a --workdir") from None
    if one and steps and int(place.name) not in steps:
        raise InputError(f"--checkpoint={path}: there is no such step; there are {', '.join(map(str, steps))}")
    if not steps and reading.is_weights(path):
        return None, None
    if not steps and (directory.parent / "metrics.jsonl").is_file():
        raise InputError(f"--checkpoint={path}: the --workdir of a training run that has saved no checkpoint yet: "
                         "start it again, or set --config.checkpoint.every to fewer steps")
    if not steps:
        raise InputError(f"--checkpoint={path}: no checkpoint there; give the --workdir of a training run (a folder "
                         "with checkpoints/STEP in it), a Hugging Face folder, a .safetensors or a .pth")
    return directory, [int(place.name)] if one else steps


def save_weights(workdir: str | os.PathLike, loaded: Loaded | reading.Weights) -> None:
    """A checkpoint of weights that were not trained here: without an optimizer, so that no training goes on from it."""
    with ocp.CheckpointManager(folder(workdir)) as manager:
        meta = {"config": to_json(loaded.config), "metrics": loaded.metrics, "imported": True}
        manager.save(loaded.step, args=ocp.args.Composite(
            model=ocp.args.StandardSave(loaded.variables), meta=ocp.args.JsonSave(meta)))
    checksums.write(folder(workdir) / str(loaded.step))


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Plain containers, tuples as lists: the same before and after a checkpoint."""
    return json.loads(config.to_json())
