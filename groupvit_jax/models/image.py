"""The image tower: patches in, segments out (the paper, section 3.1, figure 2)."""

import functools
import itertools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from groupvit_jax.data.images import MEAN, STD
from groupvit_jax.models.grouping import GroupingBlock, TokenMlp
from groupvit_jax.models.layers import (
    Inits,
    dense,
    exact_gelu,
    fold,
    layer_norm,
    partitioned,
    rematerialized,
    truncated_normal,
)

PUBLISHED_WIDTH = 384


class ImageFeatures(NamedTuple):
    """What the tower gives: `pooled` [b c], `segments` [b g c], `assignments`: a soft float32 [b g n] per grouping."""

    pooled: jax.Array
    segments: jax.Array
    assignments: tuple[jax.Array, ...]


class ImageTower(nn.Module):
    """GroupViT's hierarchical transformer.

    Attributes:
      image_size: side of the training images in pixels; other sizes resize the position embedding.
      patch_size: side of a patch in pixels.
      width, heads, mlp_ratio: of every block.
      depths, group_tokens, output_groups: one entry a stage; a stage with 0 group tokens does not group.
      drop_path: rate at the last block, rising linearly from 0 at the first.
      init_std: deviation of the linear maps' initial weights at the published width; a map's gain is std * sqrt(width),
        so that other widths take init_std * sqrt(384 / width) and start with the same gain.
      group_token_std: deviation of the first stage's group tokens at the start.
      position_std: deviation of the position embedding at the start, which is added to patches of deviation 1.
      assignment_gain, residual_gain: see `GroupingBlock`.
      remat: what the gradient keeps of each block, see `layers.REMAT`.
    """

    image_size: int
    patch_size: int
    width: int
    heads: int
    mlp_ratio: float
    depths: tuple[int, ...]
    group_tokens: tuple[int, ...]
    output_groups: tuple[int, ...]
    drop_path: float
    init_std: float = 0.02
    group_token_std: float = 0.02
    position_std: float = 0.02
    assignment_gain: float = 1.0
    residual_gain: float = 1.0
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, images: jax.Array, keys: jax.Array | None = None) -> ImageFeatures:
        """Normalised float images [b h w 3], h and w multiples of the patch -> ImageFeatures. With keys [b] it trains:
        they are of each image's drop-path and Gumbel noise."""
        numbers = itertools.count()
        of_next = lambda: None if keys is None else fold(keys, next(numbers))  # noqa: E731
        inits = Inits(*[truncated_normal(self.init_std * (PUBLISHED_WIDTH / self.width) ** 0.5)] * 4)
        rates = iter(np.linspace(0.0, self.drop_path, sum(self.depths)).tolist())
        x, previous, assignments = self.embed(images, inits), None, []
        for s, (depth, n_tokens, groups) in enumerate(zip(self.depths, self.group_tokens, self.output_groups)):
            tokens = self.stage_tokens(s, n_tokens, previous, x.shape[0], inits) if n_tokens else None
            n = x.shape[1]
            if tokens is not None:
                x = jnp.concatenate([x, tokens], axis=1)  # [b n+m c]
            for i in range(depth):
                x = rematerialized(self.remat)(
                    self.heads, self.mlp_ratio, exact_gelu, inits, False, next(rates), self.dtype,
                          name=f"stage{s}_block{i}")(x, of_next())
            if tokens is not None:
                x, previous = x[:, :n], x[:, n:]
                x, soft = GroupingBlock(groups, self.heads, self.mlp_ratio, inits, self.assignment_gain,
                                        self.residual_gain, self.dtype, name=f"stage{s}_grouping")(
                                            x, previous, of_next())
                assignments.append(soft)
        segments = layer_norm(self.dtype, "norm")(x)  # [b g c]
        return ImageFeatures(segments.mean(axis=1), segments, tuple(assignments))

    def embed(self, images: jax.Array, inits: Inits) -> jax.Array:
        b, h, w, _ = images.shape
        p, side = self.patch_size, self.image_size // self.patch_size
        if h % p or w % p:
            raise ValueError(f"images of {h}x{w} pixels do not divide into patches of {p}: resize or crop them")
        x = images.astype(self.dtype).reshape(b, h // p, p, w // p, p, 3)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, (h // p) * (w // p), p * p * 3)  # [b n p*p*3]
        x = dense(self.width, ("patch", "embed"), inits.mlp_in, self.dtype, name="patch")(x)
        x = layer_norm(self.dtype, "patch_norm")(x)
        positions = self.param("positions", partitioned(
            truncated_normal(self.position_std), ("one", "positions", "embed")), (1, side * side, self.width))
        positions = resize_positions(positions, (side, side), (h // p, w // p)).astype(self.dtype)
        return nn.with_logical_constraint(x + positions, ("batch", "length", "activation"))

    def stage_tokens(self, s: int, n: int, previous: jax.Array | None, b: int, inits: Inits) -> jax.Array:
        """Learned group tokens of stage s [b n c], plus what the previous stage's tokens become."""
        init = truncated_normal(self.group_token_std) if previous is None else nn.initializers.zeros
        tokens = self.param(f"stage{s}_tokens", partitioned(init, ("one", "tokens", "embed")),
                            (1, n, self.width))
        tokens = jnp.broadcast_to(tokens.astype(self.dtype), (b, n, self.width))
        if previous is None:
            return tokens
        previous = layer_norm(self.dtype, f"stage{s}_tokens_norm")(previous)
        return tokens + TokenMlp(n, self.width // 2, inits, self.dtype, name=f"stage{s}_tokens_mlp")(previous)


def normalize(images: jax.Array) -> jax.Array:
    """uint8 [... 3] -> float32 [... 3], minus ImageNet's mean, over its standard deviation: what the tower takes."""
    return (jnp.asarray(images, jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)


def resize_positions(positions: jax.Array, old: tuple[int, int], new: tuple[int, int]) -> jax.Array:
    """Resizes a grid of embeddings [1 n c] bicubically, exactly as PyTorch's `interpolate(mode="bicubic")`."""
    if old == new:
        return positions
    rows, columns = bicubic_weights(old[0], new[0]), bicubic_weights(old[1], new[1])
    grid = positions.reshape(*old, positions.shape[-1])
    grid = jnp.einsum("yh,xw,hwc->yxc", rows, columns, grid, precision=jax.lax.Precision.HIGHEST)
    return grid.reshape(1, new[0] * new[1], -1)


@functools.cache
def bicubic_weights(n_in: int, n_out: int, a: float = -0.75) -> np.ndarray:
    """The matrix [n_out n_in] of PyTorch's bicubic resize: half-pixel centres, clamped borders, no antialiasing.

    `jax.image.resize` differs in all of them (a = -0.5, taps outside the border dropped, antialiased when shrinking).
    """
    centre = (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5
    first = np.floor(centre).astype(int)
    weights = np.zeros((n_out, n_in))
    for tap in range(-1, 3):
        d = np.abs(centre - (first + tap))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        np.add.at(weights, (np.arange(n_out), np.clip(first + tap, 0, n_in - 1)), np.where(d <= 1, near, far))
    return weights.astype(np.float32)
