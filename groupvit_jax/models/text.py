"""The text tower: CLIP's causal transformer."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from groupvit_jax import parallel
from groupvit_jax.data.packing import Packed
from groupvit_jax.models.layers import Inits, layer_norm, partitioned, quick_gelu, rematerialized

normal = nn.initializers.normal


class TextTower(nn.Module):
    """CLIP's text encoder; the feature is read at the end-of-text token, the highest id of a row.

    Attributes:
      vocabulary: number of token ids; length: number of positions; width, heads, depth: of the transformer.
      remat: what the gradient keeps of each block, see `layers.REMAT`.
      scan: compile one block and run it `depth` times, to shorten compiling.
    """

    vocabulary: int
    length: int
    width: int
    heads: int
    depth: int
    dtype: Any = jnp.float32
    remat: str = "none"
    scan: bool = False

    @nn.compact
    def __call__(self, text: jax.Array | Packed) -> jax.Array:
        """int32 tokens [b l], l up to `length`, or texts packed in rows -> [b c], or of packed texts [G n c]."""
        # Initial deviations are CLIP's (its `initialize_parameters`).
        inits = Inits(normal(self.width**-0.5), normal(self.width**-0.5 * (2 * self.depth) ** -0.5),
                      normal((2 * self.width) ** -0.5), normal(self.width**-0.5 * (2 * self.depth) ** -0.5))
        embed = nn.Embed(self.vocabulary, self.width, dtype=jnp.float32, name="tokens",
                         embedding_init=partitioned(normal(0.02), ("vocabulary", "embed")))
        table = self.param("positions", partitioned(normal(0.01), ("positions", "embed")),
                           (self.length, self.width))
        if isinstance(text, Packed):
            tokens, segments, positions = (rows.reshape(-1, rows.shape[-1]) for rows in text[:3])  # [b l], b = G r
            same_text = segments[:, None, :, None] == segments[:, None, None, :]  # [b 1 l l]
        else:
            tokens, positions, same_text = text, jnp.arange(text.shape[1]), None
        x = (look_up(embed.embedding, tokens, self.dtype) + table[positions]).astype(self.dtype)  # [b l c]
        x = nn.with_logical_constraint(x, ("batch", "length", "activation"))
        block = functools.partial(rematerialized(self.remat), self.heads, 4, quick_gelu, inits, True, 0.0, self.dtype)
        if self.scan and not self.is_initializing():
            each = [self.variables["params"][f"block{i}"] for i in range(self.depth)]
            run = lambda x, params: block(parent=None).apply({"params": params}, x, None, same_text)  # noqa: E731
            x, _ = jax.lax.scan(lambda x, params: (run(x, params), None), x,
                                jax.tree.map(lambda *x: jnp.stack(x), *each))
        else:
            for i in range(self.depth):
                x = block(name=f"block{i}")(x, None, same_text)
        # Attention is causal and positions are independent after it: take the one feature, then the norm.
        x = at_places(x, text.places) if isinstance(text, Packed) else at_end(x, tokens)
        return layer_norm(self.dtype, "norm")(x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def look_up(table: jax.Array, ids: jax.Array, dtype: Any) -> jax.Array:
    """Rows of a float32 table [v c], ids [b l] -> [b l c].

    The gradient of a row is the sum over thousands of texts, too many for bfloat16: each device sums its own in
    float32. What devices then send each other is `dtype`, as all other gradients are.
    """
    return jnp.take(table, ids, axis=0)


def look_up_forward(table: jax.Array, ids: jax.Array, dtype: Any) -> tuple[jax.Array, tuple]:
    return look_up(table, ids, dtype), (table, ids)


def look_up_backward(dtype: Any, kept: tuple, gradient: jax.Array) -> tuple[jax.Array, None]:
    table, ids = kept
    parts = math.gcd(parallel.current_ways(), len(ids))
    each = lambda x: parallel.over_batch(x.reshape(parts, -1, *x.shape[2:]))  # noqa: E731
    sums = jax.vmap(lambda ids, gradient: jnp.zeros_like(table).at[ids].add(gradient))(each(ids), each(gradient))
    if parts == 1:
        return sums[0], None
    sums = parallel.over_batch(sums.astype(dtype))  # [parts v c]
    return jax.lax.reduce(sums, jnp.zeros((), dtype), jax.lax.add, (0,)).astype(table.dtype), None


look_up.defvjp(look_up_forward, look_up_backward)


def at_end(x: jax.Array, tokens: jax.Array) -> jax.Array:
    """Features [b l c] of tokens [b l] -> [b c], at the first place of the highest id."""
    return jnp.take_along_axis(x, tokens.argmax(axis=-1)[:, None, None], axis=1)[:, 0]


def at_places(x: jax.Array, places: jax.Array) -> jax.Array:
    """Features of packed rows [G*r l c], places [G g t 2] -> [G g*t c]; each group reads its own rows only, which with
    groups split over devices moves nothing between them."""
    groups, length = places.shape[0], x.shape[1]
    flat = (places[..., 0] * length + places[..., 1]).reshape(groups, -1, 1)  # [G g*t 1]
    return jnp.take_along_axis(x.reshape(groups, -1, x.shape[-1]), flat, axis=1)
