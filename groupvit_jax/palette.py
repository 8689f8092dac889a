"""Colours that stay apart, for colour-blind eyes too."""

import functools
from collections.abc import Sequence

import cv2
import numpy as np

BACKGROUND = (64, 64, 64)
FIRST = ((0, 114, 178), (230, 159, 0))  # the blue and the orange of Okabe and Ito, "Color Universal Design" (2008)
SIZE = 255  # further ones repeat: a palette PNG holds 256 colours, the background's among them
APART = 12  # CIELAB units
SIDE_BY_SIDE = 12  # colours that regions are told apart by which have no names

# What a dichromat sees of linear RGB: Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation
# of Color Vision Deficiency" (2009), severity 1.0: without L cones, without M cones, without S cones.
DEFICIENCIES = np.array([
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
])  # fmt: skip


def colours(n: int) -> np.ndarray:
    """n colours, uint8 [n 3]: two well-known ones, then each the furthest from all before it, for the eye (normal or
    colour-blind) that tells it least. So a few classes have colours far apart, and many as far as there is room."""
    return _furthest_first()[np.arange(n) % SIZE]


def palette_of(names: Sequence[str]) -> np.ndarray:
    """A colour for each name in order, uint8 [n 3]; a first name "background" is grey and moves no other's colour."""
    if names and names[0] == "background":
        return np.concatenate([np.array([BACKGROUND], np.uint8), colours(len(names) - 1)])
    return colours(len(names))


def apart(palette: np.ndarray, occur: Sequence[int]) -> np.ndarray:
    """The palette for a picture in which the labels `occur`, the most important first: a colour nearer than APART to
    an earlier one's becomes the furthest there is. The first two dozen `colours` are apart and stay as they are."""
    palette, every, chosen = palette.copy(), colours(SIZE), list[np.ndarray]()
    own, seen = _as_seen(palette), _as_seen(every)
    nearest = np.full(SIZE, np.inf)
    for label in occur:
        if chosen and min(_distance(own[label], other) for other in chosen) < APART:
            best = nearest.argmax()
            palette[label], own[label] = every[best], seen[best]
        chosen.append(own[label])
        nearest = np.minimum(nearest, _distance(seen, own[label]))
    return palette


def side_by_side(index: np.ndarray) -> np.ndarray:
    """A colour for each of the regions 0, 1 ... n-1 of a map int [h w], uint8 [n 3]: of so few colours that all are
    well apart, and such that no two regions that touch have the same (while there are enough)."""
    size = np.bincount(index.ravel())
    n = len(size)
    left, right, upper, lower = (part.ravel() for part in (index[:, :-1], index[:, 1:], index[:-1], index[1:]))
    a, b = np.concatenate([left, right, upper, lower]), np.concatenate([right, left, lower, upper])
    a, b = np.divmod(np.unique((a * n + b)[a != b]), n)  # each pair that touches, both ways round
    start = np.searchsorted(a, np.arange(n + 1))
    chosen, used = np.full(n, -1), np.zeros(SIDE_BY_SIDE)
    for region in np.argsort(-size, kind="stable"):  # the larger, the earlier it chooses
        beside = chosen[b[start[region] : start[region + 1]]]
        cost = used + n * np.bincount(beside[beside >= 0], minlength=SIDE_BY_SIDE)
        chosen[region] = cost.argmin()
        used[chosen[region]] += 1
    return colours(SIDE_BY_SIDE)[chosen]


@functools.cache
def _furthest_first() -> np.ndarray:
    """uint8 [SIZE 3]: by greedy choice among middling colours, that show through a picture and on white paper."""
    grid = np.stack(np.meshgrid(*[np.arange(0, 256, 15)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness, a, b = _lab(_linear(grid)).T
    chroma = np.hypot(a, b)
    grid = grid[(lightness > 35) & (lightness < 88) & (chroma > 30) & (chroma < 80)]
    seen, palette = _as_seen(grid), list(FIRST)
    taken = _as_seen(np.array([(0, 0, 0), (255, 255, 255), BACKGROUND, *FIRST]))
    nearest = np.min([_distance(seen, other) for other in taken], axis=0)  # [n]
    while len(palette) < SIZE:
        best = nearest.argmax()
        palette.append(tuple(grid[best]))
        nearest = np.minimum(nearest, _distance(seen, seen[best]))
    return np.array(palette, np.uint8)


def _linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB values 0..255 -> linear 0..1 (IEC 61966-2-1)."""
    rgb = np.asarray(rgb) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    """Linear RGB [n 3] -> CIELAB [n 3]."""
    return cv2.cvtColor(linear.astype(np.float32)[None], cv2.COLOR_LRGB2LAB)[0]


def _as_seen(rgb: np.ndarray) -> np.ndarray:
    """sRGB [n 3] -> CIELAB [n 4 3], to the normal eye and to the three deficient ones."""
    linear = _linear(rgb)
    return np.stack([_lab(linear), *[_lab(np.clip(linear @ m.T, 0, 1)) for m in DEFICIENCIES]], axis=1)


def _distance(seen: np.ndarray, other: np.ndarray) -> np.ndarray:
    """CIE76 distance of [n 4 3] to [4 3], by the eye that sees the least -> [n]."""
    return np.linalg.norm(seen - other, axis=-1).min(axis=-1)
