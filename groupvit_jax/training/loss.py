"""The two contrastive losses (the paper, section 3.2), on global arrays: under `jax.jit` with a sharded batch the
compiler gathers the embeddings, so that every image is compared with every text of the global batch."""

import jax
import jax.numpy as jnp

from groupvit_jax.models.layers import unit


def similarity(image: jax.Array, text: jax.Array) -> jax.Array:
    """Cosines [b t] of image [b d] and text [t d]; float32 throughout, also where products default to fewer bits."""
    return jnp.matmul(unit(image), unit(text).T, precision=jax.lax.Precision.HIGHEST)


def caption_loss(image: jax.Array, text: jax.Array, scale: jax.Array) -> jax.Array:
    """Mean of the image-to-text and text-to-image cross-entropies; image [b d], text [b d], row i belongs to row i."""
    logits = scale * similarity(image, text)  # [b b]
    to_text = jnp.diagonal(jax.nn.log_softmax(logits, axis=1))
    to_image = jnp.diagonal(jax.nn.log_softmax(logits, axis=0))
    return -0.5 * (to_text.mean() + to_image.mean())


def multi_label_loss(image: jax.Array, prompts: jax.Array, scale: jax.Array) -> jax.Array:
    """Image i against all prompts with target 1/K on its own K, each prompt against all images; mean of the two.

    image [b d], prompts [b k d].
    """
    b, k, d = prompts.shape
    logits = scale * similarity(image, prompts.reshape(b * k, d))  # [b b*k]
    own = jnp.arange(b)
    to_prompts = jax.nn.log_softmax(logits, axis=1).reshape(b, b, k)[own, own]  # [b k]
    to_image = jax.nn.log_softmax(logits, axis=0).reshape(b, b, k)[own, own]
    return -0.5 * (to_prompts.mean() + to_image.mean())


def contrastive(outputs: dict) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`TwoTowers.__call__`'s outputs -> (loss, metrics).

    Text 0 of an image is its caption; the others are its prompts and enter the multi-label loss, with weight 1.
    Metrics are float32 scalars: the losses, the logit scale, `accuracy` (share of images that find their caption in
    the batch) and `groups_used` (mean number of last-stage groups that win at least one token).
    """
    image, captions, prompts = outputs["image"], outputs["texts"][:, 0], outputs["texts"][:, 1:]
    loss = caption_loss(image, captions, outputs["scale"])
    winners = outputs["assignments"][-1].argmax(axis=1)  # [b n]
    used = jax.nn.one_hot(winners, outputs["assignments"][-1].shape[1]).max(axis=1).sum(axis=-1)  # [b]
    metrics = {"caption_loss": loss, "logit_scale": outputs["scale"], "groups_used": used.mean(),
               "accuracy": jnp.mean(similarity(image, captions).argmax(axis=1) == jnp.arange(len(image)))}
    if "multi_label_scale" in outputs:
        extra = multi_label_loss(image, prompts, outputs["multi_label_scale"])
        loss, metrics["multi_label_loss"] = loss + extra, extra
    return loss, metrics | {"loss": loss}
