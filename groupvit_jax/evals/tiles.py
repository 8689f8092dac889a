"""Images of any size as tiles of one size: what a device needs of an image besides its windows.

A tile is up to ROWS x COLUMNS pixels of an image in its own size. It is so small that along each side it draws on no
more than SOURCE pixels of a window: then its way back from the window is two small matrix products of fixed shape.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from groupvit_jax.data.segmentation_sets import IGNORED
from groupvit_jax.evals.windows import NOWHERE, Cut, Geometry, Side

ROWS, COLUMNS = 64, 64
SOURCE = 88
LABELS = 256  # of a data set at most, so that one program serves them all: masks hold 8 bits, one of them `IGNORED`


class Capacity(NamedTuple):
    """The fixed shape of what one device is given at a time."""

    windows: int  # b
    tiles: int
    height: int  # of a window
    width: int
    views: int


def steps(height: int, width: int, geometry: Geometry) -> tuple[int, int]:
    """How many rows and columns of an image a tile holds."""
    canvases = [geometry.canvas(height, width, scale) for scale in geometry.scales]
    rows, columns = (min(held, int((SOURCE - 2) * size / max(resized)) + 1)
                     for size, held, resized in zip((height, width), (ROWS, COLUMNS), zip(*canvases)))
    return rows, columns


def count(height: int, width: int, geometry: Geometry) -> int:
    """How many tiles an image has."""
    return math.prod(-(-size // step) for size, step in zip((height, width), steps(height, width, geometry)))


def pack(images: list[tuple[Cut, np.ndarray]], geometry: Geometry, capacity: Capacity) -> dict[str, np.ndarray]:
    """Images with their label ids, uint8 [H W], as one device's batch; what is left over is filled up and never read.

    Of the windows [b ...]: windows, view, mirrored, start, share_y, share_x (see `Cut`), image (its place in the batch;
    b: none). Of the images: present bool [b LABELS], the labels that occur. Of the tiles [T ...]: truth uint8 [T r c]
    (255: ignored, and padding), low_y, part_y [T views r], low_x, part_x [T views c] (see `Side`), first and number of
    the windows that lie over it. tiles: how many there are.
    """
    b, t, h, w, views = capacity
    batch: dict[str, Any] = {  # what is large is filled where it is read
        "windows": np.empty((b, h, w, 3), np.uint8), "view": np.zeros(b, np.int32), "mirrored": np.zeros(b, bool),
        "start": np.zeros((b, 2), np.int32), "share_y": np.zeros((b, h), np.float32),
        "share_x": np.zeros((b, w), np.float32), "image": np.full(b, b, np.int32),
        "present": np.zeros((b, LABELS), bool),
        "truth": np.empty((t, ROWS, COLUMNS), np.uint8),
        "low_y": np.empty((t, views, ROWS), np.int32), "part_y": np.empty((t, views, ROWS), np.float32),
        "low_x": np.empty((t, views, COLUMNS), np.int32), "part_x": np.empty((t, views, COLUMNS), np.float32),
        "first": np.zeros(t, np.int32), "number": np.zeros(t, np.int32),
    }
    first = tiles = 0
    for i, (cut, mask) in enumerate(images):
        last = first + len(cut.windows)
        for name in ("windows", "view", "mirrored", "start", "share_y", "share_x"):
            batch[name][first:last] = getattr(cut, name)
        batch["image"][first:last] = i
        batch["present"][i, np.setdiff1d(mask, [IGNORED])] = True
        tiles = _add_tiles(batch, tiles, cut, mask, steps(mask.shape[0], mask.shape[1], geometry), first)
        first = last
    return batch | {"tiles": np.int32(tiles)}


def _add_tiles(batch: dict, t: int, cut: Cut, mask: np.ndarray, step: tuple[int, int], first: int) -> int:
    shape = cut.windows.shape[1:3]
    for rows in (slice(y, y + step[0]) for y in range(0, mask.shape[0], step[0])):
        for columns in (slice(x, x + step[1]) for x in range(0, mask.shape[1], step[1])):
            truth = mask[rows, columns]
            batch["truth"][t] = IGNORED
            batch["truth"][t, : truth.shape[0], : truth.shape[1]] = truth
            over = np.ones(len(cut.windows), bool)
            for axis, (name, sides, part) in enumerate((("y", cut.ys, rows), ("x", cut.xs, columns))):
                here = [Side(side.low[part], side.part[part]) for side in sides]
                batch[f"low_{name}"][t], batch[f"part_{name}"][t] = NOWHERE, 0
                for view, side in enumerate(here):
                    batch[f"low_{name}"][t, view, : len(side.low)] = side.low
                    batch[f"part_{name}"][t, view, : len(side.low)] = side.part
                low, high = (np.array([side.low[end] for side in here])[cut.view] for end in (0, -1))
                over &= (cut.start[:, axis] <= high + 1) & (low < cut.start[:, axis] + shape[axis])
            inside = np.flatnonzero(over)
            batch["first"][t], batch["number"][t] = first + inside[0], inside[-1] - inside[0] + 1
            t += 1
    return t
