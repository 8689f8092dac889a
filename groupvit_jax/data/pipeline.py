"""From shards to batches: a global order that is a function of the seed and the step alone.

A batch is a row of one endless, shuffled sequence of examples; the draws of augmentation and prompts belong to the
example's place in that sequence. So the position to save is the number of steps, and any number of processes, threads
or workers makes the same global batches.
"""

import multiprocessing
import os
import threading
from collections.abc import Sequence

import grain
import numpy as np
from absl import flags

from groupvit_jax.data import captions, images
from groupvit_jax.data.tar import TarSource
from groupvit_jax.data.tokenizer import tokenize
from groupvit_jax.errors import InputError


def open_sources(config) -> list[TarSource]:
    """The sets of `config.data.train`, opened. Raises InputError naming what is wrong with one."""
    sources = []
    for entry in config.train:
        if entry.source != "tar":
            raise InputError(f"config.data.train: set {entry.name!r} has source {entry.source!r}; 'tar' is read here")
        sources.append(TarSource(entry.path))
    return sources


class MakeExample:
    """A source's example -> {"image": uint8 [s s 3], "text": int32 [1+K l]}; random draws come from `rng`."""

    def __init__(self, config, augment, image_size: int, length: int):
        self.size, self.length, self.prompts = image_size, length, config.prompts
        self.templates = tuple(config.templates) or captions.TEMPLATES
        self.tagger = captions.tagger(config.tagger) if config.prompts else None
        self.augment = {"crop_area": tuple(augment.crop_area), "crop_aspect": tuple(augment.crop_aspect),
                        "randaugment": augment.randaugment}

    def __call__(self, example: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
        caption = example["caption"]
        try:
            image = images.train_transform(example["image"], self.size, rng, **self.augment)
        except InputError as error:
            raise InputError(f"sample {example['key']}: {error}") from None
        texts = [caption]
        if self.prompts:
            words = captions.content_words(caption, self.tagger)
            texts += captions.prompts(caption, self.prompts, rng, words, self.templates)
        return {"image": image, "text": tokenize(texts, self.length)}


def batches(sources: Sequence[TarSource], config, make_example, seed: int, share: int = 0,
            shares: int = 1) -> grain.MapDataset:
    """All batches of a run, or of each the rows of one of `shares` equal parts, as a lazy random-access sequence.

    Each set is shuffled anew each epoch and repeated; sets are interleaved by weight.
    """
    sets = [grain.MapDataset.source(source).seed(seed + i).shuffle().repeat() for i, source in enumerate(sources)]
    weights = [entry.weight or len(source) for entry, source in zip(config.train, sources, strict=True)]
    mixed = sets[0] if len(sets) == 1 else grain.MapDataset.mix(sets, weights)
    examples = mixed.seed(seed).random_map(make_example)
    return examples.batch(config.batch // shares, drop_remainder=True)[share::shares]


def iterate(dataset: grain.MapDataset, config, first_step: int) -> grain.DatasetIterator:
    """Batches from number `first_step` on, made ahead by threads or, with `config.workers`, by processes; close it."""
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=max(config.prefetch, config.threads))
    stream = dataset[first_step:].to_iter_dataset(options)
    if config.workers:
        if not flags.FLAGS.is_parsed():  # grain hands absl's flags to its processes; a library has none
            flags.FLAGS.mark_as_parsed()
        stream = stream.mp_prefetch(grain.MultiprocessingOptions(config.workers, config.prefetch), end_with_parent)
    return iter(stream)


def end_with_parent(worker: int, workers: int) -> None:
    """In a worker process: ends it when the training is killed, which else leaves it waiting for ever."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
