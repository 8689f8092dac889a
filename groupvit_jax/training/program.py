"""A configuration's training as one sharded program: model, optimizer, step, and what goes in, in the abstract."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from groupvit_jax import parallel
from groupvit_jax.data import pipeline
from groupvit_jax.data.packing import Packed, rows_of
from groupvit_jax.models import two_towers
from groupvit_jax.models.two_towers import TwoTowers
from groupvit_jax.training import optim
from groupvit_jax.training import state as states
from groupvit_jax.training.state import State
from groupvit_jax.training.step import Batch, train_step


class Program(NamedTuple):
    """`step(state, batch)` gives the next state, in the place of the old one, and metrics. `state` and `batch` are
    shapes with dtypes and shardings: what a restore, or a compilation without arrays, needs."""

    model: TwoTowers
    mesh: jax.sharding.Mesh
    step: Any  # jitted: (State, Batch) -> (State, dict[str, jax.Array])
    state: State
    batch: dict[str, Any]
    create: Callable[[], State]  # a fresh state

    def trace(self) -> jax.stages.Traced:
        with parallel.use(self.mesh):
            return self.step.trace(self.state, self.batch)


def check(config: ConfigDict, mesh: jax.sharding.Mesh) -> None:
    """Raises InputError for values that cannot be, or do not fit the mesh."""
    pipeline.check(config)
    parallel.check_batch(mesh, config.data.batch, pipeline.group_size(config.data), config.train.microbatches)


def build(config: ConfigDict, mesh: jax.sharding.Mesh, warmup: int, steps: int) -> Program:
    """The program of a run of so many steps. Raises InputError for a configuration that cannot be."""
    check(config, mesh)
    model = two_towers.build(config.model, config.data.prompts > 0, config.train.remat, config.train.scan)
    tx, schedule = optim.build(config.optim, config.data.batch, warmup, steps)
    with parallel.use(mesh):
        state = states.abstract(model, tx, mesh, config.mesh.zero1)
        batch = abstract_batch(config.data, model, mesh)
    step = compile_step(model, tx, schedule, config, state, mesh)
    create = lambda: states.create(model, tx, mesh, config.seed, config.mesh.zero1)  # noqa: E731
    return Program(model, mesh, step, state, batch, create)


def compile_step(model: TwoTowers, tx: optax.GradientTransformation, schedule: optax.Schedule, config: ConfigDict,
                 state: State, mesh: jax.sharding.Mesh) -> Callable:
    augment, microbatches, parts = config.augment, config.train.microbatches, parallel.ways(mesh)

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.key(config.seed)
        return train_step(model, tx, schedule, augment.flip, augment.erase, microbatches, parts, key, state, batch)

    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(step, donate_argnums=0, in_shardings=(shardings, parallel.batch_sharding(mesh)),
                   out_shardings=(shardings, parallel.replicated(mesh)))


def abstract_batch(config: ConfigDict, model: TwoTowers, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Shapes, dtypes and shardings of the global batches of `config.data`."""
    b, side, texts, length = config.batch, model.image.image_size, 1 + config.prompts, model.text.length
    group = pipeline.group_size(config)
    rows = (b // group, rows_of(config, group), config.pack_length) if config.packing else (b, texts, length)
    struct = lambda *shape, dtype=jnp.int32: jax.ShapeDtypeStruct(  # noqa: E731
        shape, dtype, sharding=parallel.batch_sharding(mesh))
    each = struct(*rows)
    text = Packed(each, each, each, struct(b // group, group, texts, 2)) if config.packing else each
    return {"image": struct(b, side, side, 3, dtype=jnp.uint8), "text": text}
