"""Words to what the device compares with: prompts, their embeddings, and which label each word stands for."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from groupvit_jax import parallel
from groupvit_jax.data.tokenizer import tokenize
from groupvit_jax.errors import InputError
from groupvit_jax.models.two_towers import TwoTowers

SLOTS = 256  # words and labels are padded to multiples of it, so that one program serves all data sets
LENGTHS = (16, 32)  # tokens; texts are padded to the first of them that they fit in, else to the model's length


class Queries(NamedTuple):
    """What is looked for, in shapes that do not depend on the data set: q words and c labels, multiples of SLOTS.

    embeddings float32 [q d]: of unit length. label int32 [q]: the label a word stands for; c: none, padding.
    real bool [c]: the labels there are; they come first.
    threshold: of the background, label 0, which then has no words; -1: there is none.
    top: how many labels a window may have; 0: no limit.
    """

    embeddings: np.ndarray
    label: np.ndarray
    real: np.ndarray
    threshold: np.float32
    top: np.int32

    def first(self, n: int) -> "Queries":
        """Those of the first n labels alone."""
        c = len(self.real)
        return self._replace(label=np.where(self.label < n, self.label, c).astype(np.int32), real=np.arange(c) < n)


def fill(names: list[str], templates: list[str]) -> list[str]:
    """Every name in every template, the templates of one name together."""
    return [template.replace("{}", name) for name in names for template in templates]


def class_embeddings(
    encode: Callable[[list[str]], np.ndarray], names: list[str], templates: list[str]
) -> np.ndarray:
    """Unit float32 [classes d]: the mean over templates of a class's projected texts, then L2-normalised.

    `encode` maps n texts to their projections [n d], not normalised; they are not normalised before the mean
    either, as in the published GroupViT evaluation (CLIP's own recipe normalises both times).
    """
    texts = np.asarray(encode(fill(names, templates)), np.float32)
    mean = texts.reshape(len(names), len(templates), -1).mean(axis=1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def make_queries(encode: Callable[[list[str]], np.ndarray], words: Sequence[Sequence[str]], templates: list[str],
                 threshold: float | None = None, top: int = 5, slots: int = 0) -> Queries:
    """The words of each label, in label order -> Queries.

    words: of each label one or more names for it; none for label 0 if that is background by a threshold.
    top: see `Queries`. slots: at least so many words.
    """
    names, label = [name for synonyms in words for name in synonyms], []
    for i, synonyms in enumerate(words):
        label += [i] * len(synonyms)
    found = class_embeddings(encode, names, templates)
    q, c = (-(-n // SLOTS) * SLOTS for n in (max(len(names), slots), len(words)))
    embeddings = np.zeros((q, found.shape[1]), np.float32)
    embeddings[: len(names)] = found
    return Queries(embeddings, np.array(label + [c] * (q - len(label)), np.int32), np.arange(c) < len(words),
                   np.float32(-1 if threshold is None else threshold), np.int32(top))


class TextEncoder:
    """Texts to the model's common space, `batch` at a time, so that one program serves all texts of like length.

    `model` is a `TwoTowers`; programs are compiled when first needed and kept as long as the encoder.
    """

    def __init__(self, model: TwoTowers, batch: int = 64, mesh: jax.sharding.Mesh | None = None) -> None:
        self.batch, self.length, self.mesh = batch, model.text.length, mesh

        def project(variables: dict[str, Any], tokens: jax.Array) -> jax.Array:  # int32 [b l]
            features = model.apply(variables, tokens[:, None], method="encode_text")  # [b 1 c]
            return model.apply(variables, features[:, 0], method="project_text").astype(jnp.float32)

        self.project = jax.jit(project, out_shardings=parallel.replicated(mesh) if mesh else None)

    def __call__(self, variables: dict[str, Any], texts: list[str]) -> np.ndarray:
        """n texts -> float32 [n d], projected, not normalised."""
        tokens = np.asarray(tokenize(texts, self.length))
        # Attention is causal and the feature is read at the end: what follows it changes nothing and may be left out.
        used = np.flatnonzero(tokens.any(axis=0))[-1] + 1
        tokens = tokens[:, : next((n for n in LENGTHS if used <= n <= self.length), self.length)]
        # Empty places repeat a real text: an all-zero row would be no valid input.
        tokens = np.concatenate([tokens, np.repeat(tokens[:1], -len(tokens) % self.batch, axis=0)])
        # One call at a time: on CPUs several that gather from all devices can wait for each other for ever.
        parts = [jax.device_get(self.project(variables, self._place(part)))
                 for part in tokens.reshape(-1, self.batch, tokens.shape[1])]
        return np.concatenate(parts)[: len(texts)]

    def _place(self, tokens: np.ndarray) -> np.ndarray | jax.Array:
        """Over the mesh, as a batch in training is split; every process has all tokens."""
        if self.mesh is None:
            return tokens
        return jax.make_array_from_callback(tokens.shape, parallel.batch_sharding(self.mesh), lambda part: tokens[part])


def synonyms(text: str) -> list[str]:
    """"cat; kitten; tabby" -> its names; InputError for an empty one."""
    names = [name.strip() for name in text.split(";")]
    if not all(names):
        raise InputError(f"{text[:40]!r} has an empty name: give one or more, as 'cat' or 'cat; kitten; tabby'")
    return names
