"""Samples to what the model sees: pixels and token ids, a group of pictures at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from groupvit_jax.data import captions, images
from groupvit_jax.data.bad import KINDS, BadSample
from groupvit_jax.data.order import Order
from groupvit_jax.data.packing import Packed, pack, rows_of
from groupvit_jax.data.tokenizer import Tokenizer
from groupvit_jax.errors import InputError

_IN_A_ROW = 1000  # bad samples, before giving up


class MakeExample:
    """A source's sample -> pixels uint8 [s s 3] and the token ids of its caption and K prompts; draws from `rng`.

    config: `config.data`; augment: `config.augment`; length: tokens a text has at most. Raises BadSample when called.
    """

    def __init__(self, config: ConfigDict, augment: ConfigDict, image_size: int, length: int) -> None:
        self.size, self.length, self.prompts = image_size, length, config.prompts
        self.templates = tuple(config.templates) or captions.TEMPLATES
        self.tagger, self.encode = config.tagger, Tokenizer().encode
        self.augment = {"crop_area": tuple(augment.crop_area), "crop_aspect": tuple(augment.crop_aspect),
                        "randaugment": augment.randaugment, "decode": config.decode}

    def __call__(self, sample: dict, rng: np.random.Generator) -> tuple[np.ndarray, list[list[int]]]:
        image = images.train_transform(sample["image"], self.size, rng, **self.augment)
        return image, [self.encode(text, self.length) for text in self.texts(sample, rng)]

    def texts(self, sample: dict, rng: np.random.Generator) -> list[str]:
        """The caption and its prompts."""
        caption, words = sample["caption"], sample.get("words")
        if self.prompts and words is None:
            words = captions.content_words(caption, captions.tagger(self.tagger))
        return [caption, *captions.prompts(caption, self.prompts, rng, words, self.templates)]


class MakeGroup:
    """Group number -> the arrays of the pictures in it, a pure function of the configuration and the seed.

    Groups are numbered through all steps, `groups` of them a step. `group(number)` is {"image": uint8 [g s s 3],
    "text": `Packed` of one group or, without packing, int32 [g t l], "bad": int32 [1 kinds] (samples that were
    replaced, see `bad.KINDS`), "cut": int32 [1] (texts that packing had to cut)}.

    A sample that cannot be used is replaced by the next one of its set that can.
    """

    def __init__(self, sources: Sequence, config: ConfigDict, make_example: MakeExample, group: int, seed: int) -> None:
        self.sources, self.make_example, self.group, self.seed = sources, make_example, group, seed
        self.names = [entry.name for entry in config.train]
        self.groups = config.batch // group
        self.rows, self.room = rows_of(config, group) if config.packing else 0, config.pack_length
        self.use_words = [source.tagger == config.tagger for source in sources]
        self.order = Order([len(source) for source in sources], [entry.weight for entry in config.train],
                           [source.block for source in sources], self.groups, seed)
        self.ahead = max(source.block for source in sources)  # draws

    def __call__(self, number: int) -> dict[str, Any]:
        step, lane = divmod(number, self.groups)
        bad, pixels = np.zeros((1, len(KINDS)), np.int32), []
        texts: list[list[list[int]]] = []
        for draw in range(step * self.group, (step + 1) * self.group):
            self._read_ahead(lane, draw)
            image, of_picture = self._usable(*self.order(lane, draw), self.random(lane, draw), bad[0])
            pixels.append(image)
            texts.append(of_picture)
        text, cut = pack(texts, self.rows, self.room) if self.rows else (self._padded(texts), 0)
        return {"image": np.stack(pixels), "text": text, "bad": bad, "cut": np.array([cut], np.int32)}

    def keys(self, number: int) -> list[str]:
        """What was drawn for each picture of a group, as "SET:KEY"; one that cannot be used is not replaced here."""
        step, lane = divmod(number, self.groups)
        draws = [self.order(lane, draw) for draw in range(step * self.group, (step + 1) * self.group)]
        return [f"{self.names[i]}:{self.sources[i].key(index)}" for i, index in draws]

    def random(self, lane: int, draw: int) -> np.random.Generator:
        """What augmentation and prompts of a draw are drawn from."""
        return np.random.Generator(np.random.Philox(key=[self.seed, draw * self.groups + lane]))

    def sample(self, number: int, index: int) -> dict:
        """The sample of a source; without its words where another tagger found them."""
        sample = self.sources[number][index]
        if not self.use_words[number]:
            sample.pop("words", None)
        return sample

    def _usable(self, number: int, index: int, rng: np.random.Generator, bad: np.ndarray,
                ) -> tuple[np.ndarray, list[list[int]]]:
        """The example at `index`, or the first after it that can be used."""
        source = self.sources[number]
        for i in range(index, index + _IN_A_ROW):
            try:
                return self.make_example(self.sample(number, i % len(source)), rng)
            except BadSample as error:
                bad[KINDS.index(error.kind)] += 1
                last = error
        raise InputError(f"{_IN_A_ROW} samples in a row of {source} cannot be used (the last: {last}): "
                         "see what `groupvit data inspect` says of them")

    def _read_ahead(self, lane: int, draw: int) -> None:
        if self.ahead > 1:
            number, index = self.order(lane, draw + self.ahead)
            if self.sources[number].block > 1:
                self.sources[number].prefetch(index)

    def _padded(self, texts: list[list[list[int]]]) -> np.ndarray:
        tokens = np.zeros((len(texts), len(texts[0]), self.make_example.length), np.int32)  # [g t l]
        for rows, of_picture in zip(tokens, texts, strict=True):
            for row, ids in zip(rows, of_picture, strict=True):
                row[: len(ids)] = ids
        return tokens


def join(groups: Sequence) -> Any:
    """Groups as arrays in dicts and in `Packed`, one behind the other."""
    if isinstance(groups[0], dict):
        return {name: join([group[name] for group in groups]) for name in groups[0]}
    if isinstance(groups[0], Packed):
        return Packed(*map(join, zip(*groups)))
    return np.concatenate(groups)
