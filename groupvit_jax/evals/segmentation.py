"""Zero-shot segmentation on the device: a batch of windows to class scores, to labels, to counts.

The protocol is that of the paper's evaluation (section 4.2): every pixel of a window belongs to the group that
claims it most, and has the class scores of its group. So a window is a map of groups [h w] and a small table of
scores [g c], and all that happens to scores per pixel (averaging windows, resizing) happens to g maps of membership
instead of c maps of scores; the table comes last. `windows.py` has the matrices of the way back.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from groupvit_jax.errors import InputError
from groupvit_jax.evals.windows import bilinear_weights, hat
from groupvit_jax.models.image import normalize
from groupvit_jax.models.layers import unit

BLOCK_ELEMENTS = 2**24  # scores held at a time: 64 MB of float32
# The protocol is float32 throughout; TPUs and some GPUs would otherwise multiply with fewer bits.
einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


class WindowScores(NamedTuple):
    """What a batch of n windows is worth.

    stages: for each grouping stage int32 [n h w], the group of each pixel; the last one is `groups`.
    table float32 [n g c]: a group's score for each class, the protocol's; channel 0 is background if there is one.
    plain float32 [n g c]: the same without the rule of the five best classes.
    pooled float32 [n e]: cosine of the whole window with each class embedding (e = c, less the background).
    """

    stages: tuple[jax.Array, ...]
    table: jax.Array
    plain: jax.Array
    pooled: jax.Array

    @property
    def groups(self) -> jax.Array:
        return self.stages[-1]


def group_map(assignments, grid: tuple[int, int], size: tuple[int, int]) -> jax.Array:
    """Soft assignments of the stages, each [b g n] -> int32 [b h w]: to which last group each pixel belongs.

    The product of the stages says how much of a patch went to which group; bilinear from the `grid` of patches to
    `size`, then the largest (the first, if equal).
    """
    shares = assignments[0].astype(jnp.float32)
    for stage in assignments[1:]:
        shares = einsum("bkg,bgn->bkn", stage.astype(jnp.float32), shares)
    shares = shares.reshape(*shares.shape[:2], *grid)  # [b g gh gw]
    rows, columns = bilinear_weights(grid[0], size[0]), bilinear_weights(grid[1], size[1])
    return einsum("hy,bgyx,wx->bghw", rows, shares, columns).argmax(axis=1).astype(jnp.int32)


def with_background(table: jax.Array, threshold: float) -> jax.Array:
    """Scores [n g c] -> [n g 1+c]: channel 0 is 1 for the groups whose best score is below the threshold, else 0.

    The threshold is no higher than the window's best score, so that no window is background only.
    """
    best = table.max(axis=-1)  # [n g]
    limit = jnp.minimum(threshold, best.max(axis=-1, keepdims=True))
    return jnp.concatenate([(best < limit)[..., None].astype(table.dtype), table], axis=-1)


def window_scores(model, variables, windows, embeddings, threshold: float | None, top: int = 5) -> WindowScores:
    """uint8 windows [n h w 3] and unit class embeddings [c d] -> WindowScores.

    threshold: of the background, None for data without. The classes outside the window's `top` best get score 0.
    """
    h, w = windows.shape[1:3]
    patch = model.image.patch_size
    if min(h, w) < patch:
        raise InputError(f"an image is too narrow: its windows of {w}x{h} pixels hold no patch; crop its long side")
    grid = h // patch, w // patch
    images = normalize(windows)[:, : grid[0] * patch, : grid[1] * patch]
    features = model.apply(variables, images, method="encode_image")
    segments = unit(model.apply(variables, features.segments, method="project_image"))  # [n g d]
    pooled = unit(model.apply(variables, features.pooled, method="project_image"))  # [n d]
    scale = model.apply(variables, method="logit_scale").astype(jnp.float32)

    similarity = einsum("nd,cd->nc", pooled, embeddings)
    logits = einsum("ngd,cd->ngc", segments, embeddings) * scale
    plain = jax.nn.softmax(logits)
    best = lax.top_k(similarity, min(top, len(embeddings)))[1]  # [n top]
    kept = (best[:, :, None] == jnp.arange(len(embeddings))).any(axis=1)  # [n c]
    table = jax.nn.softmax(jnp.where(kept[:, None], logits, -jnp.inf)) * plain
    if threshold is not None:
        table, plain = with_background(table, threshold), with_background(plain, threshold)
    stages = [group_map(features.assignments[: s + 1], grid, (h, w)) for s in range(len(features.assignments))]
    return WindowScores(tuple(stages), table, plain, similarity)


def merge(scores: WindowScores, batch: dict, first, number, at_y: jax.Array):
    """Some rows of an image from its windows first .. first + number.

    at_y [b r]: positions of the r rows in every window of the batch. Returns the protocol's and the plain scores,
    each [r W c], and each pixel's owner int32 [r W]: window (counted from `first`) * g + group of the largest share.
    """
    n_groups, n_classes = scores.table.shape[1:]
    h, w = scores.groups.shape[1:]
    shape = at_y.shape[1], batch["at_x"].shape[1]

    def add(k, sums):
        table, plain, largest, owner = sums
        rows = hat(at_y[k], h, jnp) * batch["share_y"][k]  # [r h]
        columns = hat(batch["at_x"][k], w, jnp) * batch["share_x"][k]  # [W w]
        member = jax.nn.one_hot(scores.groups[k], n_groups, axis=0)  # [g h w]
        member = einsum("rh,ghw,vw->rvg", rows, member, columns)
        share, group = member.max(axis=-1), member.argmax(axis=-1)
        owner = jnp.where(share > largest, (k - first) * n_groups + group, owner)
        return (table + einsum("rvg,gc->rvc", member, scores.table[k]),
                plain + einsum("rvg,gc->rvc", member, scores.plain[k]), jnp.maximum(share, largest), owner)

    empty = jnp.zeros((*shape, n_classes)), jnp.zeros((*shape, n_classes)), jnp.zeros(shape), jnp.zeros(shape, int)
    table, plain, _, owner = lax.fori_loop(first, first + number, add, empty)
    return table, plain, owner


def block_rows(height: int, width: int, classes: int) -> int:
    """How many rows of an image to score at a time: memory does not grow with image or classes."""
    blocks = math.ceil(height * width * classes / BLOCK_ELEMENTS)
    return math.ceil(height / blocks)


def tally(rows: jax.Array, columns: jax.Array, shape: tuple[int, int], valid: jax.Array) -> jax.Array:
    """Counts int32 [shape] of pairs (row, column) over the pixels that are valid."""
    index = jnp.where(valid, rows * shape[1] + columns, math.prod(shape)).ravel()
    return jnp.zeros(math.prod(shape), jnp.int32).at[index].add(1, mode="drop").reshape(shape)


def make_counter(
    model, classes: int, rows: int, owners: int, threshold: float | None, top: int = 5
) -> Callable[..., dict]:
    """The one program of a segmentation data set: `count(variables, embeddings, batch) -> dict` (see `pack`).

    classes: number of labels, with background; rows: scored at a time, the padded height is a multiple of it;
    owners: the largest number of windows of an image. Counts are int32 [truth prediction], summed over the batch:
      confusion, plain (without the top rule), oracle (each group of each window named by its own majority class);
      groups_used: number of groups that own a pixel, summed over real windows;
      similarity: float32 [i e], cosine of each image with each class embedding, the mean of its windows.
    """

    def count(variables, embeddings, batch):
        scores = window_scores(model, variables, batch["windows"], embeddings, threshold, top)
        # On a mesh the towers split the windows over devices; what follows is little, and loops over windows.
        scores = jax.tree.map(lambda x: nn.with_logical_constraint(x, (None,) * x.ndim), scores)
        n_groups = scores.table.shape[1]

        def add_block(j, carry, image):
            confusion, plain_confusion, owned = carry
            at_y = lax.dynamic_slice_in_dim(batch["at_y"], j * rows, rows, axis=1)
            truth = lax.dynamic_slice_in_dim(image["mask"], j * rows, rows).astype(jnp.int32)
            table, plain, owner = merge(scores, batch, image["first"], image["number"], at_y)
            labelled, square = truth < classes, (classes, classes)
            return (confusion + tally(truth, table.argmax(axis=-1), square, labelled),
                    plain_confusion + tally(truth, plain.argmax(axis=-1), square, labelled),
                    owned + tally(owner, truth, owned.shape, labelled))

        def add_image(sums, image):
            owned = jnp.zeros((owners * n_groups, classes), jnp.int32)
            blocks = -(-image["height"] // rows)
            confusion, plain, owned = lax.fori_loop(
                0, blocks, lambda j, carry: add_block(j, carry, image), (sums["confusion"], sums["plain"], owned))
            named = jax.nn.one_hot(owned.argmax(axis=-1), classes, dtype=jnp.int32)  # [owners*g c]
            oracle = sums["oracle"] + jnp.einsum("ot,oc->tc", owned, named)
            return {"confusion": confusion, "plain": plain, "oracle": oracle}, None

        zeros = jnp.zeros((classes, classes), jnp.int32)
        images = {name: batch[name] for name in ("mask", "first", "number", "height")}
        sums, _ = lax.scan(add_image, {"confusion": zeros, "plain": zeros, "oracle": zeros}, images)
        used = (scores.groups[:, None] == jnp.arange(n_groups)[:, None, None]).any(axis=(2, 3)).sum(axis=1)  # [b]
        window = jnp.arange(len(batch["real"]))
        mine = (window >= batch["first"][:, None]) & (window < (batch["first"] + batch["number"])[:, None])  # [i b]
        similarity = einsum("ib,be->ie", mine.astype(jnp.float32), scores.pooled)
        similarity /= jnp.maximum(batch["number"], 1)[:, None]
        return sums | {"groups_used": (used * batch["real"]).sum(), "similarity": similarity}

    return jax.jit(count)


def segment(model, variables, cut, embeddings: np.ndarray, threshold: float | None, top: int = 5):
    """One image: labels int32 [H W], scores float32 [H W c], and per stage owners int32 [H W] (window * g + group).

    The same maths as the counter's, without counting; `jax.jit` it with model, threshold and top closed over.
    `cut` is a `windows.Cut`; embeddings are unit float32 [c d].
    """
    scores = window_scores(model, variables, cut.windows, embeddings, threshold, top)
    batch = {name: jnp.asarray(value) for name, value in cut._asdict().items()}
    table, _, owner = merge(scores, batch, 0, len(cut.windows), batch["at_y"])
    owners = []
    for stage, groups in zip(scores.stages[:-1], model.image.output_groups):  # the earlier stages have no scores
        blank = jnp.zeros((len(stage), groups, 1))
        stage_scores = scores._replace(stages=(stage,), table=blank, plain=blank)
        owners.append(merge(stage_scores, batch, 0, len(stage), batch["at_y"])[2])
    return table.argmax(axis=-1).astype(jnp.int32), table, (*owners, owner)
