"""Attention: softmax(q k^T / sqrt(d)) v, in the form that suits the platform it is compiled for."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

LANES = 128  # of a TPU's vector register: arrays occupy multiples of it along their last axis
PORTABLE = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """What is traced inside has one form for all platforms: converters to other formats do not know of a choice."""
    before = PORTABLE.set(True)
    try:
        yield
    finally:
        PORTABLE.reset(before)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: Any = None) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v for each head: q [b m h d], k and v [b n h d], mask bool [... m n] -> [b m h d].

    Heads come before tokens in the products: XLA for CPUs copies the logits three times for
    `jax.nn.dot_product_attention`, which made that half of the image tower's time.
    """
    q, k, v = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))  # [b h . d]
    if mask is None and q.shape[2] > LANES and not PORTABLE.get():
        y = jax.lax.platform_dependent(q, k, v, tpu=attend_in_parts, default=attend_whole)
    else:
        y = attend_whole(q, k, v, mask)
    return y.swapaxes(1, 2)


def attend_whole(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Attention of scaled queries: q [b h m d], k and v [b h n d], mask bool [... m n] -> [b h m d]."""
    precision = jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None
    logits = jnp.einsum("bhmd,bhnd->bhmn", q, k, precision=precision, preferred_element_type=jnp.float32)
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits).astype(v.dtype)
    return jnp.einsum("bhmn,bhnd->bhmd", weights, v, precision=precision)


def attend_in_parts(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The same without a mask, for TPUs: queries and heads in parts, the logits computed again for the gradient.

    The compiler lays the logits out with queries along the 128 lanes, where 260 occupy three rows as 384 would: 256
    and 4 are three quarters of that. Half of the heads at a time, the logits of 64 images stay in the chip's vector
    memory. docs/performance.md has what else was tried.
    """
    whole = q.shape[2] // LANES * LANES
    queries = [q] if q.shape[2] - whole > LANES // 8 else [q[:, :, :whole], q[:, :, whole:]]
    half = (q.shape[1] + 1) // 2
    part = jax.checkpoint(attend_whole)
    return jnp.concatenate([
        jnp.concatenate([part(q[:, heads], k[:, heads], v[:, heads]) for heads in (slice(half), slice(half, None))
                         if q[:, heads].size], axis=1)
        for q in queries if q.size], axis=2)
