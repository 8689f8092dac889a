"""Zero-shot segmentation on the device: a batch of windows to the scores of their groups.

The protocol is that of the paper's evaluation (section 3.3): every pixel of a window belongs to the group that
claims it most, and has the class scores of its group. So a window is g maps of membership [g h w] and a small table of
scores [g c], and all that happens to scores per pixel (averaging windows, resizing) happens to the g maps instead of c
maps of scores; the table comes last.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from groupvit_jax.errors import InputError
from groupvit_jax.evals.pamr import refine
from groupvit_jax.evals.prompts import Queries
from groupvit_jax.evals.windows import bilinear_weights
from groupvit_jax.models.image import normalize
from groupvit_jax.models.layers import unit
from groupvit_jax.models.two_towers import TwoTowers

CHUNK = 32  # labels scored at a time: what a data set of fewer does not have costs nothing
# The protocol is float32 throughout; TPUs and some GPUs would otherwise multiply with fewer bits.
einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


Number = jax.Array | np.floating  # one, in the program or before


class WindowScores(NamedTuple):
    """What a batch of n windows is worth.

    members int8 [n h g w]: 1 where a pixel is a group's, else 0. When refined, float32 and in between, and there is one
    group more: of the pixels that are background.
    table float32 [n g c]: a group's score for each label; 0 for labels that there are not.
    similarity float32 [n c]: cosine of the whole window with the nearest word of each label; -inf without words.
    stages: for each grouping stage int32 [n h w], the group of each pixel; of the last one before refinement.
    """

    members: jax.Array
    table: jax.Array
    similarity: jax.Array
    stages: tuple[jax.Array, ...]


def group_shares(assignments: Sequence[jax.Array], grid: tuple[int, int]) -> jax.Array:
    """Soft assignments of the stages, each [b g n] -> float32 [b g gh gw]: how much of each patch of the `grid` went to
    which last group, the product of the stages."""
    shares = assignments[0].astype(jnp.float32)
    for stage in assignments[1:]:
        shares = einsum("bkg,bgn->bkn", stage.astype(jnp.float32), shares)
    return shares.reshape(*shares.shape[:2], *grid)


def group_map(assignments: Sequence[jax.Array], grid: tuple[int, int], size: tuple[int, int]) -> jax.Array:
    """Soft assignments of the stages, each [b g n] -> int32 [b h w]: to which last group each pixel belongs.

    The groups' shares of the patches, bilinear from the `grid` to `size`, then the largest (the first, if equal).
    """
    shares = group_shares(assignments, grid)
    rows, columns = bilinear_weights(grid[0], size[0]), bilinear_weights(grid[1], size[1])
    return einsum("hy,bgyx,wx->bghw", rows, shares, columns).argmax(axis=1).astype(jnp.int32)


def by_label(scores: jax.Array, queries: Queries, empty: float) -> jax.Array:
    """Scores of words [... q] -> those of labels [... c], each its best word's; `empty` for labels without words."""
    out = jnp.full((*scores.shape[:-1], len(queries.real)), empty, scores.dtype)
    return out.at[..., queries.label].max(scores, mode="drop")


def score_table(segments: jax.Array, pooled: jax.Array, scale: jax.Array, queries: Queries,
                ) -> tuple[jax.Array, jax.Array]:
    """Unit segments [n g d] and pooled [n d] -> table float32 [n g c] and similarity [n c], without the background.

    A softmax over all words times another over the words of the window's `top` best labels; if `top` is 0, the first
    alone.
    """
    real = queries.label < len(queries.real)
    similarity = jnp.where(real, einsum("nd,qd->nq", pooled, queries.embeddings), -jnp.inf)
    similarity = by_label(similarity, queries, -jnp.inf)  # [n c]
    top = jnp.where(queries.top > 0, queries.top, len(queries.real))
    kept = jnp.argsort(jnp.argsort(-similarity)) < top  # the first, if equal
    kept = jnp.take(kept, queries.label, axis=-1, mode="fill", fill_value=False)  # [n q]

    logits = einsum("ngd,qd->ngq", segments, queries.embeddings) * scale
    logits = jnp.where(real, logits, -jnp.inf)
    table, best = jax.nn.softmax(logits), jax.nn.softmax(jnp.where(kept[:, None], logits, -jnp.inf))
    return by_label(jnp.where(queries.top > 0, table * best, table), queries, 0.0), similarity


