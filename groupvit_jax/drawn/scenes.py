"""Scenes: the embedded data set. Pictures of things on a ground, drawn from a seed, nothing to download.

A scene has one ground (sky, sand...) and up to four things (zebra, coin...), a caption that names what is
visible, and an exact mask. Masks serve evaluation only: `write` stores them for the validation scenes alone.
"""

import functools
import os
from collections.abc import Sequence

import numpy as np

from groupvit_jax.drawn import shards
from groupvit_jax.drawn.canvas import VISIBLE, Canvas
from groupvit_jax.drawn.captions import caption
from groupvit_jax.drawn.looks import BACKGROUNDS, CLASSES, OBJECTS, PALETTE
from groupvit_jax.drawn.shards import Scene

_SPLITS = ("train", "val")  # part of the random seed, so that the two never share a scene
_VERSION = 1  # raise it whenever the same (seed, index) would give another scene


def draw(
    seed: int,
    index: int,
    size: int = 64,
    *,
    split: str = "train",
    bare: float = 0.15,
    close: float = 0.15,
    repeat: float = 0.3,
    radius: tuple[float, float] = (0.24, 0.4),
    all_named: float = 0.85,
) -> Scene:
    """One scene, always the same for the same arguments.

    Args:
        seed, index: ints >= 0: which stream, which scene of it (streams have no end).
        size: side of the canvas in pixels.
        split: "train" or "val"; their streams are disjoint.
        bare: share of scenes that show a ground and nothing else.
        close: share of scenes in which one thing fills most of the canvas or all of it.
        repeat: share of the other scenes, where room allows, that hold several of one kind ("two coins").
        radius: smallest and largest radius of a thing as a share of the canvas; the more things, the smaller.
        all_named: share of captions that name everything visible; the others leave one class out.
    Returns:
        Scene.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPLITS.index(split), index)))
    canvas = Canvas(rng, 2 * size)  # drawn at twice the size, for smooth edges
    kind = rng.random()
    if kind >= bare + close:
        count = rng.choice(4, p=(0.3, 0.35, 0.25, 0.1)) + 1
        kinds = rng.permutation(len(OBJECTS))[:count]
        if rng.random() < repeat:
            kinds[-1] = kinds[0]  # one thing: no change
        largest = radius[1] - 0.2 * (count - 1) * (radius[1] - radius[0])
        for k in kinds:
            canvas.place(k, rng.uniform(radius[0], largest))
    elif kind >= bare:
        canvas.place(int(rng.integers(len(OBJECTS))), rng.uniform(0.55, 1.1), close=True)
    image, mask = canvas.develop()
    shares = np.bincount(mask.ravel(), minlength=len(CLASSES)) / mask.size
    names = tuple(name for name, share in zip(CLASSES, shares, strict=True) if share >= VISIBLE)
    return Scene(image, mask, _caption(rng, names, canvas.kinds, all_named), names)


def _caption(rng: np.random.Generator, names: Sequence[str], kinds: list[int], all_named: float) -> str:
    said = list(names)
    if len(said) > 1 and rng.random() >= all_named:
        # The ground, or one thing of several: "sand" would be an odd name for a picture of a brick on sand.
        spare = [name for name in names if name in BACKGROUNDS or len(set(kinds)) > 1]
        said.remove(spare[rng.integers(len(spare))])
    counts = {name: kinds.count(OBJECTS.index(name)) for name in said if name in OBJECTS}
    return caption(rng, counts, next((name for name in said if name in BACKGROUNDS), None))


def write(output: str | os.PathLike, train: int, val: int, seed: int = 0, size: int = 64,
          shuffle: bool = False, shard_size: int = 1000, workers: int | None = None) -> None:
    """Writes scenes as data sets lie on disk, see `shards.write`.

    Args:
        output: folder, new, empty, or begun by a call with the same parameters.
        train, val: numbers of scenes.
        seed, size: see `draw`.
        shuffle: gives each training scene the caption of another one of its tar, the control experiment: what is
            learnt then is learnt without words.
        shard_size: scenes a tar.
        workers: processes; None for one a core.
    Raises:
        InputError: the folder holds something else, or cannot be written (no space, no permission).
    """
    wanted = {"version": _VERSION, "train": train, "val": val, "seed": seed, "size": size, "shuffle": shuffle,
              "shard_size": shard_size}
    shards.write(output, "scenes", functools.partial(draw, seed, size=size), wanted, PALETTE.values(), workers)
