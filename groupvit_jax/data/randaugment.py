"""RandAugment as DeiT trained with it: timm's `rand-m9-mstd0.5-inc1`, on PIL images.

Cubuk et al., "RandAugment" (arXiv:1909.13719), with timm's changes: each of the two operations is applied
with probability 0.5, at a magnitude that varies from image to image, and every range grows with the magnitude
("inc1").
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

FILL = (124, 116, 104)  # the ImageNet mean in 0..255, for pixels that come from outside the image
LIMIT = 10.0  # magnitudes run from 0 (no change) to this


def _affine(image, *matrix):
    """Output pixel (x, y) is taken from (a x + b y + c, d x + e y + f) of the input."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR, fillcolor=FILL
    )


def _solarize_add(image, add):
    return image.point([min(255, v + add) if v < 128 else v for v in range(256)] * 3)


def _posterize(image, bits):
    """Keeps the highest bits; 0 bits (magnitude 10) is a black image, as PIL's own gave before it raised."""
    mask = 256 - 2 ** (8 - bits)
    return image.point([v & mask for v in range(256)] * 3)


def _signed(most):
    """Level of an operation that goes either way: magnitude 10 gives +-most."""
    return lambda m, sign: sign * (m / LIMIT) * most


def _enhance(m, sign):
    """Factor of PIL's ImageEnhance: 1 leaves the image as it is, and either way is stronger."""
    return max(0.1, 1.0 + sign * (m / LIMIT) * 0.9)


# name: (level, operation). `level(magnitude, sign)` is the argument of `operation(image, level)`.
OPS = {
    "AutoContrast": (None, lambda image, _: ImageOps.autocontrast(image)),
    "Equalize": (None, lambda image, _: ImageOps.equalize(image)),
    "Invert": (None, lambda image, _: ImageOps.invert(image)),
    "Rotate": (  # degrees
        _signed(30.0),
        lambda image, level: image.rotate(level, resample=Image.Resampling.BILINEAR, fillcolor=FILL),
    ),
    "Posterize": (lambda m, _: 4 - int(m / LIMIT * 4), _posterize),  # bits kept
    "Solarize": (lambda m, _: 256 - int(m / LIMIT * 256), ImageOps.solarize),  # inverted from this value on
    "SolarizeAdd": (lambda m, _: int(m / LIMIT * 110), _solarize_add),  # added to values below 128
    "Color": (_enhance, lambda image, level: ImageEnhance.Color(image).enhance(level)),
    "Contrast": (_enhance, lambda image, level: ImageEnhance.Contrast(image).enhance(level)),
    "Brightness": (_enhance, lambda image, level: ImageEnhance.Brightness(image).enhance(level)),
    "Sharpness": (_enhance, lambda image, level: ImageEnhance.Sharpness(image).enhance(level)),
    "ShearX": (_signed(0.3), lambda image, level: _affine(image, 1, level, 0, 0, 1, 0)),
    "ShearY": (_signed(0.3), lambda image, level: _affine(image, 1, 0, 0, level, 1, 0)),
    "TranslateX": (_signed(0.45), lambda image, level: _affine(image, 1, 0, level * image.width, 0, 1, 0)),
    "TranslateY": (_signed(0.45), lambda image, level: _affine(image, 1, 0, 0, 0, 1, level * image.height)),
}  # level None: the operation has no strength
NAMES = tuple(OPS)


def apply(image: Image.Image, name: str, magnitude: float, sign: int = 1) -> Image.Image:
    """One operation of OPS at a magnitude in 0..10; `sign` (1 or -1) picks its direction where it has two."""
    level, operation = OPS[name]
    return operation(image, level(magnitude, sign) if level else None)


def randaugment(
    image: Image.Image, rng: np.random.Generator, magnitude=9.0, std=0.5, ops=2, prob=0.5
) -> Image.Image:
    """RGB image -> RGB image of the same size.

    Draws `ops` operations with replacement; each is applied with probability `prob`, at a magnitude drawn
    from N(magnitude, std) and clipped to 0..10.
    """
    for index in rng.integers(len(NAMES), size=ops):
        if rng.random() < prob:
            m = min(max(rng.normal(magnitude, std), 0.0), LIMIT)
            image = apply(image, NAMES[index], m, 1 if rng.random() < 0.5 else -1)
    return image
