"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020, section 3.2): maps made to follow the picture's edges.

Each pixel becomes a mean of 48 neighbours, those of like colour counting more, ten times over. That is linear in the
map, so that refining g maps of membership and then giving each group its scores refines the maps of scores.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10
OFFSETS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def neighbours(x: jax.Array) -> Iterator[jax.Array]:
    """Of [... h w] the 48 pixels that lie DILATIONS away in eight directions, each [... h w]; beyond the border, the
    border's."""
    h, w = x.shape[-2:]
    reach = max(DILATIONS)
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(reach, reach)] * 2, mode="edge")
    for d in DILATIONS:
        for i, j in OFFSETS:
            yield padded[..., reach + d * i : reach + d * i + h, reach + d * j : reach + d * j + w]


def affinity(image: jax.Array) -> jax.Array:
    """Normalised image [h w 3] -> what each pixel takes of its neighbours, [48 h w], in sum 1."""
    x = image.transpose(2, 0, 1)
    near = jnp.stack(list(neighbours(x)))  # [48 3 h w]
    # The deviation of the 54 pixels of six 3x3 neighbourhoods: each has the pixel itself in its middle.
    spread = jnp.concatenate([near, jnp.stack([x] * len(DILATIONS))]).std(axis=0, ddof=1)
    return jax.nn.softmax((-jnp.abs(x - near) / (1e-8 + 0.1 * spread)).mean(axis=1), axis=0)


def refine(images: jax.Array, maps: jax.Array) -> jax.Array:
    """Normalised images [n h w 3], maps float32 [n g h w] -> the maps refined; one image after the other."""

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        weights, x = affinity(pair[0]), pair[1]
        step = lambda _, x: sum(weight * near for weight, near in zip(weights, neighbours(x)))  # noqa: E731
        return lax.fori_loop(0, ITERATIONS, step, x)

    return lax.map(one, (jnp.asarray(images, jnp.float32), maps))

