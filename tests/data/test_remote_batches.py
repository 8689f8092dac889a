"""Batches from tars on a web server: those of any number of workers, each byte travelling about once an epoch."""

import contextlib
import itertools

import numpy as np
import pairs
import pytest
import tiny
from range_server import RangeServer

from groupvit_jax.data.examples import MakeExample
from groupvit_jax.data.pipeline import Batches
from groupvit_jax.data.tar import write_tar
from groupvit_jax.data.tar_source import TarSource

SAMPLES, BATCH, SIZE = 1024, 64, 16


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A server with two tars of pictures with a lot of bytes behind each, 12 MB in all."""
    folder, rng = tmp_path_factory.mktemp("web"), np.random.default_rng(0)
    with RangeServer() as server:
        for shard in range(2):
            files = []
            for i in range(SAMPLES // 2):
                picture = pairs.picture(i % 10, size=(8, 8), kind="PNG") + rng.bytes(12_000)
                files += [(f"{i:04}.png", picture), (f"{i:04}.txt", b"a dog on the sand")]
            write_tar(folder / f"{shard}.tar", files)
            server.files[f"/{shard}.tar"] = (folder / f"{shard}.tar").read_bytes()
        yield server


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUPVIT_CACHE", str(tmp_path))


def batches(url, **changes):
    config = tiny.config(data__batch=BATCH, data__group=8, data__prompts=0, data__threads=1, augment__randaugment=0.0,
                         augment__crop_area=(1.0, 1.0), **changes)
    make = MakeExample(config.data, config.augment, SIZE, 16)
    return Batches([TarSource(url + "/{0..1}.tar")], config.data, make, 0), config.data


def test_workers_make_the_batches_that_threads_make(web):
    made, config = batches(web.url, data__workers=2)
    with contextlib.closing(made.iterate(config, 2)) as stream:
        for n, batch in enumerate(itertools.islice(stream, 2), 2):
            np.testing.assert_array_equal(batch["image"], made[n]["image"])


def test_an_epoch_travels_about_once_and_in_large_ranges(web):
    made, config = batches(web.url)
    web.asked.clear()
    with contextlib.closing(made.iterate(config, 0)) as stream:
        for _ in itertools.islice(stream, SAMPLES // BATCH):
            pass
    size = sum(map(len, web.files.values()))
    travelled = sum(min(end, len(web.files[path])) - start for path, start, end in web.asked)
    assert size <= travelled < 2 * size  # the next epoch's first blocks are read ahead
    assert len(web.asked) < SAMPLES / 16


def test_a_batch_mixes_stretches_of_as_many_places_as_it_has_groups(web):
    made, _ = batches(web.url)
    indexes = np.array([[made.make_group.order(lane, draw)[1] for draw in range(8)] for lane in range(8)])
    assert len(set(indexes.ravel().tolist())) == 64
    assert (np.ptp(indexes, axis=1) < 128).sum() >= 7  # one may pass the end of the set
    assert len({index // 128 for index in indexes[:, 0].tolist()}) >= 5
