"""An image to the windows the model sees, and back: which window pixel counts how much for which image pixel.

Placing windows, averaging where they overlap and resizing to the original size are all linear and separable, so a
window needs two matrices for the way back, `rows` [H h] and `columns` [W w]:

    scores of the image [H W] = sum over its windows of  rows @ scores of the window [h w] @ columns.T

Only what the matrices are made of (positions and shares) goes to the device, where `hat` builds them: with padded
positions no image size needs a program of its own.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from groupvit_jax.data.images import resize_shorter
from groupvit_jax.errors import InputError

NOWHERE = -9.0  # a padded output position: further than one pixel from every pixel, so all its weights are zero


@dataclass(frozen=True)
class Geometry:
    """Sizes of the sliding-window protocol in pixels; the defaults are the published model's.

    The short side is resized to `size`, unless the long side would pass `long`; square windows of side `window`
    every `stride`.
    """

    size: int = 448
    long: int = 2048
    window: int = 448
    stride: int = 224

    def __post_init__(self):
        if min(self.size, self.long, self.window, self.stride) < 1:
            raise InputError(f"evaluation sizes must be positive, got {self}")
        if self.stride > self.window:
            raise InputError(f"stride {self.stride} is larger than window {self.window}: pixels would be left out")

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """The size to which an image is resized before it is cut."""
        scale = min(self.size / min(height, width), self.long / max(height, width))
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The size of an image's windows; less than `window` where the image is lower than that."""
        return tuple(min(side, self.window) for side in self.canvas(height, width))

    def count(self, height: int, width: int) -> int:
        """How many windows an image has."""
        return math.prod(len(window_starts(side, self.window, self.stride)) for side in self.canvas(height, width))


class Cut(NamedTuple):
    """An image's n windows, uint8 [n h w 3], and for its H x W pixels the way back.

    at_y [n H], at_x [n W]: where an image pixel's centre lies in the window, in window pixels (0 is the centre of
    the first); share_y [n h], share_x [n w]: one over the number of windows that lie over a window's row, column.
    """

    windows: np.ndarray
    at_y: np.ndarray
    at_x: np.ndarray
    share_y: np.ndarray
    share_x: np.ndarray


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side: every `stride`, the last one flush with the end; at least one."""
    last = max(side - window, 0)
    return [min(stride * i, last) for i in range(math.ceil(last / stride) + 1)]


def positions(n_in: int, n_out: int) -> np.ndarray:
    """Where n_out resized pixels lie among n_in pixels: half-pixel centres, clamped to the border; float64 [n_out]."""
    return np.clip((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0, n_in - 1)


def hat(at, n: int, xp=np):
    """Linear interpolation as a matrix: positions [... m] -> float32 weights [... m n] of n pixels; zero outside."""
    return xp.maximum(0, 1 - xp.abs(at[..., None] - xp.arange(n, dtype=xp.float32))).astype(xp.float32)


def bilinear_weights(n_in: int, n_out: int) -> np.ndarray:
    """The matrix [n_out n_in] of PyTorch's `interpolate(mode="bilinear", align_corners=False)` along one axis.

    Half-pixel centres, clamped borders, not antialiased (`jax.image.resize` antialiases when it shrinks).
    """
    return hat(positions(n_in, n_out), n_in)


def cut(image: np.ndarray, geometry: Geometry) -> Cut:
    """uint8 [H W 3] -> its windows and the way back to H x W."""
    height, width = image.shape[:2]
    canvas = resize_shorter(image, geometry.size, geometry.long)
    ys, at_y, share_y = _axis(height, canvas.shape[0], geometry)
    xs, at_x, share_x = _axis(width, canvas.shape[1], geometry)
    h, w = share_y.shape[1], share_x.shape[1]
    y, x = (index.ravel() for index in np.indices((len(ys), len(xs))))  # row by row
    windows = np.stack([canvas[ys[i] : ys[i] + h, xs[j] : xs[j] + w] for i, j in zip(y, x)])
    return Cut(windows, at_y[y], at_x[x], share_y[y], share_x[x])


def _axis(side: int, resized: int, geometry: Geometry) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Along one axis: the starts, and per window the positions of the `side` pixels and the shares of its own."""
    starts = window_starts(resized, geometry.window, geometry.stride)
    over = np.zeros(resized, np.float32)
    inside = [slice(start, start + min(resized, geometry.window)) for start in starts]
    for part in inside:
        over[part] += 1
    at = positions(resized, side) - np.array(starts)[:, None]
    return starts, at.astype(np.float32), np.stack([1 / over[part] for part in inside])


class Sizes(NamedTuple):
    """The fixed shape of a batch: b windows of h x w pixels from at most i images of at most H x W pixels."""

    b: int
    h: int
    w: int
    i: int
    H: int
    W: int


def pack(cuts: list[Cut], masks: list[np.ndarray], sizes: Sizes) -> dict[str, np.ndarray]:
    """Some images' windows and masks as one batch of fixed shape; what is left over is filled up and never read.

    Image i owns the windows first[i] .. first[i] + number[i] and height[i] rows; mask 255 is ignored, and padding.
    """
    b, h, w, i, H, W = sizes
    batch = {
        "windows": np.zeros((b, h, w, 3), np.uint8), "real": np.zeros(b, np.float32),
        "at_y": np.full((b, H), NOWHERE, np.float32), "at_x": np.full((b, W), NOWHERE, np.float32),
        "share_y": np.zeros((b, h), np.float32), "share_x": np.zeros((b, w), np.float32),
        "mask": np.full((i, H, W), 255, np.uint8), "first": np.zeros(i, np.int32),
        "number": np.zeros(i, np.int32), "height": np.zeros(i, np.int32),
    }
    start = 0
    for k, (part, mask) in enumerate(zip(cuts, masks, strict=True)):
        stop = start + len(part.windows)
        batch["real"][start:stop] = 1
        for name in Cut._fields:
            value = getattr(part, name)
            batch[name][start:stop, : value.shape[1]] = value
        batch["mask"][k, : mask.shape[0], : mask.shape[1]] = mask
        batch["first"][k], batch["number"][k], batch["height"][k] = start, stop - start, len(mask)
        start = stop
    return batch
