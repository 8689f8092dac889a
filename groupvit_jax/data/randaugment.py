"""RandAugment as DeiT trained with it: timm's `rand-m9-mstd0.5-inc1`, on uint8 pixels.

Cubuk et al., "RandAugment" (arXiv:1909.13719), with timm's changes: two operations an image are drawn with
replacement, each is applied with probability 0.5, at a magnitude m that varies from image to image (normal around 9
with standard deviation 0.5, clipped to 0..10), and every range grows with the magnitude ("inc1").

| operation              | argument                                  | at m = 0 .. 10 | direction     |
|------------------------|-------------------------------------------|----------------|---------------|
| AutoContrast           | none: each channel is stretched to 0..255 |                |               |
| Equalize               | none: each channel's histogram made flat  |                |               |
| Invert                 | none: 255 - v                             |                |               |
| Rotate                 | degrees, 30 m/10                          | 0 .. 30        | either        |
| Posterize              | bits kept, 4 - floor(4 m/10)              | 4 .. 0         |               |
| Solarize               | inverts from 256 - floor(256 m/10) on     | 256 .. 0       |               |
| SolarizeAdd            | adds floor(110 m/10) below 128            | 0 .. 110       |               |
| Color                  | factor to grey, 1 +- 0.9 m/10             | 1 .. 1.9, 0.1  | more or less  |
| Contrast               | factor to the mean, 1 +- 0.9 m/10         | 1 .. 1.9, 0.1  | more or less  |
| Brightness             | factor to black, 1 +- 0.9 m/10            | 1 .. 1.9, 0.1  | more or less  |
| Sharpness              | factor to the smoothed, 1 +- 0.9 m/10     | 1 .. 1.9, 0.1  | more or less  |
| ShearX, ShearY         | pixels a pixel, 0.3 m/10                  | 0 .. 0.3       | either        |
| TranslateX, TranslateY | share of the side, 0.45 m/10              | 0 .. 0.45      | either        |

What comes from outside the image has the colour of the ImageNet mean; pixels between pixels are bilinear. Every
operation gives PIL's pixels (ImageOps, ImageEnhance, Image.transform) bit for bit, in a part of PIL's time; Rotate
alone differs, by one level in less than one value in a thousand.
"""

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.lib.stride_tricks import as_strided

FILL = (124, 116, 104)  # the ImageNet mean in 0..255
LIMIT = 10.0  # magnitudes run from 0 (no change) to this
_VALUES = np.arange(256)
_GREY = np.array([[19595, 38470, 7471]], np.float32)  # PIL's luma in units of 2**-16; its sums are exact in float32
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # PIL's ImageFilter.SMOOTH


