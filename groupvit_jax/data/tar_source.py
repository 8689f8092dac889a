"""Captioned pictures from WebDataset tars, in any order."""

import bisect
import collections
import itertools
import os
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from groupvit_jax.data import index, samples, storage
from groupvit_jax.data.bad import BadSample, listed
from groupvit_jax.errors import InputError

_NEAR = 1 << 16  # bytes between image and caption that are rather read too than read around
_BLOCK = 128  # remote samples: some 10 MB, so that what is read beyond a block's ends is a tenth


class TarSource:
    """`source[i]` is `{"image": encoded bytes, "caption": str, "key": str}`, with an index that holds them also
    `"words"`, the content words of the caption. Order: tars by name, samples as they lie in them.

    `problems`: how many samples were left out, by kind of bad.KINDS. `tagger`: which one found the words, or None.
    `block`: as many samples lie together and are better read together; 1 where that does not matter.

    Args:
        pattern: a tar, a folder of tars, a glob ("data/*.tar") or braces ("gs://b/{000..331}.tar"): see
            storage.expand.
        progress: shows a line while tars are indexed.
        workers, tagger, make_indexes: whether and how tars are indexed that are not, see index.ensure.
        cache_bytes: of remote tars that a process keeps in memory.
    Raises:
        InputError: nothing matches, a file is no tar, or no sample has both picture and caption.
    """

    def __init__(self, pattern: str | os.PathLike, progress: bool = False, *, workers: int | None = None,
                 tagger: str | None = None, cache_bytes: int = 512 << 20, make_indexes: bool = True) -> None:
        self.pattern = str(pattern)
        self.shards = index.ensure(storage.expand(pattern), workers, tagger, progress, make_indexes)
        self.problems = dict(sum((collections.Counter(shard.problems) for shard in self.shards), collections.Counter()))
        taggers = {shard.tagger for shard in self.shards}
        self.tagger = taggers.pop() if len(taggers) == 1 else None
        self.block = _BLOCK if storage.is_remote(self.pattern) else 1
        self._starts = [0, *itertools.accumulate(shard.samples for shard in self.shards)]
        self._reader = storage.Reader(cache_bytes)
        self._tables: dict[int, _Table] = {}  # number of the shard -> _Table, opened on first use in each process
        if not len(self):
            left_out = listed(self.problems) or "no files of samples"
            raise InputError(f"no picture with a caption in {self.pattern} ({left_out}): tars need pairs such as "
                             '0001.jpg and 0001.txt, or a .json with "caption"')

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> dict:
        """Raises: IndexError; BadSample where the caption is unusable; InputError where the shard cannot be read."""
        path, table, row = self._place(i)
        key = table.key[row].as_py()
        image, caption = table.places(row)
        try:
            image, caption = self._read(path, image, caption)
            sample = {"image": image, "caption": samples.caption_text(caption, table.is_json[row].as_py()), "key": key}
        except BadSample as bad:
            raise BadSample(bad.kind, f"{key} of {path}") from None
        if self.tagger:
            sample["words"] = table.words[row].as_py()
        return sample

    def key(self, i: int) -> str:
        """The name of sample i, from the index: the sample itself is not read."""
        _, table, row = self._place(i)
        return table.key[row].as_py()

    def block_bytes(self) -> int:
        """About how much a block is, to know what a cache must hold: as in the first shard that has samples."""
        _, table, _ = self._place(0)
        return int(self.block * (table.image_size.mean() + table.caption_size.mean()))

    def prefetch(self, i: int) -> None:
        """A hint that sample i is read soon; returns at once."""
        path, table, row = self._place(i)
        for place in table.places(row):
            self._reader.prefetch(path, *place)

    def files(self) -> list[tuple[str, int, int]]:
        """(name, bytes, samples) of each shard."""
        return [(os.path.basename(shard.path), shard.fingerprint[0], shard.samples) for shard in self.shards]

    def __repr__(self) -> str:  # grain compares it when it restores a position
        return f"TarSource({self.pattern!r}, {len(self)} samples)"

    def close(self) -> None:
        """Closes files and drops what was read ahead; the next read opens them again."""
        self._reader.close()
        self._tables = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def _place(self, i: int) -> tuple[str, Any, int]:
        """(path of the tar, its table, row) of sample i."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        number = bisect.bisect_right(self._starts, i) - 1
        table = self._tables.get(number)
        if table is None:
            table = self._tables[number] = _Table.of(index.read(self.shards[number]))
        return self.shards[number].path, table, i - self._starts[number]

    def _read(self, path: str, image: tuple[int, int], caption: tuple[int, int]) -> Any:
        """The bytes of two places (offset, size), in one go where they are near each other."""
        (low, size), (high, size_high) = sorted((image, caption))
        if high - (low + size) > _NEAR:
            return self._reader.read(path, *image), self._reader.read(path, *caption)
        both = self._reader.read(path, low, high + size_high - low)
        return [both[offset - low : offset - low + size] for offset, size in (image, caption)]


class _Table(NamedTuple):
    """Views of the columns of a shard's index."""

    key: object
    image_offset: np.ndarray  # int64 [n]
    image_size: np.ndarray  # int32 [n]
    caption_offset: np.ndarray
    caption_size: np.ndarray
    is_json: object
    words: object = None

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Any:
        return cls(*(c.to_numpy() if name.endswith(("_offset", "_size")) else c
                     for name, c in zip(batch.schema.names, batch.columns)))

    def places(self, row: int) -> Any:
        """(offset, size) of image and caption."""
        return ((int(self.image_offset[row]), int(self.image_size[row])),
                (int(self.caption_offset[row]), int(self.caption_size[row])))
