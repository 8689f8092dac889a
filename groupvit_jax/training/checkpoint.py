"""Checkpoints: the model, the optimizer, the place in the data and the configuration, written by Orbax.

A checkpoint is a folder `WORKDIR/checkpoints/STEP` with three items: `model` (parameters and batch statistics: what
evaluation and export read), `optimizer` (its state and the step) and `meta` (JSON: configuration, data position,
metrics). Orbax writes to a temporary name and renames, so that what has a step's name is whole.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policies

from groupvit_jax.errors import InputError
from groupvit_jax.interop import reading
from groupvit_jax.models import two_towers
from groupvit_jax.training import state as states
from groupvit_jax.training.state import State


def folder(workdir: str) -> pathlib.Path:
    return pathlib.Path(workdir).expanduser().absolute() / "checkpoints"


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, workdir: str, keep: int = 3, best: Sequence[str] = ()):
        """keep: how many of the newest stay; best: scores, by each of which the best one stays, too."""
        self._needed = 0  # bytes of the last checkpoint, this process's part
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), *map(best_by, best)]),
            best_fn=(lambda scores: 0.0) if best else None,  # so that Orbax stores the scores and reads them again
            create=True)
        try:
            self.manager = ocp.CheckpointManager(folder(workdir), options=options)
        except OSError as error:
            raise InputError(f"cannot write checkpoints to {folder(workdir)} ({error.strerror or error}): "
                             "choose another --workdir or make room") from None

    def latest(self) -> int | None:
        return self.manager.latest_step()

    def save(self, state: State, config: ConfigDict, position: int, metrics: dict[str, Any],
             scores: dict[str, float] | None = None) -> None:
        """Starts saving; the next save, `wait` or `close` waits for it. `position` is the next batch's number; scores:
        of an evaluation of this very state."""
        meta = {"config": to_json(config), "position": position, "metrics": metrics}
        step = int(state.step)
        with self._room():
            self._check_free(state)
            self.manager.save(step, args=ocp.args.Composite(
                model=ocp.args.StandardSave(state.variables),
                optimizer=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
                meta=ocp.args.JsonSave(meta)), metrics=scores or {})

    def restore(self, step: int, like: State) -> tuple[State, int]:
        """The state at `step` in the shapes and shardings of `like` (arrays or abstract), and the data position."""
        items = self.manager.restore(step, args=ocp.args.Composite(
            model=ocp.args.StandardRestore(like.variables),
            optimizer=ocp.args.StandardRestore({"step": like.step, "opt_state": like.opt_state}),
            meta=ocp.args.JsonRestore()))
        return State(**items.optimizer, **items.model), items.meta["position"]

    def meta(self, step: int) -> dict[str, Any]:
        """{"config", "position", "metrics"} of the checkpoint at `step`."""
        return self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

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
    def _room(self):
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
    directory, step = find(path)
    if directory is None:
        weights = reading.read(path)
        variables = jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__),
                                 weights.variables)
        return Loaded(weights.config, variables, weights.step, weights.metrics)
    with ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(
            read_only=True, create=False, save_interval_steps=0)) as manager:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        config = ConfigDict(meta["config"])
        model = two_towers.build(config.model, multi_label=config.data.prompts > 0)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
                            states.abstract_variables(model))
        variables = manager.restore(step, args=ocp.args.Composite(model=ocp.args.StandardRestore(like))).model
    return Loaded(config, variables, step, meta["metrics"])


def find(path: str) -> tuple[pathlib.Path, int] | tuple[None, None]:
    """The folder of checkpoints and the step that `load` would take; None twice if it would take PyTorch's weights.
    InputError for a path that is neither."""
    place = pathlib.Path(path).expanduser().absolute()
    one = place.parent.name == "checkpoints" and place.name.isdigit()
    directory = place.parent if one else folder(path)
    steps = sorted(int(p.name) for p in directory.glob("*") if p.name.isdigit()) if directory.is_dir() else []
    if one and steps and int(place.name) not in steps:
        raise InputError(f"--checkpoint={path}: there is no such step; there are {', '.join(map(str, steps))}")
    if not steps and reading.is_weights(path):
        return None, None
    if not steps:
        raise InputError(f"--checkpoint={path}: no checkpoint there; give the --workdir of a training run (a folder "
                         "with checkpoints/STEP in it), a Hugging Face folder, a .safetensors or a .pth")
    return directory, int(place.name) if one else steps[-1]


def save_weights(workdir: str | os.PathLike, loaded: Loaded | reading.Weights) -> None:
    """A checkpoint of weights that were not trained here: without an optimizer, so that no training goes on from it."""
    with ocp.CheckpointManager(folder(workdir)) as manager:
        meta = {"config": to_json(loaded.config), "metrics": loaded.metrics, "imported": True}
        manager.save(loaded.step, args=ocp.args.Composite(
            model=ocp.args.StandardSave(loaded.variables), meta=ocp.args.JsonSave(meta)))


def to_json(config: ConfigDict) -> dict[str, Any]:
    """Plain containers, tuples as lists: the same before and after a checkpoint."""
    return json.loads(config.to_json())


def check_same_model(ours: ConfigDict, theirs: dict[str, Any], workdir: str) -> None:
    """Raises InputError when a workdir's checkpoint is of another model than the configuration asks for."""
    here, there = to_json(ours), theirs
    if "group" not in there["data"]:
        raise InputError(f"--workdir={workdir} holds a run of an older version, which drew samples in another order: "
                         "choose another --workdir")
    fixed = tuple(f"config.{name}" for name in (
        "model.", "data.prompts", "data.batch", "data.group", "data.tagger", "seed"))
    changes = list(differences(there, here, "config"))
    for name, old, new in (change for part in fixed for change in changes if change[0].startswith(part)):
        raise InputError(f"--workdir={workdir} holds a run with {name}={old}, not {new}: choose another --workdir "
                         "or give the run's own configuration")
    for name, old, new in changes:
        logging.warning("%s was %s in this run so far and is %s from here on", name, old, new)


def differences(old: Any, new: Any, name: str):
    """Yields (dotted name, old value, new value) of leaves that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}")
    elif old != new:
        yield name, old, new
