"""Class names to class embeddings: prompts, encoded in batches of one shape."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from groupvit_jax import parallel
from groupvit_jax.data.tokenizer import tokenize


def fill(names: list[str], templates: list[str]) -> list[str]:
    """Every name in every template, the templates of one name together."""
    return [template.format(name) for name in names for template in templates]


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


class TextEncoder:
    """Texts to the model's common space, always in batches of `batch` texts, so that one program serves all.

    `model` is a `TwoTowers`; the program is compiled at the first call and kept as long as the encoder.
    """

    def __init__(self, model, batch: int = 64):
        self.batch, self.length = batch, model.text.length

        def project(variables, tokens):  # int32 [b l]
            features = model.apply(variables, tokens[:, None], method="encode_text")  # [b 1 c]
            return model.apply(variables, features[:, 0], method="project_text").astype(jnp.float32)

        self.project = jax.jit(project)

    def __call__(self, variables, texts: list[str]) -> np.ndarray:
        """n texts -> float32 [n d], projected, not normalised."""
        tokens = np.asarray(tokenize(texts, self.length))
        # Empty places repeat a real text: an all-zero row would be no valid input.
        tokens = np.concatenate([tokens, np.repeat(tokens[:1], -len(tokens) % self.batch, axis=0)])
        parts = [self.project(variables, part) for part in tokens.reshape(-1, self.batch, tokens.shape[-1])]
        return np.concatenate(parallel.fetch(parts))[: len(texts)]
