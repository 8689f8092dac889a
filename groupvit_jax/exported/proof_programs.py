"""The proof of an export: its programs beside the model they were made from, on the same pictures and words."""

from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from groupvit_jax.data.tokenizer import tokenize
from groupvit_jax.evals import classes as class_lists
from groupvit_jax.evals.prompts import fill, make_queries
from groupvit_jax.evals.segmentation import window_scores
from groupvit_jax.inference import Model
from groupvit_jax.interop.proof import Difference

Call = Callable[..., np.ndarray]
Pairs = Iterator[tuple[str, np.ndarray, np.ndarray]]  # output, the program's values, the model's

BATCHES = (1, 3)  # of each program
CLASSES = (2, 20)  # of the segmenter's batches
THRESHOLD = 0.5
# A pixel that two groups claim alike but for rounding may fall to either: the worst so many pixels are left out.
UNDECIDED = 1e-4


def compare(model: Model, calls: Mapping[str, Call]) -> list[Difference]:
    """The largest differences of each output over several batches; inf where a value is not finite.

    calls: any of image_encoder (uint8 images -> embeddings), text_encoder (int32 tokens -> embeddings), segmenter
    (uint8 windows, class embeddings, threshold -> scores); see `programs.make`.
    """
    pairs = {"image_encoder": image_pairs, "text_encoder": text_pairs, "segmenter": segmenter_pairs}
    largest: dict[str, Difference] = {}
    for name, call in calls.items():
        for output, theirs, ours in pairs[name](model, call):
            absolute = distance(np.asarray(theirs), ours)
            found = Difference(output, absolute, absolute / float(np.abs(ours).max()))
            largest[output] = max(found, largest.get(output, found), key=lambda each: each.absolute)
    return list(largest.values())


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Of [... c]: the largest difference over the rows, less the UNDECIDED share of them, which is none of a few."""
    if a.shape != b.shape or not np.isfinite(a).all():
        return np.inf
    rows = np.sort(np.abs(a - b).max(axis=-1), axis=None)
    return float(rows[len(rows) - 1 - int(len(rows) * UNDECIDED)])


def image_pairs(model: Model, call: Call) -> Pairs:
    images = blocks(sum(BATCHES), model.config.model.image.image_size)
    yield from zip(["image_encoder"] * len(BATCHES), map(call, batches(images)), batches(model.encode_image(images)))


def text_pairs(model: Model, call: Call) -> Pairs:
    texts = fill(class_lists.names("voc")[: sum(BATCHES)], class_lists.templates("groupvit"))
    tokens = tokenize(texts, model.module.text.length)
    yield from zip(["text_encoder"] * len(BATCHES), map(call, batches(tokens)), batches(model.encode_text(texts)))


def segmenter_pairs(model: Model, call: Call) -> Pairs:
    """Without and with background. Classes are random directions: those of words may agree in a model of little
    training, and which five of them are best would be left to rounding."""
    score = jax.jit(lambda variables, *inputs: window_scores(model.module, variables, *inputs))
    windows, d = blocks(sum(BATCHES), model.config.eval.window), model.module.text_projector.features
    for part, c in zip(batches(windows), CLASSES):
        classes = np.random.default_rng(0).normal(size=(c, d)).astype(np.float32)
        classes /= np.linalg.norm(classes, axis=1, keepdims=True)
        for output, first, threshold in (("segmenter", 0, None), ("segmenter with background", 1, THRESHOLD)):
            words: list[list[str]] = [[]] * first + [[str(i)] for i in range(first, c)]
            queries = make_queries(lambda _: classes[first:], words, ["{}"], threshold)  # noqa: B023
            seen = [jax.device_get(score(model.variables, window[None], queries)) for window in part]
            ours = [np.einsum("hgw,gc->hwc", each.members[0], each.table[0, :, :c], optimize=True) for each in seen]
            yield output, call(part, classes, queries.threshold), np.stack(ours)


def batches(x: np.ndarray) -> list[np.ndarray]:
    return np.split(x, np.cumsum(BATCHES)[:-1])


def blocks(n: int, side: int) -> np.ndarray:
    """Pictures of random colours in blocks of 8x8 pixels, uint8 [n side side 3]; the same ones every time."""
    colours = np.random.default_rng(0).integers(0, 256, (n, -(-side // 8), -(-side // 8), 3), np.uint8)
    return colours.repeat(8, axis=1).repeat(8, axis=2)[:, :side, :side]
