"""An image to the windows the model sees, and back: which window pixel counts how much for which image pixel.

An image is resized to a canvas and cut into windows. Placing windows, averaging where they overlap and resizing to the
original size are all linear and separable: along each side, an image pixel is a mean of two neighbouring canvas pixels
(`Side`), and a canvas pixel the mean of the windows over it (`Cut.share_y`, `share_x`). On the device this is done tile
by tile of the original image, so that no image size needs a program of its own; `merge` does it at once, in NumPy.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from groupvit_jax.data.images import resize_shorter, shorter_size
from groupvit_jax.errors import InputError

NOWHERE = -(1 << 20)  # a canvas pixel that no window has
SIDES = ("size", "long", "window", "stride")  # of `Geometry`, that every `config.eval` has
LARGEST = 1 << 15  # pixels, a side of an evaluated picture or window
MERGED_AT_ONCE = 1 << 24  # numbers, 64 MB of float32


@dataclass(frozen=True)
class Geometry:
    """Sizes of the sliding-window protocol in pixels; the defaults are the published model's.

    The short side is resized to `size`, unless the long side would pass `long`; square windows of side `window`
    every `stride`. Not of the protocol: with `scales`, the scores of several sizes are averaged, each of them `size`
    and `long` times a factor from 1 up; with `flip`, also those of the mirrored image.
    """

    size: int = 448
    long: int = 2048
    window: int = 448
    stride: int = 224
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not all(1 <= getattr(self, name) <= LARGEST for name in SIDES):
            raise InputError(f"evaluation sizes must be positive and at most {LARGEST} pixels, got {self}")
        if self.stride > self.window:
            raise InputError(f"stride {self.stride} is larger than window {self.window}: pixels would be left out")
        if not self.scales or not all(1.0 <= scale <= 8.0 for scale in self.scales):
            raise InputError(f"scales {list(self.scales)}: give factors from 1 to 8, as 1,1.25,1.5; a smaller picture "
                             "would not fill the window")

    def changes(self) -> list[str]:
        """What is not of the protocol, in words."""
        scales = "scales " + ",".join(f"{scale:g}" for scale in self.scales)
        return [scales] * (self.scales != (1.0,)) + ["flip"] * self.flip

    def canvas(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """The size to which an image is resized before it is cut."""
        return shorter_size(height, width, scale * self.size, scale * self.long)

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The size of an image's windows; less than `window` where the image is lower than that."""
        canvases = [self.canvas(height, width, scale) for scale in self.scales]
        shapes = {(min(height, self.window), min(width, self.window)) for height, width in canvases}
        if len(shapes) > 1:
            raise InputError(f"an image of {width}x{height} pixels is too long for several scales: leave them out")
        return shapes.pop()

    def count(self, height: int, width: int) -> int:
        """How many windows an image has."""
        canvases = [self.canvas(height, width, scale) for scale in self.scales]
        each = [math.prod(len(window_starts(side, self.window, self.stride)) for side in canvas) for canvas in canvases]
        return sum(each) * (1 + self.flip)


class Side(NamedTuple):
    """Where m pixels along one side of an image lie on the canvas: pixel j is (1 - part[j]) of canvas pixel low[j] and
    part[j] of the next. int32 [m], float32 [m]."""

    low: np.ndarray
    part: np.ndarray