def limit(table: jax.Array, threshold: Number) -> jax.Array:
    """Of each window, [n]: the score below which there is background. It is no higher than the window's best score, so
    that no window is background only. Negative if the threshold is."""
    return jnp.minimum(threshold, table.max(axis=(1, 2)))


def with_background(table: jax.Array, threshold: Number) -> jax.Array:
    """Scores [n g c] -> the same with label 0 set to 1 for the groups whose best score is below the limit, else to 0;
    as they are if the threshold is negative."""
    below = table.max(axis=-1) < limit(table, threshold)[:, None]
    return table.at[..., 0].set(jnp.where(threshold < 0, table[..., 0], below.astype(table.dtype)))


def refined_members(images: jax.Array, members: jax.Array, table: jax.Array, threshold: Number,
                    ) -> tuple[jax.Array, jax.Array]:
    """Normalised images [n h w 3], int8 members [n h g w] and a table without background -> both with PAMR.

    As TCL's evaluation does it, the classes' maps are refined first and background is what then scores below the limit;
    it becomes a group of its own.
    """
    members = refine(images, members.swapaxes(1, 2).astype(jnp.float32))  # [n g h w]

    def best(window: tuple[jax.Array, jax.Array]) -> jax.Array:  # the best score of each pixel, some labels at a time
        members, table = window
        chunks = table.reshape(len(table), -1, CHUNK).swapaxes(0, 1)  # [chunk g CHUNK]
        return lax.map(lambda chunk: einsum("ghw,gc->hwc", members, chunk).max(axis=-1), chunks).max(axis=0)

    below = lax.map(best, (members, table)) < limit(table, threshold)[:, None, None]
    members = jnp.concatenate([members, below[:, None].astype(members.dtype)], axis=1)
    row = jnp.zeros_like(table[:, :1]).at[..., 0].set(1.0)
    return members.swapaxes(1, 2), jnp.concatenate([table, row], axis=1)


def encode_windows(model: TwoTowers, variables: dict[str, Any], images: jax.Array,
                   ) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array, jax.Array]:
    """Normalised windows [n h w 3] -> the stages' assignments, unit segments [n g d], unit pooled [n d], and the factor
    on their cosines. What is left of whole patches at the right and below is not looked at."""
    h, w = (side // model.image.patch_size * model.image.patch_size for side in images.shape[1:3])
    features = model.apply(variables, images[:, :h, :w], method="encode_image")
    segments = unit(model.apply(variables, features.segments, method="project_image"))
    pooled = unit(model.apply(variables, features.pooled, method="project_image"))
    return features.assignments, segments, pooled, model.apply(variables, method="logit_scale").astype(jnp.float32)


def window_scores(model: TwoTowers, variables: dict[str, Any], windows: jax.Array, queries: Queries,
                  refined: bool = False) -> WindowScores:
    """uint8 windows [n h w 3] -> WindowScores; `refined` by PAMR."""
    h, w = windows.shape[1:3]
    patch = model.image.patch_size
    if min(h, w) < patch:
        raise InputError(f"an image is too narrow: its windows of {w}x{h} pixels hold no patch; crop its long side")
    grid = h // patch, w // patch
    images = normalize(windows)
    assignments, segments, pooled, scale = encode_windows(model, variables, images)
    table, similarity = score_table(segments, pooled, scale, queries)
    stages = [group_map(assignments[: s + 1], grid, (h, w)) for s in range(len(assignments))]
    members = jax.nn.one_hot(stages[-1], segments.shape[1], axis=2, dtype=jnp.int8)  # [n h g w]
    if refined:
        members, table = refined_members(images, members, table, queries.threshold)
    else:
        table = with_background(table, queries.threshold)
    return WindowScores(members, table, similarity, tuple(stages))
