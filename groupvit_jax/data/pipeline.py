"""From shards to batches: every global batch is a function of the configuration, the seed and the step alone.

Groups of pictures are what is made at a time, by threads or worker processes, in the order of their numbers; a batch is
its groups one behind the other, and several processes make different groups of it (see order.py). So the position to
save is the number of steps, and any number of processes, threads or workers makes the same global batches.
"""

import faulthandler
import gc
import math
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags, logging
from grain.experimental import ThreadPrefetchIterDataset
from ml_collections import ConfigDict

from groupvit_jax.data.examples import MakeExample, MakeGroup, join
from groupvit_jax.data.packing import LEAST
from groupvit_jax.data.sources import Source
from groupvit_jax.errors import InputError

Batch = dict[str, np.ndarray]  # with leading axes b or G: what MakeGroup gives, of all groups


class Batches:
    """All batches of a run, or of each the rows of one of `shares` equal parts.

    `batches[n]` is the n-th, made here and now; `batches.iterate(config, n)` goes on from there and makes them ahead.
    `groups` is the number of groups of a whole batch; a batch's arrays split over that many devices and no more.
    """

    def __init__(self, sources: Sequence[Source], config: ConfigDict, make_example: MakeExample, seed: int,
                 share: int = 0, shares: int = 1) -> None:
        self.group = group_size(config)
        self.groups = config.batch // self.group
        if self.groups % shares:
            raise InputError(f"a batch of {config.batch} in groups of {self.group} does not divide over {shares} "
                             f"processes: set config.data.group={math.gcd(config.batch // shares, self.group)}")
        self.make_group = MakeGroup(sources, config, make_example, self.group, seed)
        self.first, self.own = share * self.groups // shares, self.groups // shares

    def __getitem__(self, n: int) -> Batch:
        return join([self.make_group(self._number(i)) for i in range(n * self.own, (n + 1) * self.own)])

    def keys(self, n: int) -> list[str]:
        """What was drawn for the pictures of the whole n-th batch, in their order, the same on every process: "SET:KEY"
        each, as the set is named in the configuration and the sample in the set. A sample that cannot be used is named
        here, though the next one took its place in the batch."""
        return [key for i in range(n * self.groups, (n + 1) * self.groups) for key in self.make_group.keys(i)]

    def _number(self, i: int) -> int:
        """Of all groups, the i-th that is this process's."""
        return i // self.own * self.groups + self.first + i % self.own

    def iterate(self, config: ConfigDict, first_step: int) -> grain.DatasetIterator:
        """Batches from number `first_step` on, made ahead by threads or, with `config.workers`, by processes; close it.

        `config` is `config.data`; its threads, workers and prefetch (batches) change the speed and nothing else.
        """
        self._check_cache(config)
        groups = grain.MapDataset.range(first_step * self.own, 2**62).map(self._number).map(self.make_group)
        ahead = config.prefetch * self.own
        if not config.workers:
            options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=max(ahead, config.threads))
            stream = groups.to_iter_dataset(options)
        else:
            stream = groups.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
            if not flags.FLAGS.is_parsed():  # grain hands absl's flags to its processes; a library has none
                flags.FLAGS.mark_as_parsed()
            each = grain.MultiprocessingOptions(config.workers, math.ceil(ahead / config.workers))
            stream = stream.mp_prefetch(each, end_with_parent)
        return iter(ThreadPrefetchIterDataset(stream.batch(self.own, batch_fn=join), prefetch_buffer_size=1))

    def _check_cache(self, config: ConfigDict) -> None:
        """Warns where stretches of remote sets will be dropped before they are used up, and travel again."""
        # A worker makes every workers-th group: the same lanes in each batch, if they divide evenly.
        lanes = self.own // max(config.workers, 1) if self.own % max(config.workers, 1) == 0 else self.own
        for source in self.make_group.sources:
            need = 2 * lanes * source.block_bytes() >> 20 if source.block > 1 else 0  # the block in use and the next
            if need > config.cache:
                logging.warning("%s: each process should hold %s MB of it, more than config.data.cache=%d: parts will "
                                "be fetched several times; raise it, or set config.data.workers to a larger divisor "
                                "of %d", source, f"{need:,}", config.cache, self.own)


