"""One training step: augment, forward, loss, gradient, update; whole, or with micro-batches in less memory."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from groupvit_jax import parallel
from groupvit_jax.models.layers import fold
from groupvit_jax.models.two_towers import TwoTowers
from groupvit_jax.training import vitals
from groupvit_jax.training.augment import augment
from groupvit_jax.training.loss import contrastive
from groupvit_jax.training.state import State

Batch = dict[str, jax.Array]
TOWERS = {"image": ("image", "image_projector"), "text": ("text", "text_projector")}  # parameters of each


def train_step(model: TwoTowers, tx: optax.GradientTransformation, schedule: optax.Schedule, flip: float, erase: float,
               microbatches: int, parts: int, key: jax.Array, state: State,
               batch: Batch) -> tuple[State, dict[str, jax.Array]]:
    """State and batch ({"image": uint8 [b h w 3], "text": int32 [b t l] or Packed}) -> next state and
    float32 scalar metrics.

    A step whose loss or gradient is not finite is skipped: its state is the one before, except that the step number
    and the optimizer's counts go on, and so the learning rate with them.

    Metrics: those of `loss.contrastive`; of `vitals.of_groups` for each stage I that groups, mean over images;
    `gradient_norm`, before it is clipped, and `gradient_norm_image` and `gradient_norm_text` of a tower with its
    projector; `update_ratio`, the norm of what was added to the parameters relative to theirs, of `vitals.sampled`;
    `learning_rate`; `skipped`, 1 or 0.

    All randomness comes from `key`, the step number and a picture's place in the batch, so that a resumed run repeats
    an undisturbed one, and neither the devices nor `microbatches` change what is drawn.
    """
    keys = fold_each(jax.random.fold_in(key, state.step), len(batch["image"]))
    stages = vitals.stages(model.image.group_tokens)

    def encode(params: Any, batch: Batch, keys: jax.Array) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
        images = augment(fold(keys, 0), batch["image"], flip=flip, erase=erase)
        features = model.apply({"params": params}, images, batch["text"], fold(keys, 1), method="encode")
        of_stages = map(vitals.of_groups, stages, jax.lax.stop_gradient(features.assignments))
        return (features.image, features.texts), {name: x for found in of_stages for name, x in found.items()}

    def loss_of(params: Any, image: jax.Array, texts: jax.Array) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
        outputs, updates = model.apply({"params": params, "batch_stats": state.batch_stats}, image, texts, True,
                                       method="project", mutable=["batch_stats"])
        loss, metrics = contrastive(outputs, parts=parts)
        return loss, (metrics, updates["batch_stats"])

    gradient, of_images, (metrics, batch_stats) = gradients(encode, loss_of, microbatches, state.params, batch, keys)
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    new = State(state.step + 1, optax.apply_updates(state.params, updates), batch_stats, opt_state)
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
    ratio = optax.tree.norm(vitals.sampled(updates)) / optax.tree.norm(vitals.sampled(state.params))
    metrics |= {name: x.mean() for name, x in of_images.items()}
    metrics |= {f"gradient_norm_{tower}": optax.tree.norm([gradient[name] for name in names])
                for tower, names in TOWERS.items()}
    metrics |= {"gradient_norm": norm, "update_ratio": jnp.where(finite, ratio, 0.0),
                "learning_rate": schedule(state.step), "skipped": 1.0 - finite}
    return kept(finite, new, state), metrics


def kept(finite: jax.Array, new: State, old: State) -> State:
    """The new state where it is finite, else the old one with the new counts: the leaves that are integers."""
    return jax.tree.map(lambda x, y: jnp.where(finite, x, y) if jnp.issubdtype(x.dtype, jnp.floating) else x, new, old)


def gradients(encode: Callable, loss_of: Callable, microbatches: int, params: Any, *inputs: Any) -> tuple:
    """The gradient of loss_of(params, *features)[0], with features, aux = encode(params, *inputs); and both auxs.

    With microbatches > 1 only one of so many parts of the batch has its activations in memory, and the result is the
    same: all parts are encoded, the loss sees the features of the whole batch, and then each part is encoded again to
    carry back what the loss wants of its features (Gao et al., GradCache, arXiv:2101.06983). Accumulating the parts'
    own losses would be something else: a contrastive loss has as many negatives as its batch is large.
    """
    whole_loss = jax.value_and_grad(loss_of, argnums=(0, 1, 2), has_aux=True)
    if microbatches == 1:
        features, pull, used = jax.vjp(lambda params: encode(params, *inputs), params, has_aux=True)
        (_, aux), (of_loss, *of_features) = whole_loss(params, *features)
        (of_towers,) = pull(tuple(of_features))
        return jax.tree.map(jnp.add, of_towers, of_loss), used, aux

    groups = math.gcd(*(len(x) for x in jax.tree.leaves(inputs)))
    parts = split(inputs, microbatches, groups)
    features, used = join(jax.lax.map(lambda part: encode(params, *part), parts), groups)
    (_, aux), (of_loss, *of_features) = whole_loss(params, *features)

    def add(total: Any, part_and_wanted: tuple) -> tuple[Any, None]:
        part, wanted = part_and_wanted
        _, pull, _ = jax.vjp(lambda params: encode(params, *part), params, has_aux=True)
        return jax.tree.map(jnp.add, total, pull(wanted)[0]), None

    gradient, _ = jax.lax.scan(add, of_loss, (parts, split(tuple(of_features), microbatches, groups)))
    return gradient, used, aux


def split(tree: Any, k: int, groups: int) -> Any:
    """Arrays [n ...], n a multiple of `groups` -> [k n/k ...]. Every k-th group is in the same part, so that each
    device has its share of every part."""
    def one(x: jax.Array) -> jax.Array:
        x = x.reshape(groups // k, k, len(x) // groups, *x.shape[1:]).swapaxes(0, 1)
        return parallel.over_batch(x.reshape(k, -1, *x.shape[3:]), axis=1)

    return jax.tree.map(one, tree)


def join(tree: Any, groups: int) -> Any:
    """The reverse of `split`."""
    def one(x: jax.Array) -> jax.Array:
        k, n = x.shape[:2]
        x = x.reshape(k, groups // k, n * k // groups, *x.shape[2:]).swapaxes(0, 1).reshape(k * n, *x.shape[2:])
        return parallel.over_batch(x)

    return jax.tree.map(one, tree)


def fold_each(key: jax.Array, n: int) -> jax.Array:
    """A key for each of n samples: [n]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))
