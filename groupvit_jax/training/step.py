"""One training step: augment, forward, loss, gradient, update. Compiled once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from groupvit_jax import parallel
from groupvit_jax.data.packing import Packed, rows_of
from groupvit_jax.data.pipeline import group_size
from groupvit_jax.models.two_towers import TwoTowers
from groupvit_jax.training.augment import augment
from groupvit_jax.training.loss import contrastive
from groupvit_jax.training.state import State

Batch = dict[str, jax.Array]
Step = Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]


def train_step(model: TwoTowers, tx: optax.GradientTransformation, schedule: optax.Schedule, flip: float, erase: float,
               key: jax.Array, state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
    """State and batch ({"image": uint8 [b h w 3], "text": int32 [b t l] or Packed}) -> next state and
    float32 scalar metrics.

    All randomness comes from `key` and the step number, so that a resumed run repeats an undisturbed one.
    """
    augment_key, drop_key, gumbel_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    images = augment(augment_key, batch["image"], flip=flip, erase=erase)

    def loss_of(params: Any):
        outputs, updates = model.apply({"params": params, "batch_stats": state.batch_stats}, images, batch["text"],
                                       train=True, mutable=["batch_stats"],
                                       rngs={"drop_path": drop_key, "gumbel": gumbel_key})
        loss, metrics = contrastive(outputs)
        return loss, (metrics, updates["batch_stats"])

    gradient, (metrics, batch_stats) = jax.grad(loss_of, has_aux=True)(state.params)
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    metrics |= {"gradient_norm": optax.tree.norm(gradient), "learning_rate": schedule(state.step)}
    return State(state.step + 1, optax.apply_updates(state.params, updates), batch_stats, opt_state), metrics


def compile_step(model: TwoTowers, tx: optax.GradientTransformation, schedule: optax.Schedule, config, seed: int,
                 state: State, mesh: jax.sharding.Mesh) -> Step:
    """The step as one sharded program whose state is donated. `config` is `config.augment`; `state` may be abstract."""

    def step(state: State, batch: Batch):
        key = jax.random.key(seed)
        return train_step(model, tx, schedule, config.flip, config.erase, key, state, batch)

    shardings = jax.tree.map(lambda x: x.sharding, state)
    return jax.jit(step, donate_argnums=0, in_shardings=(shardings, parallel.batch_sharding(mesh)),
                   out_shardings=(shardings, parallel.replicated(mesh)))


def abstract_batch(config, model: TwoTowers, mesh: jax.sharding.Mesh) -> Batch:
    """Shapes, dtypes and shardings of the global batches of `config.data`: what a compilation without data needs."""
    b, side, texts, length = config.batch, model.image.image_size, 1 + config.prompts, model.text.length
    group = group_size(config)
    rows = (b // group, rows_of(config, group), config.pack_length) if config.packing else (b, texts, length)
    struct = lambda *shape, dtype=jnp.int32: jax.ShapeDtypeStruct(  # noqa: E731
        shape, dtype, sharding=parallel.batch_sharding(mesh))
    text = Packed(*[struct(*rows)] * 3, struct(b // group, group, texts, 2)) if config.packing else struct(*rows)
    return {"image": struct(b, side, side, 3, dtype=jnp.uint8), "text": text}
