"""A trained model in a person's hands: embeddings, similarities, segments, from plain images and words."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from groupvit_jax.data.images import classification_transform
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes as class_lists
from groupvit_jax.evals import datasets
from groupvit_jax.evals.prompts import TextEncoder, class_embeddings
from groupvit_jax.evals.segmentation import segment
from groupvit_jax.evals.windows import Geometry, cut
from groupvit_jax.models import two_towers
from groupvit_jax.models.image import normalize
from groupvit_jax.models.layers import unit
from groupvit_jax.training import checkpoint

Images = np.ndarray | Sequence[Image.Image]
BATCH = 32  # images a program call; fixed, so that any number of them compiles once
(VOC,) = datasets.find_tasks(["voc"])


class Segmentation(NamedTuple):
    """An image's pixels by class: `labels` int32 [h w], `scores` float32 [h w n] over `names`, and `groups` int32
    [h w] of the last stage (of every stage in `stages`). With a background, name and label 0 is "background"."""

    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    names: tuple[str, ...]
    stages: tuple[np.ndarray, ...]


class Model:
    """A GroupViT with its weights, on the default device. `groupvit_jax.load` makes one.

    Attributes: `config` (the run's, complete), `module` (the flax module), `variables` (params and batch_stats).
    """

    def __init__(self, config: ConfigDict, variables: dict[str, Any]):
        self.config, self.variables = config, variables
        self.module = two_towers.build(config.model, multi_label=config.data.prompts > 0)
        ev = config.eval
        self.geometry = Geometry(ev.size, ev.long, ev.window, ev.stride)
        self._texts = TextEncoder(self.module)
        self._images = jax.jit(self._project_images)
        self._segment = jax.jit(lambda variables, part, embeddings, threshold: segment(
            self.module, variables, part, embeddings, threshold))

    def _project_images(self, variables: dict, images: jax.Array) -> jax.Array:
        features = self.module.apply(variables, normalize(images), method="encode_image")
        return unit(self.module.apply(variables, features.pooled, method="project_image"))

    def encode_image(self, images: Images) -> np.ndarray:
        """uint8 [b h w 3], or PIL images -> float32 [b d] of unit length.

        Images of the training size are taken as they are; others are resized and cropped as for ImageNet (the short
        side to 256/224 of the size, the centre kept). Raises InputError for anything that is not RGB pictures.
        """
        side = self.config.model.image.image_size
        pixels = np.stack([self._fit(image, side) for image in as_arrays(images)])
        padded = np.concatenate([pixels, np.zeros((-len(pixels) % BATCH, side, side, 3), np.uint8)])
        parts = [self._images(self.variables, part) for part in padded.reshape(-1, BATCH, side, side, 3)]
        return np.concatenate(jax.device_get(parts))[: len(pixels)]

    @staticmethod
    def _fit(image: np.ndarray, side: int) -> np.ndarray:
        if image.shape[:2] == (side, side):
            return image
        return classification_transform(image, resize=round(side * 256 / 224), crop=side)

    def encode_text(self, texts: str | Sequence[str]) -> np.ndarray:
        """t texts -> float32 [t d] of unit length. Raises InputError for none."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise InputError("no text given")
        return np.asarray(unit(self._texts(self.variables, texts)))

    def similarity(self, images: Images, texts: str | Sequence[str]) -> np.ndarray:
        """The scaled logits, float32 [b t]; a softmax over texts gives their probabilities."""
        scale = self.module.apply(self.variables, method="logit_scale")
        return np.asarray(scale) * self.encode_image(images) @ self.encode_text(texts).T

    def segment(self, image: np.ndarray | Image.Image, classes: Sequence[str], background: bool | float = False,
                protocol: str = "groupvit") -> Segmentation:
        """Labels every pixel of an image of any size with one of `classes`, by the zero-shot protocol.

        image: PIL or uint8 [h w 3], the way up it is to be seen; a camera's EXIF orientation is not looked at.
        background: True adds a background label by the protocol's threshold for VOC, a number (0-1) by that one.
        Raises InputError for no or empty class names, or an unknown protocol.
        """
        names, templates = class_names(classes), class_lists.templates(protocol)
        threshold = None if background is False else background_threshold(background, protocol)
        embeddings = class_embeddings(lambda texts: self._texts(self.variables, texts), names, templates)
        (pixels,) = as_arrays([image])
        labels, scores, stages = jax.device_get(
            self._segment(self.variables, cut(pixels, self.geometry), jnp.asarray(embeddings), threshold))
        names = names if threshold is None else ["background", *names]
        return Segmentation(labels, scores, stages[-1], tuple(names), tuple(stages))


def class_names(classes: Sequence[str]) -> list[str]:
    """The names without spaces around them; InputError for none or an empty one."""
    names = [classes] if isinstance(classes, str) else [name.strip() for name in classes]
    if not all(names) or not names:
        raise InputError("segment needs at least one class name, none of them empty, as in 'cat,sofa'")
    return names


def background_threshold(background: bool | float, protocol: str) -> float:
    threshold = VOC.background[protocol] if background is True else float(background)
    if not 0.0 <= threshold <= 1.0:
        raise InputError(f"background={threshold} is not a threshold between 0 and 1")
    return threshold


def as_arrays(images: Images) -> list[np.ndarray]:
    """PIL images or uint8 arrays -> uint8 [h w 3] arrays; InputError for anything else."""
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim != 4):
        raise InputError("give images as a list, or an array [b h w 3]; one image is [image]")
    arrays = [np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else np.asarray(image)
              for image in images]
    for array in arrays:
        if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise InputError(f"an image is {array.dtype} {array.shape}; give PIL images or uint8 [h w 3] RGB arrays")
    if not arrays:
        raise InputError("no image given")
    return arrays


def load(path: str) -> Model:
    """The model in `path`: a training workdir (its newest checkpoint). Raises InputError when there is none."""
    config, variables, _ = checkpoint.load(path)
    return Model(config, variables)