def group_size(config: ConfigDict) -> int:
    """Pictures a group: `config.group`, or the most below it that divides both it and the batch."""
    return math.gcd(config.group, config.batch)


def check(config: ConfigDict) -> None:
    """Raises InputError for a value of the whole configuration's `data`, `augment` or `seed` that cannot be."""
    data, augment = config.data, config.augment
    for name in ("crop_area", "crop_aspect"):
        if len(augment[name]) != 2 or not all(isinstance(value, int | float) for value in augment[name]):
            raise InputError(f"config.augment.{name}={augment[name]}: give two numbers, the least and the most")
    if wrong := [t for t in data.templates if not isinstance(t, str) or t.count("{}") != 1]:
        raise InputError(f"config.data.templates has {wrong[0]!r}: give texts with one {{}} for the word, as "
                         "('a photo of a {}.',)")
    most = 2**31
    bounds: list[tuple[str, Any, float, float]] = [(f"data.{name}", data[name], least, high) for name, least, high in (
        ("batch", 1, most), ("group", 1, most), ("prompts", 0, 1000), ("threads", 0, 1000), ("workers", 0, 1000),
        ("worker_restarts", 0, most), ("prefetch", 1, 1000), ("cache", 1, most), ("pack_length", LEAST, 2**16),
        ("caption_tokens", 1, 2**16), ("prompt_tokens", 1, 2**16))]
    bounds += [("data.max_bad", data.max_bad, 0, 1), ("seed", config.seed, 0, 2**63 - 1),
               ("augment.randaugment", augment.randaugment, 0, 10),
               ("augment.flip", augment.flip, 0, 1), ("augment.erase", augment.erase, 0, 1),
               ("augment.crop_area[0]", augment.crop_area[0], 1e-4, augment.crop_area[1]),
               ("augment.crop_area[1]", augment.crop_area[1], 1e-4, 1),
               ("augment.crop_aspect[0]", augment.crop_aspect[0], 1e-2, augment.crop_aspect[1]),
               ("augment.crop_aspect[1]", augment.crop_aspect[1], 1e-2, 1e2)]
    for name, value, low, high in bounds:
        if not low <= value <= high:  # nor NaN
            limits = f"{low} or more" if value < low else f"a number from {low} to {high}"
            raise InputError(f"config.{name}={value}: give {limits}")
    if data.decode not in ("scaled", "full"):
        raise InputError(f"config.data.decode={data.decode!r}: use 'scaled' or 'full'")
    if config.model.text.length < 2 or config.model.image.image_size < 1:
        raise InputError(f"config.model: text.length={config.model.text.length} and image.image_size="
                         f"{config.model.image.image_size} must be at least 2 and 1")


def stream(batches: Batches, config: ConfigDict, first_step: int) -> Iterator[Batch]:
    """`batches.iterate`, with workers that died replaced, `config.worker_restarts` times in any 1000 batches; close it.

    What a batch holds does not depend on who made it. Raises InputError when workers go on dying.
    """
    n, died = first_step, list[int]()
    while True:
        iterator = batches.iterate(config, n)
        try:
            for batch in iterator:
                yield batch
                n += 1
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):  # raised by grain where it cannot say more
                raise
            died = [*(m for m in died if n - m < 1000), n]
            how = str(error).partition("with ")[2].partition(".")[0]
            if len(died) > config.worker_restarts:
                raise InputError(f"a worker process that makes batches ended {len(died)} times ({how}; -9: killed, as "
                                 "the system does when memory runs out): lower config.data.workers, prefetch or cache, "
                                 "and run the same command again") from error
            logging.warning("a worker process that makes batches ended (%s; -9: killed, as when memory runs out): new "
                            "ones go on from batch %d (%d of %d times)", how, n + 1, len(died), config.worker_restarts)
        finally:
            iterator.close()


def end_with_parent(worker: int, workers: int) -> None:
    """In a worker process: ends it when the training is killed, which else leaves it waiting for ever.

    Also spares the garbage collector the modules, which it would look through again and again; tells where it was when
    it crashes; and leaves it out of signals to the group of processes, as a training that is told to stop needs its
    batches up to the next step.
    """
    gc.freeze()
    faulthandler.enable()
    os.setpgrp()
    parent = multiprocessing.parent_process()
    assert parent  # the training

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
