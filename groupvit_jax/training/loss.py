"""The two contrastive losses (the paper, section 3.2), on global arrays: every image is compared with every text of the
global batch, wherever they lie.

Of the similarities only their sums over a row and over a column are wanted. So the texts stay where they are, the
images (fewer, as each has several texts) are gathered, and each device compares all images with its own texts, some at
a time: the matrix of similarities exists nowhere.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from groupvit_jax import parallel
from groupvit_jax.models.layers import unit
from groupvit_jax.training.vitals import spread

Best = tuple[jax.Array, jax.Array, jax.Array]
BLOCK = 1 << 24  # similarities that a device holds at a time; 64 MB


def similarity(image: jax.Array, text: jax.Array) -> jax.Array:
    """Cosines [b t] of image [b d] and text [t d]; float32 throughout, also where products default to fewer bits."""
    return jnp.matmul(unit(image), unit(text).T, precision=jax.lax.Precision.HIGHEST)


def log_sums(image: jax.Array, text: jax.Array, scale: jax.Array, parts: int = 1,
             block: int = BLOCK) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the logits `scale * similarity(image, text)` come to.

    Args:
      image, text: [b d], [t d].
      parts: devices over which texts are split, a divisor of t.
      block: logits a device holds at a time, if its texts divide so; the result does not depend on it.
    Returns: log-sum-exp over texts [b], over images [t], and each image's nearest text [b].
    """
    (b, d), t = image.shape, len(text)
    rows = t // parts
    chunks = next(n for n in range(1, rows + 1) if rows % n == 0 and (rows // n * b <= block or n == rows))
    # Every chunks-th text is in the same chunk: [parts chunks rows].
    numbers = parallel.over_batch(jnp.arange(t).reshape(parts, rows // chunks, chunks).swapaxes(1, 2))
    texts = parallel.over_batch(text.reshape(parts, rows // chunks, chunks, d).swapaxes(1, 2))
    images = parallel.over_batch(jnp.broadcast_to(image, (parts, b, d)))  # a copy a device, whose gradients it adds up

    def compare(images: jax.Array, so_far: Best, chunk: tuple[jax.Array, jax.Array]) -> tuple[Best, jax.Array]:
        of_images, best, nearest = so_far  # [b] each
        texts, numbers = chunk
        logits = scale * similarity(texts, images)  # [rows b]
        top, number = logits.max(axis=0), numbers[logits.argmax(axis=0)]
        closer = (top > best) | (top == best) & (number < nearest)  # of equal texts the first, in whatever chunk it is
        so_far = (jnp.logaddexp(of_images, jax.nn.logsumexp(logits, axis=0)),
                  jnp.where(closer, top, best), jnp.where(closer, number, nearest))
        return so_far, jax.nn.logsumexp(logits, axis=1)

    if chunks > 1:
        compare = jax.checkpoint(compare)
    nothing = jnp.full(b, jnp.finfo(jnp.float32).min)
    none = (nothing, nothing, jnp.zeros(b, numbers.dtype))
    each = jax.vmap(lambda images, texts, numbers: jax.lax.scan(
        functools.partial(compare, images), none, (texts, numbers), unroll=chunks == 1))
    (of_images, best, nearest), of_texts = each(images, texts, numbers)  # [parts b], [parts chunks rows]
    nearest = jnp.take_along_axis(nearest, best.argmax(axis=0)[None], axis=0)[0]
    return jax.nn.logsumexp(of_images, axis=0), of_texts.swapaxes(1, 2).reshape(t), nearest


def contrast(image: jax.Array, texts: jax.Array, scale: jax.Array, **how: Any) -> tuple[jax.Array, jax.Array]:
    """Images [b d] against all texts [b k d] with target 1/k on their own k, each text against all images: the mean of
    the two cross-entropies, and each image's nearest text, [b]. `how`: see `log_sums`."""
    b, k, d = texts.shape
    of_images, of_texts, nearest = log_sums(image, texts.reshape(b * k, d), scale, **how)
    own = scale * jnp.sum(unit(image)[:, None] * unit(texts), axis=-1)  # [b k]
    return 0.5 * (of_images.mean() + of_texts.mean()) - own.mean(), nearest


def caption_loss(image: jax.Array, text: jax.Array, scale: jax.Array, **how: Any) -> jax.Array:
    """Mean of the image-to-text and text-to-image cross-entropies; image [b d], text [b d], row i belongs to row i."""
    return contrast(image, text[:, None], scale, **how)[0]


def multi_label_loss(image: jax.Array, prompts: jax.Array, scale: jax.Array, **how: Any) -> jax.Array:
    """Image i against all prompts with target 1/K on its own K, each prompt against all images; mean of the two.

    image [b d], prompts [b k d].
    """
    return contrast(image, prompts, scale, **how)[0]


def contrastive(outputs: dict, **how: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`TwoTowers.project`'s outputs -> (loss, metrics); `how`: see `log_sums`.

    Text 0 of an image is its caption; the others are its prompts and enter the multi-label loss, with weight 1.
    Metrics are float32 scalars: the losses, the logit scales, `accuracy` (share of images that find their caption in
    the batch), `image_spread` and `text_spread` (of images and captions, see `vitals.spread`).
    """
    image, captions, prompts = outputs["image"], outputs["texts"][:, 0], outputs["texts"][:, 1:]
    loss, nearest = contrast(image, captions[:, None], outputs["scale"], **how)
    metrics = {"caption_loss": loss, "logit_scale": outputs["scale"],
               "accuracy": jnp.mean(nearest == jnp.arange(len(image))),
               "image_spread": spread(image), "text_spread": spread(captions)}
    if "multi_label_scale" in outputs:
        extra = multi_label_loss(image, prompts, outputs["multi_label_scale"], **how)
        loss = loss + extra
        metrics |= {"multi_label_loss": extra, "multi_label_scale": outputs["multi_label_scale"]}
    return loss, jax.lax.stop_gradient(metrics | {"loss": loss})