class Cut(NamedTuple):
    """An image's n windows, uint8 [n h w 3], and the way back to its pixels.

    view int32 [n]: the scale a window is of; mirrored bool [n]; start int32 [n 2]: its first row and column on that
    canvas; share_y float32 [n h], share_x [n w]: what its rows and columns count in the mean.
    ys, xs: by view, where the image's rows and columns lie on the canvas.
    """

    windows: np.ndarray
    view: np.ndarray
    mirrored: np.ndarray
    start: np.ndarray
    share_y: np.ndarray
    share_x: np.ndarray
    ys: tuple[Side, ...]
    xs: tuple[Side, ...]


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side: every `stride`, the last one flush with the end; at least one."""
    last = max(side - window, 0)
    return [min(stride * i, last) for i in range(math.ceil(last / stride) + 1)]


def resized_side(n_in: int, n_out: int) -> Side:
    """PyTorch's `interpolate(mode="bilinear", align_corners=False)` from n_in to n_out pixels along one side:
    half-pixel centres, clamped borders, not antialiased (`jax.image.resize` antialiases when it shrinks)."""
    at = np.clip((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0, n_in - 1)
    low = np.floor(at).astype(np.int32)
    return Side(low, (at - low).astype(np.float32))


def bilinear_weights(n_in: int, n_out: int) -> np.ndarray:
    """The same as a matrix, float32 [n_out n_in]."""
    (low, part), rows = resized_side(n_in, n_out), np.arange(n_out)
    weights = np.zeros((n_out, n_in + 1), np.float32)
    weights[rows, low] = 1 - part
    weights[rows, low + 1] += part  # of the last pixel, 0 of one behind it
    return weights[:, :n_in]


def cut(image: np.ndarray, geometry: Geometry) -> Cut:
    """uint8 [H W 3] -> its windows and the way back to H x W."""
    geometry.shape(*image.shape[:2])
    parts = [_cut_canvas(image, geometry, *view) for view in enumerate(geometry.scales)]
    fields = [np.concatenate(field) for field in zip(*(fields for cuts, _, _ in parts for fields in cuts))]
    windows, at, mirrored, start, share_y, share_x = fields
    ys, xs = zip(*(sides for _, *sides in parts))
    cut = Cut(windows, at, mirrored, start, share_y, share_x, ys, xs)
    return cut._replace(share_y=cut.share_y / np.float32(len(parts) * (1 + geometry.flip)))


def _cut_canvas(image: np.ndarray, geometry: Geometry, view: int, scale: float) -> tuple:
    """Of one scale, the fields of `Cut`, of the mirrored canvas too if that is asked for; then rows and columns."""
    canvas = resize_shorter(image, scale * geometry.size, scale * geometry.long)
    starts, shares = zip(*(_axis(side, geometry) for side in canvas.shape[:2]))
    (h, w), n = (share.shape[1] for share in shares), len(starts[0]) * len(starts[1])
    i, j = (index.ravel() for index in np.indices((len(starts[0]), len(starts[1]))))  # row by row
    cuts = []
    for mirrored in (False, True)[: 1 + geometry.flip]:
        columns = canvas.shape[1] - w - starts[1] if mirrored else starts[1]
        start, step = np.stack([starts[0][i], columns[j]], axis=1), -1 if mirrored else 1
        windows = np.stack([canvas[y : y + h, x : x + w][:, ::step] for y, x in start])
        cuts.append((windows, np.full(n, view, np.int32), np.full(n, mirrored), start, shares[0][i],
                     shares[1][j, ::step]))
    return cuts, *(resized_side(*pair) for pair in zip(canvas.shape[:2], image.shape[:2]))


def _axis(side: int, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Along one side of a canvas: the starts, and for each window one over the number of windows over its pixels."""
    starts = window_starts(side, geometry.window, geometry.stride)
    inside = [slice(start, start + min(side, geometry.window)) for start in starts]
    over = np.zeros(side, np.float32)
    for part in inside:
        over[part] += 1
    return np.array(starts, np.int32), np.stack([1 / over[part] for part in inside])


@overload
def merge(cut: Cut, members: np.ndarray, table: None = None) -> tuple[None, np.ndarray]: ...


@overload
def merge(cut: Cut, members: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def merge(cut: Cut, members: np.ndarray, table: np.ndarray | None = None) -> tuple[np.ndarray | None, np.ndarray]:
    """What an image's windows say of its pixels: (scores float32 [H W c] or None, owners int32 [H W]).

    members float32 [n g h w]: how much of each window pixel is a group's; table float32 [n g c]: scores of the groups.
    owners: window * g + group of the largest share in a pixel, the first if equal.
    """
    n, g = members.shape[:2]
    height, width = len(cut.ys[0].low), len(cut.xs[0].low)
    weighted = [members[k] * cut.share_y[k][:, None] * cut.share_x[k] for k in range(n)]  # each [g h w]
    scores = None if table is None else np.zeros((height, width, table.shape[-1]), np.float32)
    owners, largest = np.zeros((height, width), np.int32), np.zeros((height, width), np.float32)
    rows = max(1, MERGED_AT_ONCE // (width * g))
    for block in (slice(y, y + rows) for y in range(0, height, rows)):
        for k in range(n):
            view = cut.view[k]
            part = _resample(weighted[k], Side(*(x[block] for x in cut.ys[view])), cut.start[k, 0], 1)
            part = _resample(part, cut.xs[view], cut.start[k, 1], 2)  # [g rows W]
            best = part.max(axis=0)
            owners[block] = np.where(best > largest[block], k * g + part.argmax(axis=0), owners[block])
            largest[block] = np.maximum(best, largest[block])
            if scores is not None and table is not None:
                scores[block] += np.tensordot(part, table[k], (0, 0))
    return scores, owners


def _resample(x: np.ndarray, side: Side, start: int, axis: int) -> np.ndarray:
    """A window's values along an axis -> those of the image's pixels, zero outside the window."""
    n = x.shape[axis]
    x = np.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)])
    low, high = (np.clip(side.low + step - start, -1, n) + 1 for step in (0, 1))
    part = side.part.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return x.take(low, axis) * (1 - part) + x.take(high, axis) * part
