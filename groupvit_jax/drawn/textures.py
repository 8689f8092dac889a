"""What looks are made of: mixtures of colours, waves, noise, outlines. Arrays in, arrays out."""

import functools

import numpy as np

TAU = 2 * np.pi


def rgb(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Colour a where share is 0, colour b where it is 1; share [h w] -> [h w 3]."""
    return a + (b - a) * np.asarray(share, np.float32)[..., None]


def wave(phase: np.ndarray) -> np.ndarray:
    """A cosine wave between 0 and 1."""
    return 0.5 + 0.5 * np.cos(TAU * phase)


def capsule(x: np.ndarray, y: np.ndarray, ax: float, ay: float, bx: float, by: float, radius: float) -> np.ndarray:
    """Inside of a thick line from a to b with round ends."""
    dx, dy = bx - ax, by - ay
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    return (x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2 < radius**2


def ellipse(x: np.ndarray, y: np.ndarray, cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


@functools.lru_cache(maxsize=64)
def _between(n: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For n places along `cells` values: the value before each, int [n], and the share of the next [n 1]."""
    at = np.linspace(0, cells - 1, n)
    before = np.minimum(at.astype(int), cells - 2)
    return before, (at - before).astype(np.float32)[:, None]


def noise(rng: np.random.Generator, n: int, rows: int, cols: int) -> np.ndarray:
    """Smooth random values in -1..1, [n n], from a coarse grid of rows x cols."""
    values = rng.random((rows, cols), np.float32) * 2 - 1
    for cells in (rows, cols):  # no matrix product: threaded BLAS is slow on matrices this small
        before, share = _between(n, cells)
        values = (values[before] * (1 - share) + values[before + 1] * share).T
    return values


def dots(u: np.ndarray, v: np.ndarray, pitch: float, radius: float) -> np.ndarray:
    """Inside of dots on a staggered grid."""
    row = np.round(v / pitch)
    du = (u / pitch + 0.5 * (row % 2) + 0.5) % 1 - 0.5
    return du**2 + (v / pitch - row) ** 2 < (radius / pitch) ** 2
