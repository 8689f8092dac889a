"""Zero-shot segmentation on the device: a batch of windows to class scores, to labels, to counts.

The protocol is that of the paper's evaluation (section 4.2): every pixel of a window belongs to the group that
claims it most, and has the class scores of its group. So a window is g maps of membership [g h w] and a small table of
scores [g c], and all that happens to scores per pixel (averaging windows, resizing) happens to the g maps instead of c
maps of scores; the table comes last.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from groupvit_jax import parallel
from groupvit_jax.errors import InputError
from groupvit_jax.evals.pamr import refine
from groupvit_jax.evals.prompts import Queries
from groupvit_jax.evals.tiles import COLUMNS, LABELS, ROWS, SOURCE
from groupvit_jax.evals.windows import bilinear_weights
from groupvit_jax.models.image import normalize
from groupvit_jax.models.layers import unit

CHUNK = 32  # labels scored at a time: what a data set of fewer does not have costs nothing
CARRY = 20  # bits of the lower half of a count; the upper half holds what is above
# The protocol is float32 throughout; TPUs and some GPUs would otherwise multiply with fewer bits.
einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


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


def by_label(scores: jax.Array, queries: Queries, empty: float) -> jax.Array:
    """Scores of words [... q] -> those of labels [... c], each its best word's; `empty` for labels without words."""
    out = jnp.full((*scores.shape[:-1], len(queries.real)), empty, scores.dtype)
    return out.at[..., queries.label].max(scores, mode="drop")


def score_table(segments: jax.Array, pooled: jax.Array, scale: jax.Array, queries: Queries):
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


def limit(table: jax.Array, threshold: jax.Array) -> jax.Array:
    """Of each window, [n]: the score below which there is background. It is no higher than the window's best score, so
    that no window is background only. Negative if the threshold is."""
    return jnp.minimum(threshold, table.max(axis=(1, 2)))


def with_background(table: jax.Array, threshold: jax.Array) -> jax.Array:
    """Scores [n g c] -> the same with label 0 set to 1 for the groups whose best score is below the limit, else to 0;
    as they are if the threshold is negative."""
    below = table.max(axis=-1) < limit(table, threshold)[:, None]
    return table.at[..., 0].set(jnp.where(threshold < 0, table[..., 0], below.astype(table.dtype)))


def refined_members(images: jax.Array, members: jax.Array, table: jax.Array, threshold: jax.Array):
    """Normalised images [n h w 3], int8 members [n h g w] and a table without background -> both with PAMR.

    As TCL's evaluation does it, the classes' maps are refined first and background is what then scores below the limit;
    it becomes a group of its own.
    """
    members = refine(images, members.swapaxes(1, 2).astype(jnp.float32))  # [n g h w]

    def best(window):  # the best score of each pixel, some labels at a time
        members, table = window
        chunks = table.reshape(len(table), -1, CHUNK).swapaxes(0, 1)  # [chunk g CHUNK]
        return lax.map(lambda chunk: einsum("ghw,gc->hwc", members, chunk).max(axis=-1), chunks).max(axis=0)

    below = lax.map(best, (members, table)) < limit(table, threshold)[:, None, None]
    members = jnp.concatenate([members, below[:, None].astype(members.dtype)], axis=1)
    row = jnp.zeros_like(table[:, :1]).at[..., 0].set(1.0)
    return members.swapaxes(1, 2), jnp.concatenate([table, row], axis=1)


def window_scores(model, variables, windows: jax.Array, queries: Queries, refined: bool = False) -> WindowScores:
    """uint8 windows [n h w 3] -> WindowScores; `refined` by PAMR."""
    h, w = windows.shape[1:3]
    patch = model.image.patch_size
    if min(h, w) < patch:
        raise InputError(f"an image is too narrow: its windows of {w}x{h} pixels hold no patch; crop its long side")
    grid = h // patch, w // patch
    images = normalize(windows)
    features = model.apply(variables, images[:, : grid[0] * patch, : grid[1] * patch], method="encode_image")
    segments = unit(model.apply(variables, features.segments, method="project_image"))  # [n g d]
    pooled = unit(model.apply(variables, features.pooled, method="project_image"))  # [n d]
    scale = model.apply(variables, method="logit_scale").astype(jnp.float32)
    table, similarity = score_table(segments, pooled, scale, queries)
    stages = [group_map(features.assignments[: s + 1], grid, (h, w)) for s in range(len(features.assignments))]
    members = jax.nn.one_hot(stages[-1], segments.shape[1], axis=2, dtype=jnp.int8)  # [n h g w]
    if refined:
        members, table = refined_members(images, members, table, queries.threshold)
    else:
        table = with_background(table, queries.threshold)
    return WindowScores(members, table, similarity, tuple(stages))


