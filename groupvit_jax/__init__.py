"""GroupViT in JAX: semantic segmentation that emerges from text supervision.

    import groupvit_jax as gv
    model = gv.load("runs/quickstart")
    out = model.segment(image, classes=["zebra", "grass"])
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # not when it runs: data workers import this package without JAX
    import numpy as np

    from groupvit_jax.inference import Model

__version__ = "0.1.0"


def load(path: str) -> "Model":
    """The model of a training workdir or its checkpoints/STEP, of what `groupvit import` made, or of PyTorch's weights
    (a Hugging Face folder, .safetensors, .pth, .bin) -> `groupvit_jax.inference.Model`."""
    from groupvit_jax.inference import load

    return load(path)


def tokenize(texts: str | Sequence[str], length: int = 77) -> "np.ndarray":
    """A text or several -> int32 [t length], CLIP's ids; truncation keeps the end token last."""
    from groupvit_jax.data.tokenizer import tokenize

    return tokenize(texts, length)
