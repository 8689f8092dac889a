"""The text tower: CLIP's causal transformer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from groupvit_jax.data.packing import Packed
from groupvit_jax.models.layers import Block, Inits, layer_norm, quick_gelu

normal = nn.initializers.normal


class TextTower(nn.Module):
    """CLIP's text encoder; the feature is read at the end-of-text token, the highest id of a row.

    Attributes:
      vocabulary: number of token ids; length: number of positions; width, heads, depth: of the transformer.
    """

    vocabulary: int
    length: int
    width: int
    heads: int
    depth: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, text: jax.Array | Packed) -> jax.Array:
        """int32 tokens [b l], l up to `length`, or texts packed in rows -> [b c], or of packed texts [G n c]."""
        # Initial deviations are CLIP's (its `initialize_parameters`).
        inits = Inits(normal(self.width**-0.5), normal(self.width**-0.5 * (2 * self.depth) ** -0.5),
                      normal((2 * self.width) ** -0.5), normal(self.width**-0.5 * (2 * self.depth) ** -0.5))
        # Looked up in float32: the gradient of a row is the sum over thousands of texts, too many for bfloat16.
        embed = nn.Embed(self.vocabulary, self.width, dtype=jnp.float32, name="tokens",
                         embedding_init=nn.with_logical_partitioning(normal(0.02), ("vocabulary", "embed")))
        table = self.param("positions", nn.with_logical_partitioning(normal(0.01), ("positions", "embed")),
                           (self.length, self.width))
        if isinstance(text, Packed):
            tokens, segments, positions = (rows.reshape(-1, rows.shape[-1]) for rows in text[:3])  # [b l], b = G r
            same_text = segments[:, None, :, None] == segments[:, None, None, :]  # [b 1 l l]
        else:
            tokens, positions, same_text = text, jnp.arange(text.shape[1]), None
        x = (embed(tokens) + table[positions]).astype(self.dtype)  # [b l c]
        x = nn.with_logical_constraint(x, ("batch", "length", "activation"))
        for i in range(self.depth):
            x = Block(self.heads, 4, quick_gelu, inits, True, 0.0, self.dtype, name=f"block{i}")(
                x, mask=same_text)
        # Attention is causal and positions are independent after it: take the one feature, then the norm.
        x = at_places(x, text.places) if isinstance(text, Packed) else at_end(x, tokens)
        return layer_norm(self.dtype, "norm")(x)


def at_end(x: jax.Array, tokens: jax.Array) -> jax.Array:
    """Features [b l c] of tokens [b l] -> [b c], at the first place of the highest id."""
    return jnp.take_along_axis(x, tokens.argmax(axis=-1)[:, None, None], axis=1)[:, 0]


def at_places(x: jax.Array, places: jax.Array) -> jax.Array:
    """Features of packed rows [G*r l c], places [G g t 2] -> [G g*t c]; each group reads its own rows only, which with
    groups split over devices moves nothing between them."""
    groups, length = places.shape[0], x.shape[1]
    flat = (places[..., 0] * length + places[..., 1]).reshape(groups, -1, 1)  # [G g*t 1]
    return jnp.take_along_axis(x.reshape(groups, -1, x.shape[-1]), flat, axis=1)
