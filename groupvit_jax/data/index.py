"""The offset index of a shard: where the image and the caption of each sample of a tar lie.

It is an Arrow IPC file, memory-mapped: `x.tar.index.arrow` beside `x.tar`, or in a cache folder where one cannot write
there. It is made anew when the tar's size or time is another one, or this code's version is, or its bytes are damaged.
"""

import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from groupvit_jax import files
from groupvit_jax.data import captions, samples, storage, tar
from groupvit_jax.data.bad import BadSample
from groupvit_jax.errors import InputError
from groupvit_jax.writer import Progress

SUFFIX = ".index.arrow"
VERSION = 2  # raise it whenever the same tar would give another index
_COLUMNS = [("key", pa.string()), ("image_offset", pa.int64()), ("image_size", pa.int32()),
            ("caption_offset", pa.int64()), ("caption_size", pa.int32()), ("is_json", pa.bool_())]
_WORDS = ("words", pa.list_(pa.string()))
# Bytes of tars that one process indexes in about a second, the time that processes take to start; tagged, they take
# longer.
_SMALL, _SMALL_TAGGED = 1 << 30, 16 << 20


class Shard(NamedTuple):
    """A tar that has an index."""

    path: str
    index: str  # type: ignore[assignment]  # the local file that holds it; nobody looks for a field in a tuple
    samples: int
    problems: dict[str, int]  # kind of bad.KINDS -> how many samples were left out
    tagger: str | None  # whose words it holds
    fingerprint: tuple[int, str]  # of the tar, see storage.fingerprint


def ensure(paths: Sequence[str], workers: int | None = None, tagger: str | None = None,
           progress: bool = False, make: bool = True) -> list[Shard]:
    """The shards with their indexes, those made that are missing or out of date.

    Args:
        paths: tars, local or URLs.
        workers: that index at once; by default a process a core, for remote tars 16 threads. Little work is done here.
        tagger: name of a captions.tagger; the index then holds the content words of each caption.
        progress: shows a line while indexes are made, if that takes more than a second or two.
        make: False makes none, and refuses tars that lack one.
    Raises: InputError for a file that is missing, cannot be read, or is no tar.
    """
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # a shared disk takes its time for each
        prints = list(pool.map(storage.fingerprint, paths))
        shards = list(pool.map(_find, paths, prints, itertools.repeat(tagger)))
    missing = [i for i, shard in enumerate(shards) if shard is None]
    if missing and not make:
        raise InputError(f"{len(missing)} of {len(paths)} tars have no index yet, as {paths[missing[0]]}: "
                         "groupvit data index makes them, and so does training")
    random.shuffle(missing)  # hosts that start together begin with different ones, and find the others' done
    if missing:
        little = not storage.is_remote(paths[0]) and sum(prints[i][0] for i in missing) < (
            _SMALL_TAGGED if tagger else _SMALL)
        made = _make_all([paths[i] for i in missing], 1 if little else workers, tagger)
        progress = progress and not little
        with Progress("index", len(missing), "shards") if progress else contextlib.nullcontext() as shown:
            pairs = 0
            for i, shard in made:
                shards[missing[i]] = shard
                pairs += shard.samples
                if shown:
                    shown.advance(1, f"{pairs:,} pairs")
    return [shard for shard in shards if shard]


def read(shard: Shard) -> pa.RecordBatch:
    """The columns of a shard's index; bytes are read from disk when they are looked at.

    key, image_offset, image_size, caption_offset, caption_size, is_json, and with a tagger words.
    Raises: InputError when the index has gone or changed since.
    """
    try:
        batch, about = _map(shard.index)
    except (OSError, pa.ArrowException):
        about = {}
    now = (about.get("size"), about.get("tag")), about.get("tagger")
    if now != (tuple(shard.fingerprint), shard.tagger or now[1]):  # words that came since do no harm
        raise InputError(f"{shard.index} changed while in use: start again")
    return batch


# ---------------------------------------------------------------- the file


def _homes(path: str) -> list[str]:
    """Where the index of a tar may lie, the best first."""
    root = os.environ.get("GROUPVIT_CACHE") or os.path.join(os.path.expanduser("~"), ".cache/groupvit_jax/index")
    full = path if storage.is_remote(path) else os.path.abspath(path)
    cached = os.path.join(root, hashlib.sha256(full.encode()).hexdigest()[:32] + SUFFIX)
    return [cached] if storage.is_remote(path) else [path + SUFFIX, cached]


def _find(path: str, fingerprint: tuple[int, str], tagger: str | None) -> Shard | None:
    """The shard, if it has an index that is up to date and holds the words that are asked for."""
    for home in _homes(path):
        if shard := _open(path, home, fingerprint, tagger):
            return shard
    if storage.is_bucket(path) and (data := storage.download(path + SUFFIX)):  # of another host
        return _open(path, _keep(path, data), fingerprint, tagger)
    return None


def _open(path: str, home: str, fingerprint: tuple[int, str], tagger: str | None) -> Shard | None:
    if not os.path.isfile(home):
        return None
    try:
        batch, about = _map(home)
        shard = Shard(path, home, batch.num_rows, about["problems"], about["tagger"], fingerprint)
        fits = about["version"] == VERSION and (about["size"], about["tag"]) == fingerprint
        whole = fits and batch.schema.equals(_schema(about)) and about["sum"] == _sum(batch)
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError):  # no index, or a broken one
        return None
    return shard if whole and tagger in (None, shard.tagger) else None


