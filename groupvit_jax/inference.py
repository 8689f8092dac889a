"""A trained model in a person's hands: embeddings, similarities, segments, from plain images and words."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from groupvit_jax.data.decoding import rgb
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes as class_lists
from groupvit_jax.evals import datasets
from groupvit_jax.evals.classification import fit
from groupvit_jax.evals.prompts import TextEncoder, make_queries, synonyms
from groupvit_jax.evals.segmentation import window_scores
from groupvit_jax.evals.windows import Cut, Geometry, cut, merge
from groupvit_jax.models import two_towers
from groupvit_jax.models.image import normalize
from groupvit_jax.models.layers import unit
from groupvit_jax.training import checkpoint

Images = np.ndarray | Sequence[Image.Image | np.ndarray]
MOST = 1 << 33  # bytes of an image's scores: 12 megapixels with 170 classes
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
        self._score = jax.jit(lambda variables, windows, queries: window_scores(
            self.module, variables, windows, queries))

    def _project_images(self, variables: dict, images: jax.Array) -> jax.Array:
        features = self.module.apply(variables, normalize(images), method="encode_image")
        return unit(self.module.apply(variables, features.pooled, method="project_image"))

    def encode_image(self, images: Images) -> np.ndarray:
        """uint8 [b h w 3], or PIL images -> float32 [b d] of unit length.

        Images of the training size are taken as they are; others are resized and cropped as for ImageNet (the short
        side to 256/224 of the size, the centre kept). Raises InputError for anything that is not RGB pictures.
        """
        side = self.config.model.image.image_size
        pixels = np.stack([fit(image, side) for image in as_arrays(images)])
        padded = np.concatenate([pixels, np.zeros((-len(pixels) % BATCH, side, side, 3), np.uint8)])
        parts = [self._images(self.variables, part) for part in padded.reshape(-1, BATCH, side, side, 3)]
        return np.concatenate(jax.device_get(parts))[: len(pixels)]

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

    def segment(self, image: np.ndarray | Image.Image, classes: Sequence[str],
                background: bool | float | str = False, protocol: str = "groupvit") -> Segmentation:
        """Labels every pixel of an image of any size with one of `classes`, by the zero-shot protocol.

        Raises InputError for no or empty class names, an unknown protocol, or scores of more than MOST bytes.

        Args:
            image: PIL or uint8 [h w 3], the way up it is to be seen; a camera's EXIF orientation is not looked at.
            classes: a name each, or several for one thing, as "cat; kitten; tabby", of which the best counts.
            background: True adds a background label by the protocol's threshold for VOC, a number (0-1) by that one,
                words ("sky; wall") by how well these fit.
            protocol: "groupvit" or "tcl".
        """
        names, asked = find_labels(classes, background, protocol)
        (pixels,) = as_arrays([image])
        height, width = pixels.shape[:2]
        check_room(height, width, len(names))
        part = cut(pixels, self.geometry)
        queries = make_queries(lambda texts: self._texts(self.variables, texts), *asked)
        # One window at a time, so that one program serves images of all sizes.
        windows = [jax.device_get(self._score(self.variables, window[None], queries)) for window in part.windows]
        members = np.concatenate([window.members for window in windows]).swapaxes(1, 2)  # [n g h w]
        table = np.concatenate([window.table for window in windows])[..., : len(names)]
        scores, owners = merge(part, members, table)
        stages = [np.concatenate(stage) for stage in zip(*(window.stages for window in windows))]
        earlier = earlier_stages(part, stages, self.module.image.output_groups)
        return Segmentation(scores.argmax(axis=-1).astype(np.int32), scores, owners, names, (*earlier, owners))


def find_labels(classes: Sequence[str], background: bool | float | str, protocol: str
                ) -> tuple[tuple[str, ...], tuple[list[list[str]], list[str], float | None]]:
    """What `Model.segment` is asked -> the names of the labels, and of `make_queries` the words of each label, the
    templates and the threshold. Raises InputError as it does."""
    words, templates = class_words(classes), class_lists.templates(protocol)
    names, threshold = [each[0] for each in words], None
    if isinstance(background, str):
        names, words = ["background", *names], [synonyms(background), *words]
    elif background is not False:
        names, words = ["background", *names], [[], *words]
        threshold = background_threshold(background, protocol)
    return tuple(names), (words, templates, threshold)


def check_room(height: int, width: int, names: int) -> None:
    if 4 * height * width * names > MOST:
        raise InputError(f"{width}x{height} pixels with {names} classes make scores of more than "
                         f"{MOST >> 30} GiB: make the image smaller, or give fewer classes")


def earlier_stages(part: Cut, stages: Sequence[np.ndarray], groups: Sequence[int]) -> list[np.ndarray]:
    """The windows' maps of groups, int [n h w] of each stage, and how many `groups` each has -> int32 [H W] of the
    image for all stages but the last."""
    return [merge(part, one_hot(stage, number))[1] for stage, number in zip(stages[:-1], groups)]


def one_hot(groups: np.ndarray, number: int) -> np.ndarray:
    """int [n h w] -> float32 [n g h w]."""
    return (groups[:, None] == np.arange(number)[:, None, None]).astype(np.float32)


def class_words(classes: Sequence[str]) -> list[list[str]]:
    """The names of each class; InputError for no class or an empty name."""
    classes = [classes] if isinstance(classes, str) else list(classes)
    if not classes or not all(name.strip() for name in classes):
        raise InputError("segment needs at least one class name, none of them empty, as in 'cat,sofa'")
    return [synonyms(name) for name in classes]


def background_threshold(background: bool | float, protocol: str) -> float:
    threshold = VOC.background[protocol] if background is True else float(background)
    if not 0.0 <= threshold <= 1.0:
        raise InputError(f"background={threshold} is not a threshold between 0 and 1")
    return threshold


def as_arrays(images: Images) -> list[np.ndarray]:
    """PIL images or uint8 arrays -> uint8 [h w 3] arrays; InputError for anything else."""
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim != 4):
        raise InputError("give images as a list, or an array [b h w 3]; one image is [image]")
    arrays = [rgb(image) if isinstance(image, Image.Image) else np.asarray(image)
              for image in images]
    for array in arrays:
        if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise InputError(f"an image is {array.dtype} {array.shape}; give PIL images or uint8 [h w 3] RGB arrays")
    if not arrays:
        raise InputError("no image given")
    return arrays


def load(path: str, sharding: jax.sharding.Sharding | None = None) -> Model:
    """The model in `path`: a training workdir (its newest checkpoint), WORKDIR/checkpoints/STEP, what `groupvit import`
    made, a Hugging Face folder, a .safetensors, .pth or .bin file; its arrays where `sharding` says. Raises InputError
    when it is none of these."""
    found = checkpoint.load(path, sharding)
    return Model(found.config, found.variables)
