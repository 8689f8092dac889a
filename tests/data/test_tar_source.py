"""Captioned pictures from tars: what a sample is, bad ones, processes and threads, remote tars read block by block."""

import collections
import os
import pickle
import random

import fsspec
import numpy as np
import pytest
import threads
from range_server import RangeServer

from groupvit_jax.data import captions, index, storage
from groupvit_jax.data.bad import BadSample
from groupvit_jax.data.tar import write_tar
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "WAITS", (0.01, 0.01))
    monkeypatch.setenv("GROUPVIT_CACHE", str(tmp_path / "cache"))


def pair(key, caption="a coin"):
    return [(f"{key}.jpg", b"picture " + key.encode()), (f"{key}.txt", caption.encode())]


@pytest.fixture
def shards(tmp_path):
    for shard in range(3):
        listed = [f for i in range(4) for f in pair(f"{shard}{i}", f"coin {shard}{i}")]
        write_tar(tmp_path / f"{shard:02d}.tar", listed)
    return tmp_path


# ---------------------------------------------------------------- samples


def test_samples_are_read_in_the_order_of_names_and_of_the_tar(shards):
    source = TarSource(shards)
    assert [source[i]["key"] for i in range(len(source))] == [f"{s}{i}" for s in range(3) for i in range(4)]
    assert source[5] == {"image": b"picture 11", "caption": "coin 11", "key": "11"} == source[np.int64(5)]
    assert source.problems == {} and source.tagger is None and source.block == 1
    for i in (12, -1):
        with pytest.raises(IndexError):
            source[i]


def test_shards_without_samples_do_not_shift_the_others(tmp_path):
    for name, count in zip("abcdef", (0, 2, 0, 0, 3, 0)):
        write_tar(tmp_path / f"{name}.tar", [f for i in range(count) for f in pair(f"{name}{i}")])
    assert [sample["key"] for sample in TarSource(tmp_path)] == ["b0", "b1", "e0", "e1", "e2"]


def test_image_and_caption_may_lie_in_any_order_and_far_apart(tmp_path):
    other = ("0.bin", bytes(200_000))
    image, caption = pair("0")
    for number, listed in enumerate(([image, caption], [caption, image], [image, other, caption],
                                     [caption, other, image])):
        write_tar(tmp_path / f"{number}.tar", listed)
    for sample in TarSource(tmp_path):
        assert sample == {"image": b"picture 0", "caption": "a coin", "key": "0"}


def test_a_caption_that_is_unusable_is_a_bad_sample_that_says_which(tmp_path):
    listed = [*pair("0", "  \n"), *pair("1", "\0\1\2"), ("2.jpg", b"p"), ("2.json", b'{"caption": null}'),
              ("3.jpg", b"p"), ("3.json", '{"caption": " Café "}'.encode())]
    write_tar(tmp_path / "a.tar", listed)
    source = TarSource(tmp_path)
    for i, kind in enumerate(("empty caption", "binary caption", "empty caption")):
        with pytest.raises(BadSample, match=rf"{kind}: {i} of .*a\.tar"):
            source[i]
    assert source[3]["caption"] == "Café" and source.problems == {}
    assert [source.key(i) for i in range(4)] == ["0", "1", "2", "3"]


def test_problems_are_counted_over_all_shards(shards):
    write_tar(shards / "03.tar", [*pair("30"), ("30.jpg", b"again"), ("31.jpg", b""), ("31.txt", b"words")])
    write_tar(shards / "04.tar", [*pair("40"), ("41.txt", b"words")])
    with open(shards / "05.tar", "wb") as file:
        file.write((shards / "00.tar").read_bytes()[: 5 * 1024])
    source = TarSource(shards)
    assert source.problems == {"duplicate key": 1, "no image": 2, "truncated shard": 1, "no caption": 1}
    assert len(source) == 12 + 1 + 1 + 2 and TarSource(shards).problems == source.problems


def test_no_sample_at_all_is_an_error_that_says_why(tmp_path):
    with pytest.raises(InputError, match=f"no .tar in {tmp_path}"):
        TarSource(tmp_path)
    write_tar(tmp_path / "a.tar", [("0.jpg", b"p")])
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"no picture with a caption.*1 x no caption, 1 x truncated shard.*0001\.jpg"):
        TarSource(tmp_path)


def test_a_tar_that_became_shorter_is_an_input_error(shards):
    source = TarSource(shards)
    os.truncate(shards / "01.tar", 100)
    with pytest.raises(InputError, match=r"01\.tar became shorter while in use"):
        source[5]


def test_words_come_along_where_the_index_holds_them_for_all_shards(shards):
    source = TarSource(shards, tagger="pattern")
    assert source.tagger == "pattern" and source[5]["words"] == captions.content_words("coin 11", captions.tagger())
    assert TarSource(shards).tagger == "pattern" and TarSource(shards)[5] == source[5]
    os.remove(f"{shards}/01.tar{index.SUFFIX}")
    assert TarSource(shards).tagger is None and "words" not in TarSource(shards)[0]


