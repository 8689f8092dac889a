"""What was made of a picture, side by side and small: itself, its truth, its labels, its groups."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from groupvit_jax.data.segmentation_sets import IGNORED
from groupvit_jax.palette import apart, palette_of, side_by_side
from groupvit_jax.viz import blend, borders, largest_first, scaled


def reduced(values: np.ndarray, side: int) -> np.ndarray:
    """An image uint8 [h w 3], smoothly, or labels int [h w], by leaving out: its long side at `side` pixels, or less;
    what is small is enlarged by a whole factor, as far as that goes."""
    scale = side / max(values.shape[:2])
    scale = max(1, int(scale)) if scale >= 1 else scale
    return scaled(values, scale, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def colours_of(names: Sequence[str], truth: np.ndarray, labels: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The labels that a picture has, in truth or prediction, the largest first; and colours of all, uint8 [n 3], those
    of these well apart."""
    valid = truth != IGNORED
    counts = np.bincount(truth[valid], minlength=len(names)) + np.bincount(labels[valid], minlength=len(names))
    occur = largest_first(counts)
    return occur, apart(palette_of(names), occur)


def coloured(image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    """uint8 [h w 3], its labels [h w] and their colours -> the colours over the picture in grey; what is IGNORED has
    no colour."""
    ignored = labels == IGNORED
    out = blend(image, palette[np.where(ignored, 0, labels)], 0.7)
    out[ignored] = blend(image, np.full(3, 255), 0.5)[ignored]
    out[borders(labels)] = 255
    return Image.fromarray(out)


def grouped(image: np.ndarray, groups: np.ndarray) -> Image.Image:
    """uint8 [h w 3] and its groups int [h w] -> each in a colour, such that no two that touch have the same."""
    index = np.unique(groups, return_inverse=True)[1].reshape(groups.shape)
    out = blend(image, side_by_side(index)[index], 0.55)
    out[borders(index)] = 255
    return Image.fromarray(out)