def _fill(image: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """image[outside] = FILL in a part of its time; `outside` is bool [h w]."""
    full = cv2.rectangle(np.empty_like(image), (0, 0), outside.shape[::-1], FILL, cv2.FILLED)
    return cv2.copyTo(full, outside.view(np.uint8), image)


def _sums(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[h w]: np.add.outer(rows, columns) in half of its time."""
    sums = np.repeat(rows, len(columns)).reshape(len(rows), -1)
    sums += columns
    return sums


def _shear(image: np.ndarray, level: float, down: bool = False) -> np.ndarray:
    """Row y is taken from x + level (y + 0.5), its left and right neighbours blended in float64, as PIL.

    `down`: the same with x and y exchanged.
    """
    planes = [cv2.transpose(plane) if down else plane for plane in cv2.split(image)]
    height, width = planes[0].shape
    shift = level * (np.arange(height) + 0.5)
    whole = np.floor(shift)
    centres = np.arange(width) + 0.5
    rest = _sums(shift, centres)
    outside = ((rest < 0) | (rest >= width)).view(np.uint8)
    rest -= _sums(whole, centres)  # the right neighbour's share; PIL's rounding of the sum stays in it
    start = np.arange(height) * (width + 2) + 1 + np.minimum(whole, width).astype(int)  # of each row when padded
    moved = np.empty_like(rest)
    for i, plane in enumerate(planes):
        plane = cv2.copyMakeBorder(plane, 0, 1, 1, 1, cv2.BORDER_REPLICATE)
        rows = as_strided(plane, (plane.size - width + 1, width), (1, 1))  # every run of `width`; past a row is outside
        left = rows[start]
        np.multiply(np.subtract(rows[start + 1], left, dtype=np.int16), rest, out=moved)
        moved += left
        planes[i] = moved.astype(np.uint8)
    if down:
        *planes, outside = (cv2.transpose(plane) for plane in (*planes, outside))
    return _fill(cv2.merge(planes), outside)


def _translate(image: np.ndarray, share: float) -> np.ndarray:
    """Row y is taken from row y + share h; in float64, as PIL."""
    height = len(image)
    source = np.arange(height) + 0.5 + share * height
    inside = (source >= 0) & (source < height)
    source = source[inside] - 0.5
    above = np.floor(source)
    rest = (source - above)[:, None, None]
    above = above.astype(int)
    rows = image[np.maximum(above, 0)]
    moved = np.subtract(image[np.minimum(above + 1, height - 1)], rows, dtype=np.float64)
    moved *= rest
    moved += rows
    out = np.empty_like(image)
    out[~inside] = FILL
    out[inside] = moved.astype(np.uint8)
    return out


def _rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """About the centre; in float32, PIL in float64: a blend close to a whole number may fall on its other side."""
    height, width = image.shape[:2]
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    right, down = x + (cos * -x + sin * -y), y + (-sin * -x + cos * -y)
    # PIL counts from the corner of the first pixel, OpenCV from its centre
    matrix = np.array([[cos, sin, right + (cos + sin - 1) / 2], [-sin, cos, down + (cos - sin - 1) / 2]])
    four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)  # of four channels OpenCV is twice as fast as of three
    four = cv2.warpAffine(
        four.astype(np.float32),  # uint8 would be rounded; PIL cuts
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    out = cv2.cvtColor(four.astype(np.uint8), cv2.COLOR_RGBA2RGB)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    outside = np.zeros((height, width), bool)
    for across, along, start, side in ((cos, sin, right, width), (-sin, cos, down, height)):
        source = _sums(along * y, across * x)
        source += start
        outside |= (source < 0) | (source >= side)
    return _fill(out, outside)


def _autocontrast(image: np.ndarray, _: None) -> np.ndarray:
    """Each channel from its darkest to its brightest value becomes 0 to 255; one of a single value stays."""
    low, high = (f(image, axis=0) for f in (np.min, np.max))  # [w 3]: along whole rows it is fast
    low, high = low.min(axis=0).astype(int), high.max(axis=0).astype(int)  # [3]
    scale = 255.0 / np.maximum(high - low, 1)
    table = (_VALUES[:, None] * scale - low * scale).clip(0, 255).astype(np.uint8)  # [256 3]
    table[:, high == low] = _VALUES[:, None]
    return cv2.LUT(image, table[None])


def _equalize(image: np.ndarray, _: None) -> np.ndarray:
    """Each channel's values are spread so that equal numbers of pixels fall on equal ranges."""
    table = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(int)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        below = counts.cumsum() - counts
        table[0, :, channel] = np.minimum((step // 2 + below) // step, 255) if step else _VALUES
    return cv2.LUT(image, table)


def _posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the highest bits; 0 bits (magnitude 10) is a black image, as PIL's own gave before it raised."""
    return image & np.uint8(256 - 2 ** (8 - bits))


def _solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    return image ^ (image >= threshold).view(np.uint8) * np.uint8(255)


def _solarize_add(image: np.ndarray, add: int) -> np.ndarray:
    return image + (image < 128).view(np.uint8) * np.uint8(add)  # at most 127 + 110


def _blend(base: np.ndarray | int, image: np.ndarray, factor: float) -> np.ndarray:
    """base + factor (image - base) in float32, cut to whole values, as PIL's Image.blend; arrays that broadcast."""
    out = np.subtract(image, base, dtype=np.float32)
    out *= np.float32(factor)
    out += base
    return np.clip(out, 0, 255, out=out).astype(np.uint8)


def _grey(image: np.ndarray) -> np.ndarray:
    """PIL's convert("L"): uint8 [h w 3] -> uint8 [h w]."""
    sums = cv2.transform(image.astype(np.float32), _GREY).astype(np.int32)
    return ((sums + (1 << 15)) >> 16).astype(np.uint8)


def _color(image: np.ndarray, factor: float) -> np.ndarray:
    return _blend(cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB), image, factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    mean = int(_grey(image).mean() + 0.5)
    return cv2.LUT(image, _blend(mean, _VALUES, factor))


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.LUT(image, _blend(0, _VALUES, factor))


def _sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    smooth = image.copy()  # PIL leaves the outermost pixels as they are
    smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, _SMOOTH)[1:-1, 1:-1]  # k/13 is never halfway: no rounding differs
    return _blend(smooth, image, factor)


def _signed(most: float) -> Callable[[float, int], float]:
    """Level of an operation that goes either way: magnitude 10 gives +-most."""
    return lambda m, sign: sign * (m / LIMIT) * most


def _enhance(m: float, sign: int) -> float:
    """Factor of an enhancement: 1 leaves the image as it is, and either way is stronger."""
    return max(0.1, 1.0 + sign * (m / LIMIT) * 0.9)


# name: (level, operation). `level(magnitude, sign)` is the argument of `operation(image, level)`.
OPS: dict[str, tuple[Callable[[float, int], float] | None, Callable[[np.ndarray, Any], np.ndarray]]] = {
    "AutoContrast": (None, _autocontrast),
    "Equalize": (None, _equalize),
    "Invert": (None, lambda image, _: ~image),
    "Rotate": (_signed(30.0), _rotate),
    "Posterize": (lambda m, _: 4 - int(m / LIMIT * 4), _posterize),
    "Solarize": (lambda m, _: 256 - int(m / LIMIT * 256), _solarize),
    "SolarizeAdd": (lambda m, _: int(m / LIMIT * 110), _solarize_add),
    "Color": (_enhance, _color),
    "Contrast": (_enhance, _contrast),
    "Brightness": (_enhance, _brightness),
    "Sharpness": (_enhance, _sharpness),
    "ShearX": (_signed(0.3), _shear),
    "ShearY": (_signed(0.3), lambda image, level: _shear(image, level, down=True)),
    "TranslateX": (_signed(0.45), lambda image, share: cv2.transpose(_translate(cv2.transpose(image), share))),
    "TranslateY": (_signed(0.45), _translate),
}  # level None: the operation has no strength
NAMES = tuple(OPS)


def apply(image: np.ndarray, name: str, magnitude: float, sign: int = 1) -> np.ndarray:
    """uint8 [h w 3] -> uint8 [h w 3]: one operation of OPS at a magnitude in 0..10.

    `sign` (1 or -1) picks its direction where it has two.
    """
    level, operation = OPS[name]
    return operation(image, level(magnitude, sign) if level else None)


def randaugment(image: np.ndarray, rng: np.random.Generator, magnitude: float = 9.0,
                std: float = 0.5, ops: int = 2, prob: float = 0.5) -> np.ndarray:
    """uint8 [h w 3], RGB -> uint8 [h w 3].

    Draws `ops` operations with replacement; each is applied with probability `prob`, at a magnitude drawn
    from N(magnitude, std) and clipped to 0..10.
    """
    for index in rng.integers(len(NAMES), size=ops):
        if rng.random() < prob:
            m = min(max(rng.normal(magnitude, std), 0.0), LIMIT)
            image = apply(image, NAMES[index], m, 1 if rng.random() < 0.5 else -1)
    return image
