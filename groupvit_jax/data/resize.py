"""Shrinking with antialiasing: bilinear as PIL does it, in half of PIL's time.

An output pixel is a weighted mean of the input pixels under a triangle that is as wide as the image shrinks. Each
side is one product with a sparse matrix, whose inner loop runs along whole rows of pixels; PIL's runs over the few
weights of one pixel.
"""

from functools import lru_cache

import cv2
import numpy as np
from PIL import Image
from scipy import sparse

# Weights are multiples of 2**-16: their sums over 8-bit pixels have 24 bits, so that float32 is exact and every machine
# gives the same pixels. PIL's have 22 bits: one value in a few hundred is rounded the other way.
UNIT = 1 << 16
LARGE = 1 << 20  # pixels; from here on the float32 copies leave the cache, and PIL is as fast


@lru_cache(maxsize=1024)  # 10 kB each; crops of stored images have a few hundred different sides
def _weights(side: int, start: float, length: float, size: int) -> sparse.csr_array:
    """float32 [size side]: what each pixel of a side gives to `size` pixels spread from `start` over `length`."""
    scale = length / size
    reach = max(scale, 1.0)
    centre = start + (np.arange(size) + 0.5) * scale  # [size]
    first = np.maximum((centre - reach + 0.5).astype(int), 0)
    last = np.minimum((centre + reach + 0.5).astype(int), side)
    pixel = first[:, None] + np.arange((last - first).max())  # [size k]
    weight = np.maximum(0, 1 - np.abs(pixel - centre[:, None] + 0.5) / reach)
    weight[pixel >= last[:, None]] = 0
    weight = np.floor(UNIT * weight / weight.sum(axis=1, keepdims=True) + 0.5)
    weight[np.arange(size), weight.argmax(axis=1)] += UNIT - weight.sum(axis=1)  # a flat colour stays as it is
    values, columns = (weight / UNIT).astype(np.float32), np.minimum(pixel, side - 1).astype(np.int32)
    ends = np.arange(size + 1, dtype=np.int32) * np.int32(pixel.shape[1])
    weights = sparse.csr_array((values.ravel(), columns.ravel(), ends), shape=(size, side))
    weights.eliminate_zeros()  # a quarter of them
    return weights


def _along_first(image: np.ndarray, weights: sparse.csr_array) -> np.ndarray:
    """uint8 [n r 3], [m n] -> uint8 [m r 3], rounded."""
    n, r, _ = image.shape
    sums = weights @ image.astype(np.float32).reshape(n, r * 3)
    sums += 0.5
    return sums.astype(np.uint8).reshape(-1, r, 3)


def resize(image: np.ndarray, size: int, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """uint8 [h w 3] -> uint8 [size size 3]: PIL's `resize` with BILINEAR and a box.

    box: (top, left, height, width) of the part to take, in pixels and fractions of them; the whole image by default.
    First the height is done, then the width, rounded to uint8 in between, as PIL does though often in the other order:
    values differ from PIL's by one at most.
    """
    height, width = image.shape[:2]
    top, left, h, w = box or (0, 0, height, width)
    if height * width > LARGE:
        edges = (left, top, left + w, top + h)
        return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, edges))
    rows = _along_first(image, _weights(height, top, h, size))  # [size w 3]
    return cv2.transpose(_along_first(cv2.transpose(rows), _weights(width, left, w, size)))
