"""The three programs that an export writes, whatever its format: two encoders and the segmenter of one window.

They are functions of flat weights and arrays, for batches of any size and any number of classes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import groupvit_jax
from groupvit_jax.data import tokenizer
from groupvit_jax.evals import classes as class_lists
from groupvit_jax.evals.segmentation import einsum, encode_windows, group_map, with_background
from groupvit_jax.inference import Model
from groupvit_jax.interop.huggingface import unflat
from groupvit_jax.models.image import normalize
from groupvit_jax.models.layers import unit
from groupvit_jax.models.two_towers import TwoTowers

TOP = 5  # classes a window may have: the protocol's

Weights = dict[str, jax.Array]  # by their path in the variables


class Value(NamedTuple):
    """An array that a program takes or gives; in `shape`, "b" and "c" are sizes that a call chooses."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    what: str


class Program(NamedTuple):
    """`call(weights, *takes) -> gives`."""

    call: Callable[..., jax.Array]
    takes: tuple[Value, ...]
    gives: Value


def in_float32(model: Model) -> Model:
    """The model computing in float32, whatever it was trained in: the programs then give the same numbers on every
    platform but for rounding, and a difference means a mistake and not bfloat16's 8 bits."""
    config = model.config.copy_and_resolve_references()
    config.model.dtype = "float32"
    return Model(config, model.variables)


def exact() -> AbstractContextManager:
    """Inside it, products are float32 also where the model leaves that open: GPUs and TPUs would use fewer bits."""
    return jax.default_matmul_precision("highest")


def make(model: Model) -> dict[str, Program]:
    """The programs by name."""
    module, side, window = model.module, model.config.model.image.image_size, model.config.eval.window
    length, d = module.text.length, module.text_projector.features

    def encode_image(weights: Weights, images: jax.Array) -> jax.Array:
        variables = unflat(weights)
        features = module.apply(variables, normalize(images), method="encode_image")
        return unit(module.apply(variables, features.pooled, method="project_image"))

    def encode_text(weights: Weights, tokens: jax.Array) -> jax.Array:
        variables = unflat(weights)
        features = module.apply(variables, tokens[:, None], method="encode_text")  # [b 1 c]
        return unit(module.apply(variables, features[:, 0], method="project_text"))

    def segment(weights: Weights, windows: jax.Array, classes: jax.Array, threshold: jax.Array) -> jax.Array:
        return window_class_scores(module, unflat(weights), windows, classes, threshold)

    images = Value("images", "uint8", ("b", side, side, 3), "RGB pictures")
    tokens = Value("tokens", "int32", ("b", length), "ids of texts: see tokens below")
    embeddings = Value("embeddings", "float32", ("b", d), "of unit length")
    windows = Value("windows", "uint8", ("b", window, window, 3), "RGB pictures, or windows of larger ones")
    classes = Value("classes", "float32", ("c", d), "of each class the embedding of its name in the template below")
    threshold = Value("threshold", "float32", (), "-1: no background; 0 to 1: class 0 is the background, of pixels "
                      "whose best score is below it, and the first row of classes is not looked at")
    scores = Value("scores", "float32", ("b", window, window, "c"), "of each pixel for each class, by the protocol of "
                   "zero-shot segmentation")
    return {"image_encoder": Program(encode_image, (images,), embeddings),
            "text_encoder": Program(encode_text, (tokens,), embeddings),
            "segmenter": Program(segment, (windows, classes, threshold), scores)}


def window_class_scores(module: TwoTowers, variables: dict[str, Any], windows: jax.Array, classes: jax.Array,
                        threshold: jax.Array) -> jax.Array:
    """uint8 windows [b h w 3], classes [c d], threshold [] -> float32 [b h w c]: what `window_scores` and its table
    make of one word a class."""
    h, w = windows.shape[1:3]
    patch = module.image.patch_size
    grid = h // patch, w // patch
    assignments, segments, pooled, scale = encode_windows(module, variables, normalize(windows))
    table = class_table(segments, pooled, scale, classes, threshold)
    groups = group_map(assignments, grid, (h, w))
    return einsum("bhwg,bgc->bhwc", jax.nn.one_hot(groups, segments.shape[1]), table)


def class_table(segments: jax.Array, pooled: jax.Array, scale: jax.Array, classes: jax.Array,
                threshold: jax.Array) -> jax.Array:
    """Unit segments [b g d] and pooled [b d] -> scores of the groups, float32 [b g c].

    It is `evals.segmentation.score_table` without synonyms, in operations that ONNX has for any number of classes:
    a class's rank is counted, where that sorts. `proof_programs` holds one against the other at every export.
    """
    label = jax.lax.iota(jnp.int32, classes.shape[0])
    named = (label > 0) | (threshold < 0)  # [c]
    similarity = jnp.where(named, einsum("bd,cd->bc", pooled, classes), -jnp.inf)
    own, other = similarity[:, :, None], similarity[:, None, :]
    before = (other > own) | (other == own) & (label[None, :] < label[:, None])  # [b c c]; the first, if equal
    kept = before.astype(jnp.int32).sum(axis=-1) < TOP

    logits = jnp.where(named, einsum("bgd,cd->bgc", segments, classes) * scale, -jnp.inf)
    table = jax.nn.softmax(logits) * jax.nn.softmax(jnp.where(kept[:, None], logits, -jnp.inf))
    return with_background(table, threshold)


def manifest(model: Model, made: dict[str, Program], suffix: str) -> dict[str, Any]:
    """What a person needs who has the files, NAME + suffix, and not this package."""
    tokens = {
        "encoding": "CLIP's byte-pair encoding, as by groupvit_jax.tokenize(texts, length): start, the text in lower "
                    "case, end, then zeros; what is too long loses its tail, not its end",
        "vocabulary": model.module.text.vocabulary, "length": model.module.text.length,
        "start": tokenizer.START, "end": tokenizer.END, "padding": 0,
    }
    return {
        "made_by": f"groupvit_jax {groupvit_jax.__version__}, jax {jax.__version__}",
        "programs": {name: {"file": f"{name}{suffix}",
                            "takes": [value._asdict() for value in program.takes],
                            "gives": program.gives._asdict()} for name, program in made.items()},
        "window": model.config.eval.window,  # pixels
        "logit_scale": float(model.module.apply(model.variables, method="logit_scale")),
        "templates": class_lists.templates("groupvit"),
        "tokens": tokens,
    }
