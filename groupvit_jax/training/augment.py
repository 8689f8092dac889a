"""The end of the image pipeline, inside the compiled step: flip, normalise, erase.

The host ships uint8; what is cheap on an accelerator and dear on the host is done here. One key serves the
global batch and every image draws its own flip and rectangle from it, so the result does not depend on how
the batch is sharded.
"""

import math

import jax
import jax.numpy as jnp

from groupvit_jax.models.image import normalize

# timm's RandomErasing (Zhong et al., arXiv:1708.04896) in mode "pixel"
ERASE_AREA = (0.02, 1 / 3)  # share of the image
ERASE_ASPECT = (0.3, 1 / 0.3)  # height/width
ERASE_TRIES = 10  # rectangles drawn until one fits; if none does, the image stays whole


def augment(key: jax.Array, images: jax.Array, flip: float = 0.5, erase: float = 0.25) -> jax.Array:
    """uint8 [b h w 3] -> float32 [b h w 3]: mirrored with probability `flip`, normalised, and with
    probability `erase` one rectangle filled with standard normal noise, pixel by pixel.

    `flip` and `erase` are Python numbers: 0 compiles to nothing.
    """
    flip_key, erase_key, noise_key = jax.random.split(key, 3)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, flip, images.shape[:1])  # [b]
        images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    images = normalize(images)
    if erase:
        erased = erase_mask(erase_key, images.shape[:3], erase)  # [b h w]
        # The noise is drawn for all pixels, since shapes are static: some ten megaflop an image, next to the
        # tower's tens of gigaflop.
        images = jnp.where(erased[..., None], jax.random.normal(noise_key, images.shape), images)
    return images


def erase_mask(key: jax.Array, shape: tuple[int, int, int], probability: float) -> jax.Array:
    """Which pixels to erase: bool [b h w], in each image one rectangle with `probability`, else nothing.

    Draws all ERASE_TRIES rectangles at once and takes the first that fits, which is what trying in turn does.
    """
    b, height, width = shape
    apply_key, area_key, aspect_key, top_key, left_key = jax.random.split(key, 5)
    tries = (b, ERASE_TRIES)
    low, high = ERASE_AREA
    area = jax.random.uniform(area_key, tries, minval=low, maxval=high) * (height * width)  # [b tries]
    low, high = map(math.log, ERASE_ASPECT)
    aspect = jnp.exp(jax.random.uniform(aspect_key, tries, minval=low, maxval=high))
    h, w = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (h < height) & (w < width)
    first = jnp.argmax(fits, axis=1)[:, None]
    h, w = (jnp.take_along_axis(x, first, axis=1)[:, 0].astype(jnp.int32) for x in (h, w))  # [b]
    chosen = jax.random.bernoulli(apply_key, probability, (b,)) & fits.any(axis=1)

    def span(key, side, length):
        """Where the rectangle lies along one side: bool [b side]."""
        room = jnp.maximum(side - length, 0)  # negative only where nothing fits
        start = jax.random.randint(key, (b,), 0, room + 1)[:, None]
        position = jnp.arange(side)
        return (position >= start) & (position < start + length[:, None])

    rows, columns = span(top_key, height, h), span(left_key, width, w)
    return rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
