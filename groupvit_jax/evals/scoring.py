"""A task's pictures to its scores: what is read by this host, in which order, and what is counted on the devices.

Every process knows every picture's size, and so which pictures each device gets in each call: all processes make the
same number of calls, and what is counted does not depend on how many there are.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np

from groupvit_jax import parallel
from groupvit_jax.data.classification_sets import Labelled
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classification, counting, tiles
from groupvit_jax.evals.datasets import Masked, sizes, skipping
from groupvit_jax.evals.metrics import Confusion, percent
from groupvit_jax.evals.tiles import Capacity
from groupvit_jax.evals.windows import Geometry, cut
from groupvit_jax.writer import Progress, moved

WINDOWS = {"cpu": 8}  # of a device in one call, at least so many; more keep a device busy, and cost memory
TILES_PER_WINDOW = 192  # 0.8 megapixels of an image in its own size, more than a window of nearly any has


class Call(NamedTuple):
    """One call of a program: of each device of the mesh the pictures it gets, and the size of their windows."""

    pictures: list[list[int]]
    height: int
    width: int


class Look(NamedTuple):
    """A picture and what was counted of it: image uint8 [h w 3]; truth uint8 [h w], 255 ignored; labels uint8 [h w];
    groups int32 [h w], window * g + group."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