# ---------------------------------------------------------------- processes and threads


def test_a_pickled_source_is_small_and_takes_no_descriptors_along(shards):
    source = TarSource(shards)
    before = len(pickle.dumps(source))
    expected = list(source)
    copy = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) == before < 3 * 300 + 1000
    assert copy._tables == {} and list(copy) == expected and repr(copy) == repr(source) and copy.problems == {}


def test_a_source_of_many_samples_pickles_to_no_more_bytes(tmp_path):
    for name, count in (("few", 1), ("many", 3000)):
        write_tar(tmp_path / f"{name}.tar", [f for i in range(count) for f in pair(str(i))])
    few, many = (TarSource(tmp_path / f"{name}.tar") for name in ("few", "many"))
    assert len(pickle.dumps(many)) <= len(pickle.dumps(few)) + 10


@pytest.mark.parametrize("where", ["local", "memory"])
def test_threads_read_the_same_as_one(shards, where):
    if where == "memory":
        fsspec.filesystem("memory").put(f"{shards}/*.tar", "/threads/")
    source, wrong = TarSource(shards if where == "local" else "memory://threads"), []
    expected = list(source)
    source.close()

    def read():
        wrong.extend(i for _ in range(50) for i in range(12) if source[i] != expected[i])

    threads.at_once(read, 4)
    assert not wrong


def test_closed_it_holds_no_descriptor_and_opens_again(shards):
    source = TarSource(shards)
    before = len(os.listdir("/proc/self/fd"))
    expected = list(source)
    assert len(os.listdir("/proc/self/fd")) == before + 3  # the tars; the indexes are mapped and need none
    source.close()
    assert len(os.listdir("/proc/self/fd")) == before and list(source) == expected


# ---------------------------------------------------------------- remote


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A web server with 4 tars of 300 samples, and the keys."""
    folder, draw = tmp_path_factory.mktemp("remote"), random.Random(0)
    with RangeServer() as web:
        for shard in range(4):
            listed = [f for i in range(300) for f in ((f"{shard}-{i}.jpg", draw.randbytes(draw.randrange(9000))),
                                                     (f"{shard}-{i}.txt", b"a coin"))]
            listed[0] = (listed[0][0], b"first")
            write_tar(folder / "a.tar", listed)
            web.files[f"/{shard}.tar"] = (folder / "a.tar").read_bytes()
        yield web


def test_a_remote_source_gives_what_a_local_one_gives(remote, tmp_path):
    (tmp_path / "here").mkdir()
    for name, data in remote.files.items():
        (tmp_path / "here" / name[1:]).write_bytes(data)
    there, here = TarSource(remote.url + "/{0..3}.tar"), TarSource(tmp_path / "here")
    assert list(there) == list(here) and there.block == 128 and here.block == 1
    assert list(pickle.loads(pickle.dumps(there))) == list(here)


def test_walking_blocks_fetches_each_chunk_about_once(remote):
    """Block after block, each in random order, hinted 100 samples ahead; the cache holds two blocks and a half."""
    source = TarSource(remote.url + "/{0..3}.tar")
    source._reader = storage.Reader(cache_bytes=4 << 20, chunk_bytes=64 << 10)
    draw, order = random.Random(1), []
    blocks = [list(range(len(source))[k : k + source.block]) for k in range(0, len(source), source.block)]
    for block in draw.sample(blocks, len(blocks)):
        order += draw.sample(block, len(block))
    remote.asked.clear()
    for place, i in enumerate(order):
        for ahead in order[place + 100 : place + 101]:
            source.prefetch(ahead)
        assert source[i]["caption"] == "a coin"
    asked = collections.Counter(remote.asked)
    total = sum(map(len, remote.files.values()))
    assert sum(end - start for _, start, end in remote.asked) < 1.25 * total and max(asked.values()) <= 2


def test_a_hint_returns_at_once_and_saves_the_request(remote):
    source = TarSource(remote.url + "/{0..3}.tar")
    remote.asked.clear()
    source.prefetch(700)
    sample = source[700]
    source.prefetch(700)
    assert source[700] == sample and len(set(remote.asked)) == len(remote.asked) <= 2


def test_passing_network_errors_are_not_seen_and_lasting_ones_end_the_run(remote):
    source = TarSource(remote.url + "/{0..3}.tar")
    remote.failing["/2.tar"] = 2
    assert source[600]["key"] == "2-0"
    source.close()
    remote.failing["/2.tar"] = 1000
    with pytest.raises(InputError, match=r"cannot read.*2\.tar.*network"):
        source[600]
    remote.failing.clear()
    assert source[600]["image"] == b"first"
