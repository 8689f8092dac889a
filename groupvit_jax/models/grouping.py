"""The grouping block: tokens of one stage in, the segments they form out (the paper, section 3.1).

Every step is that of the released models, which add to the paper's text the pre-assign attention and the 1.0 under
the average; without them the published numbers are not reached.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from groupvit_jax.models.layers import Inits, Mlp, attend, dense, exact_gelu, layer_norm


class TokenMlp(nn.Module):
    """MLP over the token axis (as in MLP-Mixer): m tokens become g."""

    tokens: int
    hidden: int
    inits: Inits
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # [b m c] -> [b g c]
        mlp = Mlp(self.hidden, self.tokens, exact_gelu, self.inits, self.dtype, ("tokens", "mlp", "tokens"), name="mlp")
        return mlp(x.swapaxes(1, 2)).swapaxes(1, 2)


class CrossAttention(nn.Module):
    """Pre-assign attention: group tokens look at the image tokens; post-norm, no norm before the attention."""

    heads: int
    mlp_ratio: float
    inits: Inits
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, query: jax.Array, x: jax.Array) -> jax.Array:  # [b g c], [b n c]
        c = query.shape[-1]
        shape, axes = (self.heads, c // self.heads), ("embed", "heads", "head_dim")
        q, k, v = (dense(shape, axes, self.inits.attention_in, self.dtype, name=name)(y)
                   for name, y in (("q", query), ("k", x), ("v", x)))  # [b . h d]
        y = attend(q, k, v)
        query = query + dense(c, ("heads", "head_dim", "embed"), self.inits.attention_out, self.dtype, inputs=2,
                              name="out")(y)
        y = Mlp(int(self.mlp_ratio * c), c, exact_gelu, self.inits, self.dtype, name="mlp")(
            layer_norm(self.dtype, "norm2")(query))
        return layer_norm(self.dtype, "norm_post")(query + y)  # [b g c]


def hard_assignment(logits: jax.Array) -> jax.Array:
    """One group per token, with the soft assignment's gradient (straight-through). Group axis is -2; float32."""
    soft = jax.nn.softmax(logits, axis=-2)
    hard = jax.nn.one_hot(jnp.argmax(logits, axis=-2), logits.shape[-2], axis=-2)
    return hard + soft - jax.lax.stop_gradient(soft)


class GroupingBlock(nn.Module):
    """Groups n tokens into g segments.

    `assignment_gain` multiplies the assignment's logits and `residual_gain` the group tokens where they are added to
    what was assigned to them. Both are 1 in the published model and matter in narrow ones; either can be folded
    into the weights, so that a model with other gains is still a plain GroupViT.
    """

    groups: int
    heads: int
    mlp_ratio: float
    inits: Inits
    assignment_gain: float = 1.0
    residual_gain: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, tokens: jax.Array, keys: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """x [b n c], tokens [b m c] -> segments [b g c] and the soft assignment, float32 [b g n]; `keys` [b]: of the
        noise on the assignment, when training."""
        c = x.shape[-1]
        tokens, x = layer_norm(self.dtype, "norm_tokens")(tokens), layer_norm(self.dtype, "norm_x")(x)
        tokens = TokenMlp(self.groups, c // 2, self.inits, self.dtype, name="token_mlp")(tokens)
        tokens = layer_norm(self.dtype, "norm_post_tokens")(tokens)
        tokens = CrossAttention(self.heads, self.mlp_ratio, self.inits, self.dtype, name="pre_assign")(tokens, x)

        q, k, v = (dense(c, ("embed", "embed_out"), self.inits.attention_in, self.dtype, name=name)(y)
                   for name, y in (("q", tokens), ("k", x), ("v", x)))
        precision = jax.lax.Precision.HIGHEST if self.dtype == jnp.float32 else None  # as in `Dense`
        logits = jnp.einsum("bgc,bnc->bgn", q, k, precision=precision, preferred_element_type=jnp.float32)
        logits = logits * (self.assignment_gain * c**-0.5)
        soft = jax.nn.softmax(logits, axis=-2)  # over groups
        if keys is not None:
            logits = logits + jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
        weights = hard_assignment(logits)
        # An average whose divisor is one too large: an empty group then gets zero, and the gradient stays bounded
        # (with 1e-10 in its place training was seen to diverge). Its gradient is wanted: no stop_gradient here.
        weights = weights / (weights.sum(axis=-1, keepdims=True) + 1.0)
        y = jnp.einsum("bgn,bnc->bgc", weights.astype(self.dtype), v, precision=precision)
        y = dense(c, ("embed", "embed_out"), self.inits.attention_out, self.dtype, name="out")(y)

        y = y + tokens if self.residual_gain == 1.0 else y + self.residual_gain * tokens
        y = y + Mlp(int(self.mlp_ratio * c), c, exact_gelu, self.inits, self.dtype, name="mlp")(
            layer_norm(self.dtype, "norm_mlp")(y))
        return nn.with_logical_constraint(y, ("batch", "length", "activation")), soft
