"""The end of the image pipeline, inside the compiled step: flip, normalise, erase.

The host ships uint8; what is cheap on an accelerator and dear on the host is done here. Every image has a key of its
own, so that the result does not depend on how the batch is split.
"""

import math

import jax
import jax.numpy as jnp

from groupvit_jax.models.image import normalize

# timm's RandomErasing (Zhong et al., arXiv:1708.04896) in mode "pixel"
ERASE_AREA = (0.02, 1 / 3)  # share of the image
ERASE_ASPECT = (0.3, 1 / 0.3)  # height/width
ERASE_TRIES = 10  # rectangles drawn until one fits; if none does, the image stays whole


def augment(keys: jax.Array, images: jax.Array, flip: float = 0.5, erase: float = 0.25) -> jax.Array:
    """Keys [b], uint8 [b h w 3] -> float32 [b h w 3]: each mirrored with probability `flip`, normalised, and with
    probability `erase` one rectangle filled with standard normal noise, pixel by pixel.

    `flip` and `erase` are Python numbers: 0 compiles to nothing.
    """
    return jax.vmap(lambda key, image: augment_one(key, image, flip, erase))(keys, images)


def augment_one(key: jax.Array, image: jax.Array, flip: float, erase: float) -> jax.Array:
    flip_key, erase_key, noise_key = jax.random.split(key, 3)
    if flip:
        image = jnp.where(jax.random.bernoulli(flip_key, flip), image[:, ::-1], image)
    image = normalize(image)
    if erase:
        erased = erase_mask(erase_key, image.shape[0], image.shape[1], erase)
        image = jnp.where(erased[..., None], noise(noise_key, image.shape), image)
    return image


def noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal float32 [h w c]. Drawn for all pixels, since shapes are static, which is a good part of what
    augmenting costs: so from 16 bits each, values up to 4.3, two from each random number."""
    h, w, c = shape
    bits = jax.random.bits(key, (-(-h // 2), w, c), jnp.uint32)
    halves = jnp.concatenate([bits >> 16, bits & 0xFFFF])[:h]  # [h w c]
    return math.sqrt(2) * jax.lax.erf_inv((halves.astype(jnp.float32) + 0.5) / 2**15 - 1.0)


def erase_mask(key: jax.Array, height: int, width: int, probability: float) -> jax.Array:
    """Which pixels to erase: bool [h w], one rectangle with `probability`, else nothing.

    Draws all ERASE_TRIES rectangles at once and takes the first that fits, which is what trying in turn does.
    """
    apply_key, area_key, aspect_key, top_key, left_key = jax.random.split(key, 5)
    low, high = ERASE_AREA
    area = jax.random.uniform(area_key, (ERASE_TRIES,), minval=low, maxval=high) * (height * width)  # [tries]
    low, high = map(math.log, ERASE_ASPECT)
    aspect = jnp.exp(jax.random.uniform(aspect_key, (ERASE_TRIES,), minval=low, maxval=high))
    h, w = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (h < height) & (w < width)
    first = jnp.argmax(fits)
    h, w = h[first].astype(jnp.int32), w[first].astype(jnp.int32)
    chosen = jax.random.bernoulli(apply_key, probability) & fits.any()

    def span(key: jax.Array, side: int, length: jax.Array) -> jax.Array:
        """Where the rectangle lies along one side: bool [side]."""
        room = jnp.maximum(side - length, 0)  # negative only where nothing fits
        start = jax.random.randint(key, (), 0, room + 1)
        position = jnp.arange(side)
        return (position >= start) & (position < start + length)

    return span(top_key, height, h)[:, None] & span(left_key, width, w) & chosen
