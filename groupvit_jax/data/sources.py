"""The sets of pairs that a configuration names, opened.

A source is what pairs are read from, at random: `source[i]` is {"image": encoded bytes, "caption": str, "key": str},
with "words" (of the caption, for prompts) where they were found beforehand by the tagger `source.tagger`; it raises
BadSample for a sample that cannot be used, and `key(i)` names that one, too. `problems` counts what was left out when
it was opened, `files()` lists what it reads, as (name, bytes, samples). Samples of one block of `source.block` lie
together and are best read together; `prefetch(i)` says that one will be needed. Sources go to worker processes by
pickling.
"""

import glob
import hashlib
import json
import os
from collections import Counter

from ml_collections import ConfigDict

from groupvit_jax.data import captions
from groupvit_jax.data.bad import listed
from groupvit_jax.data.record_source import RecordSource, TfdsSource
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.errors import InputError

KINDS = ("tar", "array_record", "tfds")
MADE = ("scenes", "fashion")  # sets that a verb of this name makes
Source = TarSource | RecordSource | TfdsSource


def open_sources(config: ConfigDict, make_indexes: bool = True) -> list[Source]:
    """The sets of `config.data.train`, opened; tars without an index get one, or are refused.

    Raises InputError naming what is wrong with one.
    """
    if not config.train:
        raise InputError("config.data.train is empty: give it a set, as in configs/base.py")
    sources: list[Source] = []
    for entry in config.train:
        if entry.source not in KINDS:
            raise InputError(f"config.data.train: set {entry.name!r} has source {entry.source!r}; use one of "
                             f"{', '.join(KINDS)}")
        if not 0 <= entry.weight <= 1e9 or 0 < entry.weight < 1e-9:
            raise InputError(f"config.data.train: set {entry.name!r} has weight {entry.weight}; give 0 or more, as 2.5")
        if (entry.weight > 0) != (config.train[0].weight > 0):
            raise InputError("config.data.train: give all sets a weight, or all 0 for their lengths; leave out a set "
                             "that is not to be drawn")
        if not entry.path:
            raise InputError(f"config.data.train: set {entry.name!r} has no path: give it, as "
                             f'--config.data.train[{len(sources)}].path="data/*.tar"')
        if entry.source == "tar" and entry.name in MADE and "*" in entry.path and not glob.glob(entry.path):
            raise InputError(f"no tar at {entry.path}: `groupvit data {entry.name} "
                             f"--output={os.path.dirname(entry.path) or '.'}` makes them, or set "
                             f"--config.data.train[{len(sources)}].path to where they are")
        if entry.source == "tar":
            sources.append(TarSource(entry.path, True, cache_bytes=config.cache << 20, make_indexes=make_indexes))
        else:
            sources.append(RecordSource(entry.path) if entry.source == "array_record" else TfdsSource(entry.path))
    return sources


def describe(config: ConfigDict, sources: list[Source]) -> list[str]:
    """A line a set: its name, its size, what was left out."""
    lines = []
    for entry, source in zip(config.train, sources, strict=True):
        words = f"; words for prompts stored by the {source.tagger} tagger" if source.tagger else ""
        lines.append(f"{entry.name}: {len(source):,} pairs; left out: {listed(source.problems) or 'none'}{words}")
    return lines


def fingerprint(config: ConfigDict, sources: list[Source]) -> str:
    """16 hexadecimal digits over what fixes the samples and their order: the sets, and the files of each, wherever they
    lie. Reads nothing."""
    sets = [[entry.name, entry.source, float(entry.weight), len(source), source.files()]
            for entry, source in zip(config.train, sources, strict=True)]
    return hashlib.sha256(json.dumps(sets).encode()).hexdigest()[:16]


def tagger_name(config: ConfigDict, sources: list[Source]) -> str:
    """The tagger that `config.data.tagger` stands for: for "auto" the one whose words all sources hold, if there is
    one, else the best of this machine. Raises InputError for one that is unknown or not here but needed."""
    stored = {source.tagger or "" for source in sources}
    if len(stored) == 1 and stored <= {"nltk", "pattern"} and config.tagger in ("auto", *stored):
        return stored.pop()
    return captions.tagger(config.tagger).name


def problems(sources: list[Source]) -> Counter:
    """Left out by all sources together, by kind."""
    return sum((Counter(source.problems) for source in sources), Counter())
