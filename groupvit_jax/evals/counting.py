"""Windows' scores to counts, on the device: each pixel of an image in its own size gets its label and is compared.

It goes tile by tile (`tiles.py`): a tile's pixels get their shares of the groups of the windows over them by two small
matrix products a window, then the scores of these groups, CHUNK labels at a time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from groupvit_jax import parallel
from groupvit_jax.evals.prompts import Queries
from groupvit_jax.evals.segmentation import CHUNK, WindowScores, einsum, window_scores
from groupvit_jax.evals.tiles import COLUMNS, LABELS, ROWS, SOURCE
from groupvit_jax.models.two_towers import TwoTowers

Arrays = dict[str, jax.Array]
Counted = Arrays | tuple[Arrays, Arrays]  # of pictures together; told apart
CARRY = 20  # bits of the lower half of a count; the upper half holds what is above


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


def best_label(table: jax.Array, members: jax.Array, first: jax.Array, number: jax.Array,
               labels: jax.Array) -> jax.Array:
    """The label that scores highest in each of p pixels, the first if equal: int32 [p].

    table [b chunk CHUNK g] of all windows; members [k g p] of the tile's, `number` from `first`; labels: how many.
    """
    pixels, place = members.shape[-1], jnp.arange(CHUNK, dtype=jnp.int32)[:, None]

    def better(j: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
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

    def larger(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        largest, owner = carry
        share, group = members[k].max(axis=0), members[k].argmax(axis=0).astype(jnp.int32)
        return jnp.maximum(share, largest), jnp.where(share > largest, k * groups + group, owner)

    return lax.fori_loop(0, number, larger, (jnp.zeros(pixels), jnp.zeros(pixels, jnp.int32)))[1]


def tally(counts: jax.Array, rows: jax.Array, columns: jax.Array, valid: jax.Array) -> jax.Array:
    """Counts int32 [r c] and one more for each pair (row, column) of the pixels that are valid."""
    return counts.at[jnp.where(valid, rows, counts.shape[0]), columns].add(1, mode="drop")


def count_device(refined: bool, oracle: bool, apart: bool, scores: WindowScores, labels: jax.Array,
                 batch: dict) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """One device's windows and tiles (see `tiles.pack`) -> int32 counts (see `empty_sums`), and with `apart` what is
    said of each picture (see `make_counter`), else {}."""
    b, _, groups, _ = scores.members.shape
    real_groups = groups - refined  # the others are background
    table = scores.table.reshape(b, groups, -1, CHUNK).transpose(0, 2, 3, 1)  # [b chunk CHUNK g]

    def add_tile(t: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array, Arrays],
                 ) -> tuple[jax.Array, jax.Array, jax.Array, Arrays]:
        confusion, owned, members, seen = carry
        first, number = batch["first"][t], batch["number"][t]
        members = lax.fori_loop(0, number, lambda k, members: members.at[k].set(
            tile_members(scores.members, batch, t, first + k)), members)
        truth = batch["truth"][t].astype(jnp.int32).ravel()
        label = best_label(table, members, first, number, labels)
        confusion = tally(confusion, truth, label, truth < labels)
        if oracle or apart:
            owner = owners_of(members[:, :real_groups], number)
            owner = first * real_groups + owner
        if oracle:
            owned = tally(owned, owner, truth, truth < labels)
        if apart:
            valid = truth < labels
            counted = {"truth": (truth, valid), "said": (label, valid), "hit": (label, valid & (label == truth))}
            seen = {name: tally(seen[name], batch["image"][first], *pixels) for name, pixels in counted.items()} | {
                "labels": seen["labels"].at[t].set(label.reshape(ROWS, COLUMNS).astype(jnp.uint8)),
                "groups": seen["groups"].at[t].set(owner.reshape(ROWS, COLUMNS))}
        return confusion, owned, members, seen

    blank = jnp.zeros((LABELS, LABELS), jnp.int32)
    owned, members = jnp.zeros((b * real_groups, LABELS), jnp.int32), jnp.zeros((b, groups, ROWS * COLUMNS))
    seen = empty_seen(b, len(batch["truth"])) if apart else {}
    confusion, owned, _, seen = lax.fori_loop(0, batch["tiles"], add_tile, (blank, owned, members, seen))
    out = {"confusion": confusion}
    if oracle:  # each group of each window is named by the majority of its own pixels
        out["oracle"] = blank.at[:, owned.argmax(axis=-1)].add(owned.T)
    real = batch["image"] < b
    used = scores.members[:, :, :real_groups].any(axis=(1, 3)).sum(axis=1)
    best = jnp.full((b, LABELS), -jnp.inf).at[batch["image"]].max(scores.similarity, mode="drop").argmax(axis=-1)
    hits = jnp.take_along_axis(batch["present"], best[:, None], axis=1)
    return out | {"windows": real.sum(), "groups": (used * real).sum(), "hits": hits.sum()}, seen


def empty_sums(devices: int, oracle: bool) -> dict[str, np.ndarray]:
    """Of each device, counts as (upper, lower) int32 [devices 2 ...].

    confusion [truth label]; oracle: the same with each group of each window named by its own majority; windows; groups:
    in use, summed over windows; hits: images of which the label nearest to the whole image is in the mask.
    """
    shapes = {"confusion": (LABELS, LABELS), "windows": (), "groups": (), "hits": ()}
    shapes |= {"oracle": (LABELS, LABELS)} if oracle else {}
    return {name: np.zeros((devices, 2, *shape), np.int32) for name, shape in shapes.items()}


def empty_seen(windows: int, tiles: int) -> dict[str, jax.Array]:
    """Of a device's pictures, as many as windows at most: int32 counts of pixels by label [windows LABELS], in the
    truth, said and both; of its tiles the labels uint8 [tiles ROWS COLUMNS] and groups int32, window * g + group."""
    seen = {name: jnp.zeros((windows, LABELS), jnp.int32) for name in ("truth", "said", "hit")}
    tile = tiles, ROWS, COLUMNS
    return seen | {"labels": jnp.zeros(tile, jnp.uint8), "groups": jnp.zeros(tile, jnp.int32)}


def picture_miou(truth: jax.Array, said: jax.Array, hit: jax.Array) -> jax.Array:
    """Counts of pixels by label [... LABELS] -> mIoU in percent, over the labels that the picture or the prediction
    has; NaN without any."""
    union = truth + said - hit
    return 100 * (hit / jnp.maximum(union, 1)).sum(axis=-1) / (union > 0).sum(axis=-1)


def carried(sums: jax.Array, counts: jax.Array) -> jax.Array:
    """Adds counts int32 [...], each below 2**31 - 2**CARRY, to sums [2 ...]."""
    lower = sums[1] + counts
    return jnp.stack([sums[0] + (lower >> CARRY), lower & ((1 << CARRY) - 1)])


def total(sums: np.ndarray) -> np.ndarray:
    """Sums [devices 2 ...] -> int64 [...]."""
    return ((sums[:, 0].astype(np.int64) << CARRY) + sums[:, 1]).sum(axis=0)


def all_scores(model: TwoTowers, variables: dict[str, Any], windows: jax.Array, number: jax.Array,
               queries: Queries, refined: bool, at_once: int) -> WindowScores:
    """uint8 windows [devices b h w 3], of which each device has up to `number` -> WindowScores [devices b ...].

    The towers see `at_once` windows of a device at a time: on a CPU one alone stays in its caches.
    """
    devices, _, *shape = windows.shape

    def score(windows: jax.Array) -> WindowScores:  # [devices at_once h w 3]
        scores = window_scores(model, variables, windows.reshape(-1, *shape), queries, refined)._replace(stages=())
        return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), scores)

    def add(j: jax.Array, scores: WindowScores) -> WindowScores:
        new = score(lax.dynamic_slice_in_dim(windows, j * at_once, at_once, axis=1))
        return jax.tree.map(lambda all, x: lax.dynamic_update_slice_in_dim(all, x, j * at_once, axis=1), scores, new)

    blank = jax.eval_shape(score, windows[:, :at_once])
    blank = jax.tree.map(lambda x: jnp.zeros((devices, windows.shape[1], *x.shape[2:]), x.dtype), blank)
    return lax.fori_loop(0, -(-number // at_once), add, blank)


def make_counter(model: TwoTowers, mesh: jax.sharding.Mesh, at_once: int = 16, flip: bool = False,
                 refined: bool = False, oracle: bool = False, apart: bool = False) -> Callable[..., Counted]:
    """The one program for images: `count(variables, queries, sums, batch) -> sums`, for whatever data set.

    batch: of each device what `tiles.pack` gives, [devices ...], split over the mesh as a training batch is, its
    windows a multiple of `at_once`, which the towers see together. sums: `empty_sums`, split likewise; donated.

    apart: pictures are told apart, too. Then batch has "picture", int32 [devices b], a number for each of its pictures,
    -1 for none, and the program gives (sums, seen), seen whole on every device: "picture" again, "mIoU" float32
    [devices b], and of the first device's tiles "labels" uint8 [T r c] and "groups" int32, window * g + group.
    """
    split = parallel.batch_sharding(mesh)

    def count(variables: dict[str, Any], queries: Queries, sums: Arrays, batch: Arrays) -> Counted:
        number = (batch["image"] < batch["image"].shape[1]).sum(axis=1).max()
        scores = all_scores(model, variables, batch["windows"], number, queries, refined, at_once)

        def device(scores: WindowScores, labels: jax.Array, sums: Arrays, batch: Arrays) -> tuple[Arrays, Arrays]:
            scores, sums, batch = jax.tree.map(lambda x: x[0], (scores, sums, batch))
            if flip:
                mirrored = batch["mirrored"][:, None, None, None]
                scores = scores._replace(members=jnp.where(mirrored, scores.members[..., ::-1], scores.members))
            counts, seen = count_device(refined, oracle, apart, scores, labels, batch)
            sums = {name: carried(sums[name], counts[name]) for name in sums}
            return jax.tree.map(lambda x: x[None], (sums, seen))

        rest = {name: x for name, x in batch.items() if name != "windows"}
        # What follows the towers loops as often as a device's own images need.
        sums, seen = jax.shard_map(device, mesh=mesh, in_specs=(split.spec, jax.P(), split.spec, split.spec),
                                   out_specs=split.spec, check_vma=False)(scores, queries.real.sum(), sums, rest)
        if not apart:
            return sums
        miou = picture_miou(seen["truth"], seen["said"], seen["hit"])
        return sums, {"picture": batch["picture"], "mIoU": miou, "labels": seen["labels"][0],
                      "groups": seen["groups"][0]}

    out = (split, parallel.replicated(mesh)) if apart else split
    return jax.jit(count, donate_argnums=2, out_shardings=out)
