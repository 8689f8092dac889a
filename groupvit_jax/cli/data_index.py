"""Indexes tars of pictures and captions before training.

    groupvit data index --data="data/gcc3m/*.tar" --prompts
    groupvit data index --data="gs://bucket/cc3m/{00000..00331}.tar"

PATH is a tar, a folder of tars, a glob or braces, local or a URL, in quotes.
--prompts also finds the words of each caption that prompts are made of.
Training indexes what is not indexed yet.
"""

import os
import time
from typing import Any

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_multi_string("data", None, "tars to index, quoted; may be given several times")
    flags.DEFINE_bool("prompts", False, "find the words of each caption that prompts are made of, once and for all")
    flags.DEFINE_enum("tagger", "auto", ["auto", "nltk", "pattern"], "with --prompts: who finds them; auto is nltk "
                      "where its data is installed")
    flags.DEFINE_integer("workers", None, "tars indexed at once; by default one a core, 16 where they are remote",
                         lower_bound=1)


def main(rest: list[str]) -> None:
    if rest or not FLAGS.data:
        raise InputError("usage: groupvit data index --data=PATTERN [--data=PATTERN ...] [--prompts --tagger=T]")
    if FLAGS["tagger"].present and not FLAGS.prompts:
        raise InputError("--tagger says who finds the words for --prompts: give both")
    from groupvit_jax.data import captions
    from groupvit_jax.data.tar_source import TarSource

    tagger = captions.tagger(FLAGS.tagger).name if FLAGS.prompts else None
    for pattern in FLAGS.data:
        began = time.monotonic()
        source = TarSource(pattern, progress=True, workers=FLAGS.workers, tagger=tagger)
        print(report(source, time.monotonic() - began), flush=True)


def report(source: Any, seconds: float) -> str:
    """Lines about one pattern."""
    from groupvit_jax.data.bad import listed

    folders = {os.path.dirname(shard.index) for shard in source.shards}
    places = folders - {os.path.dirname(shard.path) for shard in source.shards}
    lines = [f"{source.pattern}: {len(source.shards):,} shards, {len(source):,} pairs, {seconds:.1f} s",
             f"  left out: {listed(source.problems) or 'none'}",
             f"  index: {', '.join(['beside the shards'] * (folders != places) + sorted(places))}"]
    if cut := [shard.path for shard in source.shards if "truncated shard" in shard.problems]:
        lines.append(f"  truncated: {', '.join(cut[:10])}{' ...' * (len(cut) > 10)}")
    if source.tagger:
        lines.append(f"  words: by the tagger {source.tagger}")
    return "\n".join(lines)
