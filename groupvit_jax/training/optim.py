"""AdamW as published: warm-up and cosine per step, decay on matrices and logit scales, clipping by the global norm."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from groupvit_jax.errors import InputError


def warmup_cosine(peak: float, start: float, end: float, warmup: int, steps: int) -> optax.Schedule:
    """Linear from `start` to `peak` over `warmup` steps; then a cosine to `end` at `steps` that runs over the whole
    length, warm-up included (so it leaves the warm-up a little under the peak, as the released recipe does)."""

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        linear = start + (peak - start) * step / max(warmup, 1)
        cosine = end + 0.5 * (peak - end) * (1 + jnp.cos(jnp.pi * jnp.minimum(step / max(steps, 1), 1.0)))
        return jnp.where(step < warmup, linear, cosine)

    return schedule


def decay_mask(params: Any) -> Any:
    """True where weight decay applies: tensors of rank 2 and more that are not biases, and the logit scales."""

    def decays(path: tuple, x: jax.Array) -> bool:
        name = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1]  # parameters may be boxed
        return name.endswith("_scale") if x.ndim == 0 else x.ndim >= 2 and name != "bias"

    return jax.tree.map_with_path(decays, params)


def build(config: ConfigDict, batch: int, warmup: int, steps: int,
          ) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of `config.optim` and its learning rate as a function of the step.

    Learning rates are given for a batch of `lr_batch` and scale with the global `batch`; lengths are in steps.
    Unknown keys are errors.
    """
    return _build(**config, batch=batch, warmup=warmup, steps=steps)


def _build(*, lr: float, lr_start: float, lr_end: float, lr_batch: int, b1: float, b2: float, eps: float,
           weight_decay: float, clip_norm: float, batch: int, warmup: int, steps: int,
           ) -> tuple[optax.GradientTransformation, optax.Schedule]:
    rate, most = (0, 1e3), 1e6
    for name, value, (low, high) in (("lr", lr, rate), ("lr_start", lr_start, rate), ("lr_end", lr_end, rate),
                                     ("lr_batch", lr_batch, (1, 1e9)), ("b1", b1, (0, 1)), ("b2", b2, (0, 1)),
                                     ("eps", eps, (0, 1)), ("weight_decay", weight_decay, (0, most)),
                                     ("clip_norm", clip_norm, (1e-6, most))):
        if not low <= value <= high:  # nor NaN
            raise InputError(f"config.optim.{name}={value}: give a number from {low:g} to {high:g}")
    if warmup >= steps:
        raise InputError(f"the warm-up of {warmup} steps is not shorter than the training of {steps} steps: "
                         "lower config.train.warmup_steps or warmup_epochs, or train longer")
    scale = batch / lr_batch
    schedule = warmup_cosine(lr * scale, lr_start * scale, lr_end * scale, warmup, steps)
    adamw = optax.adamw(schedule, b1, b2, eps, weight_decay=weight_decay, mask=decay_mask)
    return optax.chain(optax.clip_by_global_norm(clip_norm), adamw), schedule