def taps(low: jax.Array, part: jax.Array, start: jax.Array, share: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Along one side, what m pixels of a tile are of a window's pixels: the first of n neighbours, and weights [m n].

    low, part: see `windows.Side`; start: of the window on its canvas; share [h]: what each pixel of it counts.
    """
    low = low - start
    first = jnp.clip(low[0], 0, len(share) - n)
    at, low = jnp.arange(n), (low - first)[:, None]
    weights = jnp.where(at == low, 1 - part[:, None], 0.0) + jnp.where(at == low + 1, part[:, None], 0.0)
    return first, weights * lax.dynamic_slice_in_dim(share, first, n)


def tile_members(members: jax.Array, batch: dict, t: jax.Array, k: jax.Array) -> jax.Array:
    """What the pixels of tile t get of window k's groups: members [b h g w] -> float32 [g ROWS*COLUMNS]."""
    h, groups, w = members.shape[1:]
    n, view, start = (min(SOURCE, h), min(SOURCE, w)), batch["view"][k], batch["start"][k]
    y, rows = taps(batch["low_y"][t, view], batch["part_y"][t, view], start[0], batch["share_y"][k], n[0])
    x, columns = taps(batch["low_x"][t, view], batch["part_x"][t, view], start[1], batch["share_x"][k], n[1])
    source = lax.dynamic_slice(members, (k, y, 0, x), (1, n[0], groups, n[1]))[0].astype(jnp.float32)
    out = einsum("rgx,cx->rgc", einsum("ry,ygx->rgx", rows, source), columns)
    return out.swapaxes(0, 1).reshape(groups, ROWS * COLUMNS)


def best_label(table: jax.Array, members: jax.Array, first, number, labels: jax.Array) -> jax.Array:
    """The label that scores highest in each of p pixels, the first if equal: int32 [p].

    table [b chunk CHUNK g] of all windows; members [k g p] of the tile's, `number` from `first`; labels: how many.
    """
    pixels, place = members.shape[-1], jnp.arange(CHUNK, dtype=jnp.int32)[:, None]

    def better(j, carry):
        best, label = carry
        add = lambda k, scores: scores + einsum("cg,gp->cp", table[first + k, j], members[k])  # noqa: E731
        scores = lax.fori_loop(0, number, add, jnp.zeros((CHUNK, pixels)))
        here = scores.max(axis=0)
        found = jnp.where(scores == here, place, CHUNK).min(axis=0)  # argmax, in a form that CPUs vectorise
        return jnp.maximum(best, here), jnp.where(here > best, j * CHUNK + found, label)

    chunks = -(-labels // CHUNK)
    return lax.fori_loop(0, chunks, better, (jnp.full(pixels, -1.0), jnp.zeros(pixels, jnp.int32)))[1]


def owners_of(members: jax.Array, number: jax.Array) -> jax.Array:
    """Members [k g p] -> int32 [p]: window * g + group of the largest share in each pixel, the first if equal."""
    groups, pixels = members.shape[1:]

    def larger(k, carry):
        largest, owner = carry
        share, group = members[k].max(axis=0), members[k].argmax(axis=0).astype(jnp.int32)
        return jnp.maximum(share, largest), jnp.where(share > largest, k * groups + group, owner)

    return lax.fori_loop(0, number, larger, (jnp.zeros(pixels), jnp.zeros(pixels, jnp.int32)))[1]


def tally(counts: jax.Array, rows: jax.Array, columns: jax.Array, valid: jax.Array) -> jax.Array:
    """Counts int32 [r c] and one more for each pair (row, column) of the pixels that are valid."""
    return counts.at[jnp.where(valid, rows, counts.shape[0]), columns].add(1, mode="drop")


def count_device(refined: bool, oracle: bool, scores: WindowScores, labels: jax.Array,
                 batch: dict) -> dict[str, jax.Array]:
    """One device's windows and tiles (see `tiles.pack`) -> int32 counts (see `empty_sums`)."""
    b, _, groups, _ = scores.members.shape
    real_groups = groups - refined  # the others are background
    table = scores.table.reshape(b, groups, -1, CHUNK).transpose(0, 2, 3, 1)  # [b chunk CHUNK g]

    def add_tile(t, carry):
        confusion, owned, members = carry
        first, number = batch["first"][t], batch["number"][t]
        members = lax.fori_loop(0, number, lambda k, members: members.at[k].set(
            tile_members(scores.members, batch, t, first + k)), members)
        truth = batch["truth"][t].astype(jnp.int32).ravel()
        label = best_label(table, members, first, number, labels)
        confusion = tally(confusion, truth, label, truth < labels)
        if oracle:
            owner = owners_of(members[:, :real_groups], number)
            owned = tally(owned, first * real_groups + owner, truth, truth < labels)
        return confusion, owned, members

    blank = jnp.zeros((LABELS, LABELS), jnp.int32)
    owned, members = jnp.zeros((b * real_groups, LABELS), jnp.int32), jnp.zeros((b, groups, ROWS * COLUMNS))
    confusion, owned, _ = lax.fori_loop(0, batch["tiles"], add_tile, (blank, owned, members))
    out = {"confusion": confusion}
    if oracle:  # each group of each window is named by the majority of its own pixels
        out["oracle"] = blank.at[:, owned.argmax(axis=-1)].add(owned.T)
    real = batch["image"] < b
    used = scores.members[:, :, :real_groups].any(axis=(1, 3)).sum(axis=1)
    best = jnp.full((b, LABELS), -jnp.inf).at[batch["image"]].max(scores.similarity, mode="drop").argmax(axis=-1)
    hits = jnp.take_along_axis(batch["present"], best[:, None], axis=1)
    return out | {"windows": real.sum(), "groups": (used * real).sum(), "hits": hits.sum()}


def empty_sums(devices: int, oracle: bool) -> dict[str, np.ndarray]:
    """Of each device, counts as (upper, lower) int32 [devices 2 ...].

    confusion [truth label]; oracle: the same with each group of each window named by its own majority; windows; groups:
    in use, summed over windows; hits: images of which the label nearest to the whole image is in the mask.
    """
    shapes = {"confusion": (LABELS, LABELS), "windows": (), "groups": (), "hits": ()}
    shapes |= {"oracle": (LABELS, LABELS)} if oracle else {}
    return {name: np.zeros((devices, 2, *shape), np.int32) for name, shape in shapes.items()}


def carried(sums: jax.Array, counts: jax.Array) -> jax.Array:
    """Adds counts int32 [...], each below 2**31 - 2**CARRY, to sums [2 ...]."""
    lower = sums[1] + counts
    return jnp.stack([sums[0] + (lower >> CARRY), lower & ((1 << CARRY) - 1)])


def total(sums: np.ndarray) -> np.ndarray:
    """Sums [devices 2 ...] -> int64 [...]."""
    return ((sums[:, 0].astype(np.int64) << CARRY) + sums[:, 1]).sum(axis=0)


def all_scores(model, variables, windows: jax.Array, number: jax.Array, queries: Queries, refined: bool,
               at_once: int) -> WindowScores:
    """uint8 windows [devices b h w 3], of which each device has up to `number` -> WindowScores [devices b ...].

    The towers see `at_once` windows of a device at a time: on a CPU one alone stays in its caches.
    """
    devices, _, *shape = windows.shape

    def score(windows):  # [devices at_once h w 3]
        scores = window_scores(model, variables, windows.reshape(-1, *shape), queries, refined)._replace(stages=())
        return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), scores)

    def add(j, scores):
        new = score(lax.dynamic_slice_in_dim(windows, j * at_once, at_once, axis=1))
        return jax.tree.map(lambda all, x: lax.dynamic_update_slice_in_dim(all, x, j * at_once, axis=1), scores, new)

    blank = jax.eval_shape(score, windows[:, :at_once])
    blank = jax.tree.map(lambda x: jnp.zeros((devices, windows.shape[1], *x.shape[2:]), x.dtype), blank)
    return lax.fori_loop(0, -(-number // at_once), add, blank)


def make_counter(model, mesh: jax.sharding.Mesh, at_once: int = 16, flip: bool = False, refined: bool = False,
                 oracle: bool = False) -> Callable[..., dict]:
    """The one program for images: `count(variables, queries, sums, batch) -> sums`, for whatever data set.

    batch: of each device what `tiles.pack` gives, [devices ...], split over the mesh as a training batch is, its
    windows a multiple of `at_once`, which the towers see together. sums: `empty_sums`, split likewise; donated.
    """
    split = parallel.batch_sharding(mesh)

    def count(variables, queries: Queries, sums, batch):
        number = (batch["image"] < batch["image"].shape[1]).sum(axis=1).max()
        scores = all_scores(model, variables, batch["windows"], number, queries, refined, at_once)

        def device(scores, labels, sums, batch):
            scores, sums, batch = jax.tree.map(lambda x: x[0], (scores, sums, batch))
            if flip:
                mirrored = batch["mirrored"][:, None, None, None]
                scores = scores._replace(members=jnp.where(mirrored, scores.members[..., ::-1], scores.members))
            counts = count_device(refined, oracle, scores, labels, batch)
            return jax.tree.map(lambda x: x[None], {name: carried(sums[name], counts[name]) for name in sums})

        rest = {name: x for name, x in batch.items() if name != "windows"}
        # What follows the towers loops as often as a device's own images need.
        return jax.shard_map(device, mesh=mesh, in_specs=(split.spec, jax.P(), split.spec, split.spec),
                             out_specs=split.spec, check_vma=False)(scores, queries.real.sum(), sums, rest)

    return jax.jit(count, donate_argnums=2, out_shardings=split)
