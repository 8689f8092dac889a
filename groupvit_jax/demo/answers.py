"""A photograph and words to what the page shows of them, without the page.

What the model sees in a photograph does not depend on the words, and is the larger part of the work: it is kept for
the last few photographs, as the embeddings of words are, so that other words for the same photograph, and the same
words for another, cost little.
"""

import collections
import hashlib
import re
import threading
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from groupvit_jax import inference
from groupvit_jax.errors import InputError
from groupvit_jax.evals import segmentation
from groupvit_jax.evals.prompts import SLOTS, TextEncoder, make_queries
from groupvit_jax.evals.windows import Cut, bilinear_weights, cut, merge
from groupvit_jax.inference import Model, Segmentation
from groupvit_jax.models.image import normalize
from groupvit_jax.models.two_towers import TwoTowers
from groupvit_jax.viz import largest_first

WORDS = 100  # at most, synonyms included; one program serves them, as they are padded to SLOTS
LETTERS = 4000  # of all words together
BEST = 3  # words that are named of a group
TEXTS = 4096  # embeddings that are kept, of a kilobyte each
PHOTOGRAPHS = 8  # that are kept, some ten megabytes each
BATCH = 16  # texts that are encoded at once: most people ask for a few words
assert WORDS < SLOTS
Array = np.ndarray | jax.Array  # on the host, or in the program


class Look(NamedTuple):
    """What the model sees in n windows: `shares` float32 [n g gh gw], how much of each patch went to each group;
    `segments` [n g d], `pooled` [n d] and `scale` [], with which words are compared; `stages` int32 [n h w], the group
    of each pixel."""

    shares: Array
    segments: Array
    pooled: Array
    scale: Array
    stages: tuple[Array, ...]


class Seen(NamedTuple):
    """A photograph's windows, each a `Look` of one; their `members` int8 [n g h w], 1 where a pixel is a group's; and
    of the photograph int32 [H W], the group of each pixel in all `stages` but the last."""

    part: Cut
    looks: list[Look]
    members: np.ndarray
    stages: list[np.ndarray]


class Group(NamedTuple):
    """A group of the last stage: `number` as in `Segmentation.groups`, its `share` of the pixels, 0 to 1, and its BEST
    words with their scores, 0 to 1, the best first."""

    number: int
    share: float
    best: tuple[tuple[str, float], ...]


class Answer(NamedTuple):
    """groups: those that have pixels, the largest first."""

    pixels: np.ndarray
    result: Segmentation
    groups: tuple[Group, ...]


class Heat(NamedTuple):
    """Of a point (x, y): the `rank` by size, from 1, of the group that has it, as in `Answer.groups`; and float32
    [H W], how much of what is at each pixel went to that group, 0 to 1; NaN outside the window in which the group
    is."""

    x: int
    y: int
    rank: int
    values: np.ndarray


