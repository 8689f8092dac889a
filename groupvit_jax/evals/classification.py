"""Zero-shot classification of whole pictures on the device: top-1 and top-5."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from groupvit_jax import parallel
from groupvit_jax.data.images import classification_transform
from groupvit_jax.errors import InputError
from groupvit_jax.evals.prompts import Queries
from groupvit_jax.evals.segmentation import by_label, einsum
from groupvit_jax.models.image import normalize
from groupvit_jax.models.layers import unit
from groupvit_jax.models.two_towers import TwoTowers

Arrays = dict[str, jax.Array]


def fit(image: np.ndarray, side: int, name: str = "an image") -> np.ndarray:
    """uint8 [h w 3] -> [side side 3]: as it is if it has that size, else ImageNet's evaluation transform (256 and 224
    pixels, or in that proportion). InputError for a picture so narrow that resizing it would take gigabytes."""
    if image.shape[:2] == (side, side):
        return image
    if max(image.shape[:2]) > 100 * min(image.shape[:2]):
        raise InputError(f"{name} is {image.shape[1]}x{image.shape[0]} pixels, too narrow to be scaled: crop it")
    return classification_transform(image, resize=round(side * 256 / 224), crop=side)


def pack(pictures: list[tuple[np.ndarray, int]], side: int, images: int) -> dict[str, np.ndarray]:
    """Pictures with their classes as one device's batch: uint8 [images side side 3], int32 [images], -1 for none."""
    batch: dict[str, Any] = {"image": np.zeros((images, side, side, 3), np.uint8),
                             "label": np.full(images, -1, np.int32)}
    for i, (image, label) in enumerate(pictures):
        batch["image"][i], batch["label"][i] = image, label
    return batch


def empty_sums(devices: int) -> dict[str, np.ndarray]:
    return {name: np.zeros(devices, np.int32) for name in ("top1", "top5", "images")}


def make_counter(model: TwoTowers, mesh: jax.sharding.Mesh) -> Callable[..., dict]:
    """The one program for whole pictures: `count(variables, queries, sums, batch) -> sums`.

    batch: of each device what `pack` gives, [devices ...], split over the mesh. A class is the k-th choice if k - 1
    others are nearer, or as near and before it in the list.
    """

    def count(variables: dict[str, Any], queries: Queries, sums: Arrays, batch: Arrays) -> Arrays:
        images, labels = batch["image"], batch["label"]  # [d b h w 3], [d b]
        features = model.apply(variables, normalize(images.reshape(-1, *images.shape[2:])), method="encode_image")
        pooled = unit(model.apply(variables, features.pooled, method="project_image"))  # [d*b e]
        similarity = by_label(einsum("nd,qd->nq", pooled, queries.embeddings), queries, -jnp.inf)
        truth = labels.reshape(-1, 1)
        own = jnp.take_along_axis(similarity, jnp.maximum(truth, 0), axis=1)
        before = jnp.arange(similarity.shape[1]) < truth
        rank = ((similarity > own) | (similarity == own) & before).sum(axis=1).reshape(labels.shape)
        found = {"top1": rank < 1, "top5": rank < 5, "images": labels >= 0}
        return {name: sums[name] + (x & (labels >= 0)).sum(axis=1) for name, x in found.items()}

    return jax.jit(count, donate_argnums=2, out_shardings=parallel.batch_sharding(mesh))
