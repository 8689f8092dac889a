"""The text tower: CLIP's causal transformer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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
    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        """int32 [b l], l up to `length` -> [b c]."""
        # Initial deviations are CLIP's (its `initialize_parameters`).
        inits = Inits(normal(self.width**-0.5), normal(self.width**-0.5 * (2 * self.depth) ** -0.5),
                      normal((2 * self.width) ** -0.5), normal(self.width**-0.5 * (2 * self.depth) ** -0.5))
        embed = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, name="tokens",
                         embedding_init=nn.with_logical_partitioning(normal(0.02), ("vocabulary", "embed")))
        positions = self.param("positions", nn.with_logical_partitioning(normal(0.01), ("positions", "embed")),
                               (self.length, self.width))
        x = embed(tokens) + positions[: tokens.shape[1]].astype(self.dtype)  # [b l c]
        x = nn.with_logical_constraint(x, ("batch", "length", "activation"))
        for i in range(self.depth):
            x = Block(self.heads, 4, quick_gelu, inits, True, 0.0, self.dtype, name=f"block{i}")(x, train)
        # Attention is causal and positions are independent after it: take the one feature, then the norm.
        x = jnp.take_along_axis(x, tokens.argmax(axis=-1)[:, None, None], axis=1)[:, 0]  # [b c]
        return layer_norm(self.dtype, "norm")(x)