class Segments:
    """A segmentation set, ready to be counted.

    masked: the pictures. names: of the labels. at_once: windows of a device that the towers see together. patch: in
    pixels, what windows must have room for.
    """

    def __init__(self, masked: Masked, names: list[str], geometry: Geometry, at_once: int, patch: int,
                 mesh: jax.sharding.Mesh, skip_bad: bool) -> None:
        self.masked, self.names, self.geometry, self.mesh, self.skip_bad = masked, names, geometry, mesh, skip_bad
        self.unusable: list[str] = []  # known to all hosts, as all read all headers
        needs: dict[int, tuple[int, int]] = {}
        shapes: dict[tuple[int, int], list[int]] = {}  # pictures by the shape of their windows, nearly always one
        for i, size in enumerate(sizes(masked, self.unusable if skip_bad else None)):
            with skipping(skip_bad, self.unusable):
                if size:
                    shapes.setdefault(window_shape(masked, i, size, geometry, patch), []).append(i)
                    needs[i] = geometry.count(*size), tiles.count(*size, geometry)
        most = [max((need[k] for need in needs.values()), default=1) for k in (0, 1)]
        least = WINDOWS.get(mesh.devices.flat[0].platform, 32)
        windows = -(-max(least, most[0]) // at_once) * at_once
        self.capacity = Capacity(windows, max(TILES_PER_WINDOW * windows, most[1]), 0, 0, len(geometry.scales))
        self.calls = [Call(bins, *shape) for shape, pictures in shapes.items()
                      for bins in self._calls(pictures, needs)]

    def described(self) -> str:
        """What all hosts must agree on."""
        return f"{len(self.masked)} pictures in {self.calls}"

    def _calls(self, pictures: list[int], needs: dict[int, tuple[int, int]]) -> Iterator[list[list[int]]]:
        """The pictures of each device of each call, in order, each device filled before the next is begun."""
        devices, room = parallel.ways(self.mesh), (0, 0)
        bins: list[list[int]] = []
        for i in pictures:
            if min(left - need for left, need in zip(room, needs[i])) < 0:
                bins.append([])
                room = self.capacity.windows, self.capacity.tiles
            bins[-1].append(i)
            room = room[0] - needs[i][0], room[1] - needs[i][1]
        for k in range(0, len(bins), devices):
            yield bins[k : k + devices] + [[]] * (devices - len(bins[k : k + devices]))

    def batch(self, call: Call, skipped: list[str], apart: bool = False) -> dict[str, np.ndarray]:
        """This process's share of the batch of a call, with `apart` also the pictures' numbers, "picture"."""
        capacity = self.capacity._replace(height=call.height, width=call.width)

        def pack(pictures: list[int]) -> dict[str, np.ndarray]:
            found = readable(lambda i: (i, *self.masked[i][1:]), pictures, self.skip_bad, skipped)
            batch = tiles.pack([(cut(image, self.geometry), mask) for _, image, mask in found], self.geometry, capacity)
            numbers = np.full(capacity.windows, -1, np.int32)
            numbers[: len(found)] = [i for i, *_ in found]
            return batch | ({"picture": numbers} if apart else {})

        return batch_of(self.mesh, call.pictures, pack)

    def __call__(self, count: Callable, oracle: bool, progress: str | None, each: np.ndarray | None = None) -> dict:
        """count: (sums, batch) -> sums, see `counting.make_counter`; progress: its title, None for none. each: float32
        [pictures] to be filled with the mIoU of each, by a `count` that tells them apart; NaN stays where there is
        none."""
        skipped: list[str] = []
        found: list[tuple[jax.Array, jax.Array]] = []  # number and mIoU of a call's pictures

        def noted(sums: dict, batch: dict) -> dict:
            sums, seen = count(sums, batch)
            found.append((seen["picture"], seen["mIoU"]))
            return sums

        work = [sum(map(len, call.pictures)) for call in self.calls]
        sums = counting.empty_sums(own_parts(self.mesh), oracle)
        apart = each is not None
        sums = run(self.mesh, lambda call: self.batch(call, skipped, apart), self.calls, work,
                   noted if apart else count, sums, progress)
        if each is not None:
            for numbers, values in jax.device_get(found):
                each[numbers[numbers >= 0]] = values[numbers >= 0]
        sums, n = {name: counting.total(x) for name, x in sums.items()}, len(self.names)
        skipped = sorted(self.unusable + parallel.gather_lines(skipped))
        confusion = Confusion(sums["confusion"][:n, :n])
        images = len(self.masked) - len(skipped)
        scores = {"images": images, **confusion.compute(self.names), "constant": confusion.constant(),
                  "groups_used": float(sums["groups"] / max(sums["windows"], 1)),
                  "image_top1": percent(sums["hits"], images)}
        if oracle:
            scores["oracle"] = Confusion(sums["oracle"][:n, :n]).compute(self.names)
        return scores | ({"skipped": skipped} if skipped else {}) | {"confusion": confusion.counts}

    def look(self, count: Callable, oracle: bool, i: int) -> Look:
        """What was counted of picture i, by the program that counts: a call of its own on the first device. All
        processes call it."""
        call = next(call for call in self.calls if any(i in pictures for pictures in call.pictures))
        batch = self.batch(call._replace(pictures=[[i]] + [[]] * (len(call.pictures) - 1)), [], apart=True)
        sums = counting.empty_sums(own_parts(self.mesh), oracle)
        _, seen = count(parallel.to_global(self.mesh, sums), parallel.to_global(self.mesh, batch))
        moved()
        name, image, truth = self.masked[i]
        h, w = truth.shape
        step = tiles.steps(h, w, self.geometry)
        return Look(name, image, truth, *(tiles_joined(np.asarray(seen[part]), (h, w), step)
                                          for part in ("labels", "groups")))


class Wholes:
    """Pictures with one class each, ready to be counted. size: side of the model's; images: of a device at a time."""

    def __init__(self, labelled: Labelled, size: int, images: int, mesh: jax.sharding.Mesh, skip_bad: bool) -> None:
        self.labelled, self.size, self.images, self.mesh, self.skip_bad = labelled, size, images, mesh, skip_bad
        every, devices = range(len(labelled)), parallel.ways(mesh)
        self.calls = [[every[first + images * d :][:images] for d in range(devices)]
                      for first in every[:: images * devices]]

    def described(self) -> str:
        """What all hosts must agree on."""
        return f"{len(self.labelled)} pictures"

    def __call__(self, count: Callable, progress: str | None) -> dict:
        """count: (sums, batch) -> sums, see `classification.make_counter`; progress: its title, None for none."""
        skipped: list[str] = []

        def fitted(i: int) -> tuple[np.ndarray, int]:
            key, image, label = self.labelled[i]
            return classification.fit(image, self.size, key), label

        def make(call: list[range]) -> dict[str, np.ndarray]:
            return batch_of(self.mesh, call, lambda pictures: classification.pack(
                readable(fitted, pictures, self.skip_bad, skipped), self.size, self.images))

        work = [sum(map(len, call)) for call in self.calls]
        sums = run(self.mesh, make, self.calls, work, count, classification.empty_sums(own_parts(self.mesh)), progress)
        skipped, total = sorted(parallel.gather_lines(skipped)), {name: int(x.sum()) for name, x in sums.items()}
        scores = {name: percent(total[name], total["images"]) for name in ("top1", "top5")}
        return {"pictures": total["images"], **scores} | ({"skipped": skipped} if skipped else {})


def tiles_joined(tiles: np.ndarray, shape: tuple[int, int], step: tuple[int, int]) -> np.ndarray:
    """Tiles [T ROWS COLUMNS], in the order of `tiles.pack`, of a picture of that shape -> [h w]; step: the rows and
    columns that a tile holds."""
    across = -(-shape[1] // step[1])
    rows = [np.concatenate(tiles[t : t + across, : step[0], : step[1]], axis=1)
            for t in range(0, -(-shape[0] // step[0]) * across, across)]
    return np.concatenate(rows)[: shape[0], : shape[1]]


def window_shape(masked: Masked, i: int, size: tuple[int, int], geometry: Geometry, patch: int) -> tuple[int, int]:
    """The size of picture i's windows; InputError that names it if they cannot be scored."""
    try:
        shape = geometry.shape(*size)
    except InputError as error:
        raise InputError(f"{masked.names(i)[0]}: {error}") from None
    if min(shape) < patch:
        raise InputError(f"{masked.names(i)[0]} is too narrow, {size[1]}x{size[0]} pixels: its windows hold no patch")
    return shape


def own_parts(mesh: jax.sharding.Mesh) -> int:
    """How many of the parts of a batch are this process's."""
    return parallel.ways(mesh) // parallel.share_of_batch(mesh)[1]


def batch_of(mesh: jax.sharding.Mesh, parts: list, pack: Callable[[list], dict]) -> dict[str, np.ndarray]:
    """This process's share of a batch: of the parts for each device its own, packed and stacked."""
    first = parallel.share_of_batch(mesh)[0] * own_parts(mesh)
    packed = [pack(part) for part in parts[first : first + own_parts(mesh)]]
    return {name: np.stack([batch[name] for batch in packed]) for name in packed[0]}


def readable(get: Callable, pictures: Any, skip_bad: bool, skipped: list[str]) -> list:
    """get(i) of each; with `skip_bad`, what cannot be used is left out and becomes a line in `skipped`."""
    found = []
    for i in pictures:
        with skipping(skip_bad, skipped):
            found.append(get(i))
    return found


def run(mesh: jax.sharding.Mesh, make: Callable, calls: list, work: list[int],
        count: Callable, sums: dict, title: str | None) -> dict:
    """sums = count(sums, make(call)) for each call; the next batches are made and put on the devices meanwhile.

    work: pictures of each call, for the progress line. Returns the sums of all devices as numpy.
    """
    sums = parallel.to_global(mesh, sums)
    with (Progress(title, sum(work), "images") if title else nullcontext()) as progress:
        for batch, pictures in zip(made_ahead(make, calls), work):
            batch = parallel.to_global(mesh, batch)
            jax.block_until_ready(sums)
            sums = count(sums, batch)
            moved()
            if progress:
                progress.advance(pictures)
        return parallel.fetch(sums)


def made_ahead(make: Callable, calls: list, threads: int = min(8, os.cpu_count() or 1)) -> Iterator:
    """make(call) of each call, in order, by threads that are as many calls ahead as they are."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        try:
            for call in calls:
                waiting.append(pool.submit(make, call))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