def _map(file: str) -> tuple[pa.RecordBatch, dict[str, Any]]:
    """(record batch, what is said about it) of an index file, memory-mapped; no descriptor stays open."""
    with pa.memory_map(file) as mapped:
        reader = pa.ipc.open_file(mapped)
        about, batch = json.loads(reader.schema.metadata[b"groupvit"]), reader.get_batch(0)
        batch.validate()
        return batch, about


def _keep(path: str, data: bytes) -> str:
    """Writes the bytes of an index to the first of its homes that takes it -> that home."""
    for home in _homes(path):
        try:
            files.write(home, data)
            return home
        except InputError:
            continue
    raise InputError(f"the index of {path} can be written neither beside it nor as {_homes(path)[-1]}: make room, or "
                     "set GROUPVIT_CACHE to a folder that takes it")


def _schema(about: dict[str, Any]) -> pa.Schema:
    return pa.schema(_COLUMNS + ([_WORDS] if about["tagger"] else []))


def _sum(batch: pa.RecordBatch) -> int:
    """A checksum of the columns: Arrow has none, and a wrong offset would pair pictures with others' captions."""
    total = zlib.crc32(batch.num_rows.to_bytes(8))
    for buffer in itertools.chain.from_iterable(column.buffers() for column in batch.columns):
        total = zlib.crc32(buffer, total) if buffer else total
    return total


def _encode(columns: list[list], about: dict[str, Any]) -> bytes:
    """The bytes of an index."""
    schema = _schema(about)
    batch = pa.record_batch([pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)], schema)
    stored = pa.ipc.open_stream(_written(batch, pa.ipc.new_stream)).read_next_batch()  # with its buffers cut to size
    about = about | {"sum": _sum(stored)}
    return _written(batch.replace_schema_metadata({"groupvit": json.dumps(about)}), pa.ipc.new_file).to_pybytes()


def _written(batch: pa.RecordBatch, new: Callable) -> pa.Buffer:
    stream = pa.BufferOutputStream()
    with new(stream, batch.schema) as writer:
        writer.write_batch(batch)
    return stream.getvalue()


# ---------------------------------------------------------------- making one


def _make(path: str, tagger: str | None) -> Shard:
    """Indexes one tar, unless another host has just done so -> its Shard."""
    fingerprint = storage.fingerprint(path)
    if shard := _find(path, fingerprint, tagger):
        return shard
    tag = captions.tagger(tagger) if tagger else None
    rows, texts, problems = _scan(path, fingerprint[0], bool(tag))
    columns = [list(column) for column in zip(*rows)] or [[] for _ in _COLUMNS]
    if tag:
        columns.append([_words(texts[offset], is_json, tag) for _, _, _, offset, _, is_json in rows])
    about = {"version": VERSION, "size": fingerprint[0], "tag": fingerprint[1], "problems": problems, "tagger": tagger}
    if shard := _find(path, fingerprint, tagger):  # made meanwhile by another, who may have mapped it already
        return shard
    data = _encode(columns, about)
    if storage.is_bucket(path):
        storage.upload(path + SUFFIX, data)  # for other hosts
    return Shard(path, _keep(path, data), len(rows), problems, tagger, fingerprint)


def _scan(path: str, length: int, with_texts: bool) -> tuple[list[tuple], dict[int, bytes], dict[str, int]]:
    """Walks a tar -> (rows of its samples, {offset: bytes} of its captions, counts of problems)."""
    reader, texts = storage.Reader(cache_bytes=32 << 20), {}
    window = reader.chunk_bytes if storage.is_remote(path) else 1 << 15

    def read(offset: int, size: int) -> bytes:
        ahead = 3 * reader.chunk_bytes  # fetched while the last bytes are looked at
        reader.prefetch(path, offset, min(size + ahead, length - offset))
        return reader.read(path, offset, size)

    def keep(offset: int, size: int) -> None:  # at once: a remote tar's bytes do not stay here long
        texts[offset] = reader.read(path, offset, size)

    try:
        rows, problems = samples.group(tar.members(read, length, window), keep if with_texts else None)
    except tar.NotTar as error:
        raise InputError(f"{path} {error}") from None
    finally:
        reader.close()
    return rows, texts, problems


def _words(data: bytes, is_json: bool, tag: captions.Tagger) -> list[str]:
    try:
        return captions.content_words(samples.caption_text(data, is_json), tag)
    except BadSample:
        return []


# ---------------------------------------------------------------- making many


def _make_all(paths: Sequence[str], workers: int | None, tagger: str | None) -> Iterator[tuple[int, Shard]]:
    """Yields (number of the path, its shard) as they are done."""
    workers = min(workers or (16 if storage.is_remote(paths[0]) else os.cpu_count() or 1), len(paths))
    if workers == 1:
        for i, path in enumerate(paths):
            yield i, _make(path, tagger)
        return
    with _pool(paths, workers) as pool:
        running = {pool.submit(_make, path, tagger): i for i, path in enumerate(paths)}
        try:
            for done in concurrent.futures.as_completed(running):
                yield running[done], done.result()
        except concurrent.futures.BrokenExecutor:
            raise InputError("a process that made indexes has died: give more memory or fewer workers; a script needs "
                             "if __name__ == '__main__' around what it does") from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _pool(paths: Sequence[str], workers: int) -> concurrent.futures.Executor:
    if storage.is_remote(paths[0]):
        return concurrent.futures.ThreadPoolExecutor(workers)
    # Not forked: the caller may run threads (JAX does), and a forked copy of those can hang.
    spawn = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(  # they end at Ctrl-C, and quietly
        workers, spawn, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL))