class Recent:
    """The last `size` values by key. Not for several threads at once."""

    def __init__(self, size: int):
        self.size = size
        self.values: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of `key`, from `make()` if it is not among the last ones."""
        if key not in self.values:
            self.values[key] = make()
        self.values.move_to_end(key)
        while len(self.values) > self.size:
            self.values.popitem(last=False)
        return self.values[key]


class Answers:
    """Answers by one model. May be called by several threads; one is served at a time."""

    def __init__(self, model: Model):
        self.model = model
        self._lock = threading.Lock()
        self._texts, self._seen = Recent(TEXTS), Recent(PHOTOGRAPHS)
        self._encoder = TextEncoder(model.module, BATCH)
        self._look = jax.jit(lambda variables, windows: look(model.module, variables, windows))
        self._table = jax.jit(lambda segments, pooled, scale, queries: segmentation.with_background(
            segmentation.score_table(segments, pooled, scale, queries)[0], queries.threshold))

    @property
    def stages(self) -> int:
        """How many grouping stages the model has."""
        return sum(tokens > 0 for tokens in self.model.module.image.group_tokens)

    def __call__(self, pixels: np.ndarray, words: str, background: bool | float | str = False,
                 protocol: str = "groupvit") -> Answer:
        """uint8 [h w 3] and words as they are typed, see `split_words`; the rest, and the result, as of
        `Model.segment`. Raises InputError, a sentence for the page, for words or sizes that cannot be served."""
        classes = split_words(words)
        if isinstance(background, str):
            background = "; ".join(split_words(background, "background"))
        names, asked = inference.find_labels(classes, background, protocol)
        if (number := sum(map(len, asked[0]))) > WORDS:
            raise InputError(f"These are {number} words: give at most {WORDS}.")
        with self._lock:
            seen = self.see(pixels)
            queries = make_queries(self.encode, *asked)
            tables = [jax.device_get(self._table(each.segments, each.pooled, each.scale, queries))
                      for each in seen.looks]
        table = np.concatenate(tables)[..., : len(names)]  # [n g c]
        scores, owners = merge(seen.part, seen.members, table)
        result = Segmentation(scores.argmax(axis=-1).astype(np.int32), scores, owners, names, (*seen.stages, owners))
        return Answer(pixels, result, find_groups(owners, table.reshape(-1, len(names)), names))

    def heat(self, pixels: np.ndarray, x: int, y: int) -> Heat:
        """The soft assignment to the group that owns a point of the photograph. Raises InputError for one beside it."""
        if not (0 <= y < pixels.shape[0] and 0 <= x < pixels.shape[1]):
            raise InputError("This point is not in the photograph: click inside it.")
        with self._lock:
            seen = self.see(pixels)
        owners = merge(seen.part, seen.members)[1]
        rank = by_size(owners).index(owners[y, x]) + 1
        k, group = divmod(int(owners[y, x]), seen.members.shape[1])
        share = seen.looks[k].shares[0, group]  # [gh gw]
        rows, columns = (bilinear_weights(*sides) for sides in zip(share.shape, seen.members.shape[2:]))
        values, inside = (spread(seen.part, k, values) for values in (
            rows @ share @ columns.T, np.ones(seen.members.shape[2:], np.float32)))
        return Heat(x, y, rank, np.where(inside > 0.5, np.clip(values / np.maximum(inside, 0.5), 0, 1), np.nan))

    def see(self, pixels: np.ndarray) -> Seen:
        key = pixels.shape, hashlib.sha256(pixels.data).digest()
        return self._seen.get(key, lambda: self._see(pixels))

    def _see(self, pixels: np.ndarray) -> Seen:
        geometry = self.model.geometry
        square = (geometry.window, geometry.window)
        if geometry.size >= geometry.window and geometry.shape(*pixels.shape[:2]) != square:  # would be compiled anew
            raise InputError(f"This photograph is more than {geometry.long / geometry.size:.2g} times as long as it is "
                             "wide: crop it.")
        part = cut(pixels, geometry)
        # One window at a time, so that one program serves photographs of all sizes.
        looks = [jax.device_get(self._look(self.model.variables, window[None])) for window in part.windows]
        stages = [np.concatenate(stage) for stage in zip(*(each.stages for each in looks))]  # each [n h w]
        groups = self.model.module.image.output_groups
        members = inference.one_hot(stages[-1], looks[0].segments.shape[1]).astype(np.int8)
        return Seen(part, looks, members, inference.earlier_stages(part, stages, groups))

    def encode(self, texts: list[str]) -> np.ndarray:
        """n texts -> float32 [n d], as `TextEncoder`; only those are encoded that were not, lately."""
        found: dict[str, Any] = {text: self._texts.values.get(text) for text in texts}
        if unknown := [text for text in found if found[text] is None]:
            found |= zip(unknown, self._encoder(self.model.variables, unknown))
        for text in found:  # the last ones asked for are those kept
            self._texts.get(text, partial(found.get, text))
        return np.stack([found[text] for text in texts])


def look(model: TwoTowers, variables: dict[str, Any], windows: jax.Array) -> Look:
    """uint8 windows [n h w 3] -> Look."""
    (h, w), patch = windows.shape[1:3], model.image.patch_size
    grid = h // patch, w // patch
    assignments, segments, pooled, scale = segmentation.encode_windows(model, variables, normalize(windows))
    stages = tuple(segmentation.group_map(assignments[: s + 1], grid, (h, w)) for s in range(len(assignments)))
    return Look(segmentation.group_shares(assignments, grid), segments, pooled, scale, stages)


def spread(part: Cut, k: int, values: np.ndarray) -> np.ndarray:
    """Values float32 [h w] of window k alone -> those of the image's pixels, float32 [H W], as `merge` places them; 0
    outside the window."""
    alone = part._replace(windows=part.windows[k : k + 1], view=part.view[k : k + 1], start=part.start[k : k + 1],
                          mirrored=part.mirrored[k : k + 1], share_y=np.ones_like(part.share_y[:1]),
                          share_x=np.ones_like(part.share_x[:1]))
    scores, _ = merge(alone, values[None, None].astype(np.float32), np.ones((1, 1, 1), np.float32))
    return scores[..., 0]


def split_words(text: str, what: str = "words") -> list[str]:
    """ "cat; kitten, sofa," -> ["cat; kitten", "sofa"]: what commas or lines part. InputError if there is nothing, or
    more than LETTERS."""
    if len(text) > LETTERS:
        raise InputError(f"The {what} are {len(text):,} characters long: give at most {LETTERS:,}.")
    text = text.encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair is no character
    found = [entry.strip(" ;\t") for entry in re.split(r"[,，、\n\r]", text)]
    if not any(found):
        raise InputError("Type one or more words, with commas between them." if what == "words" else
                         "Type words for the background, or choose another kind of background.")
    return [re.sub(r";[;\s]*", "; ", entry) for entry in found if entry]


def by_size(owners: np.ndarray) -> list[int]:
    """int [H W] -> the groups that have pixels, the largest first."""
    return largest_first(np.bincount(owners.ravel()))


def find_groups(owners: np.ndarray, table: np.ndarray, names: tuple[str, ...]) -> tuple[Group, ...]:
    """int [H W] and the scores of all windows' groups [n*g c] -> the groups that have pixels, the largest first."""
    found = []
    for number in by_size(owners):
        best = np.argsort(-table[number], kind="stable")[:BEST]
        words = tuple((names[i], float(table[number, i])) for i in best)
        found.append(Group(number, float((owners == number).mean()), words))
    return tuple(found)
