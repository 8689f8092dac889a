"""Batches: one global order, whoever makes them and wherever one starts; prompts; packing; bad samples replaced."""

import contextlib
import io
import itertools
import multiprocessing
import os
import time

import numpy as np
import pairs
import pytest
import tiny
from PIL import Image

from groupvit_jax.data import pipeline, tokenizer
from groupvit_jax.data.bad import KINDS
from groupvit_jax.data.examples import MakeExample, join
from groupvit_jax.data.pipeline import Batches
from groupvit_jax.data.tar import write_tar
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.errors import InputError

BATCH, LENGTH, SIZE = 8, 16, 16
FIELDS = {"image", "text", "bad", "cut"}


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    return TarSource(pairs.write(tmp_path_factory.mktemp("shards") / "0.tar", pairs.CAPTIONS))


def config(sources=1, weights=None, **changes):
    usual = dict(data__batch=BATCH, data__group=2, data__tagger="pattern", model__text__vocabulary=49408)
    made = tiny.config(**usual | changes).unlock()
    weights = weights or [0.0] * sources
    made.data.train = [tiny.base.train_set(f"set{i}", "", weight=w) for i, w in enumerate(weights)]
    return made


def plain(sources=1, **changes):
    """Pictures as they are, so that their levels tell them apart."""
    return config(sources, augment__randaugment=0.0, augment__crop_area=(1.0, 1.0), **changes)


def batches(config, *sources, share=0, shares=1, seed=0):
    make = MakeExample(config.data, config.augment, SIZE, LENGTH)
    return Batches(sources, config.data, make, seed, share, shares)


def flat(batch):
    return [(name, part) for name, value in sorted(batch.items())
            for part in (value if isinstance(value, tuple) else [value])]


def equal(a, b):
    assert a.keys() == b.keys() == FIELDS
    return all(np.array_equal(x, y) for (_, x), (_, y) in zip(flat(a), flat(b), strict=True))


def levels_of(made, steps):
    return np.concatenate([pairs.levels(made[n]["image"]) for n in range(steps)])


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("shares", [2, 4])
def test_the_parts_of_several_processes_are_the_global_batch_in_order(tar, shares, packing):
    made = config(data__packing=packing)
    parts = [batches(made, tar, share=share, shares=shares) for share in range(shares)]
    for n in range(5):
        assert equal(batches(made, tar)[n], join([part[n] for part in parts]))


@pytest.mark.parametrize("workers, start", [(0, 0), (0, 3), (0, 10**6), (2, 3), (4, 5)])
def test_threads_and_workers_make_the_batches_of_an_undisturbed_run_wherever_they_start(tar, workers, start):
    made = config(data__workers=workers, data__threads=1 if workers else 3)
    with contextlib.closing(batches(made, tar).iterate(made.data, start)) as stream:
        for n, batch in enumerate(itertools.islice(stream, 3), start):
            assert equal(batch, batches(made, tar)[n])


@pytest.mark.parametrize("workers", [2, 4])
def test_a_share_of_a_batch_made_by_workers_is_that_share(tar, workers):
    made = config(data__workers=workers, data__threads=1)
    with contextlib.closing(batches(made, tar, share=1, shares=2).iterate(made.data, 2)) as stream:
        assert equal(next(stream), batches(made, tar, share=1, shares=2)[2])


def test_prompts_come_with_the_caption_padded_or_packed(tar):
    padded = batches(config(data__prompts=3, data__packing=False), tar)[0]["text"]
    packed = batches(config(data__prompts=3), tar)[0]["text"]
    assert padded.shape == (BATCH, 4, LENGTH) and padded.dtype == np.int32
    assert packed.places.shape == (BATCH // 2, 2, 4, 2) and all(part.dtype == np.int32 for part in packed)
    group, g, t = 3, 1, 2
    row, end = packed.places[group, g, t]
    ids = packed.tokens[group, row, end - packed.positions[group, row, end] : end + 1]
    np.testing.assert_array_equal(ids, padded[2 * group + g, t, : len(ids)])


def test_packing_changes_no_picture(tar):
    one, other = (batches(config(data__packing=packing), tar)[0]["image"] for packing in (True, False))
    np.testing.assert_array_equal(one, other)


def test_epochs_have_every_pair_once_each_and_in_another_order(tar):
    levels = levels_of(batches(plain(), tar), 10).reshape(2, 40)
    assert all(np.bincount(part).tolist() == [4] * 10 for part in levels) and len(np.unique(levels, axis=0)) == 2


def test_another_seed_is_another_order(tar):
    assert not equal(batches(config(), tar)[0], batches(config(), tar, seed=1)[0])


def test_augmentation_of_a_pair_is_drawn_anew_each_time():
    image = np.concatenate([batches(config(data__prompts=0), pairs.Source([(noise(), "a dog")]))[n]["image"]
                            for n in range(2)])
    assert len(np.unique(image.reshape(len(image), -1), axis=0)) > 12


def noise():
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(data, "PNG")
    return data.getvalue()


def test_prompts_of_a_pair_are_drawn_anew_each_time():
    source = pairs.Source([(pairs.picture(3), "a dog, a cat, a bird and a kite")])
    prompts = batches(config(data__prompts=1, data__packing=False), source)[0]["text"][:, 1]
    assert len(np.unique(prompts, axis=0)) > 3


def test_captions_with_fewer_words_than_prompts_fill_up_with_themselves():
    made = config(data__prompts=3, data__templates=("a photo of a {}.",), data__packing=False)
    expected = tokenizer.tokenize(["zebra", "a photo of a zebra.", "zebra", "zebra"], LENGTH)
    np.testing.assert_array_equal(batches(made, pairs.Source([(pairs.picture(3), "zebra")]))[0]["text"][0], expected)


@pytest.mark.parametrize("share, shares", [(0, 1), (1, 4)])
def test_keys_name_every_picture_of_the_global_batch_in_its_order_on_any_process(tar, tmp_path, share, shares):
    other = TarSource(pairs.write(tmp_path / "1.tar", pairs.CAPTIONS[:2], offset=10))
    made = plain(2)
    for n in (0, 3):
        keys = batches(made, tar, other, share=share, shares=shares).keys(n)
        levels = pairs.levels(batches(made, tar, other)[n]["image"])
        assert keys == [f"set{level // 10}:{level % 10:04}" for level in levels]


def test_keys_name_what_was_drawn_where_it_cannot_be_used():
    source = pairs.Source([(pairs.picture(1), "a dog"), "empty caption", (b"no picture", "a dog"),
                           (pairs.picture(3), "a cat")])
    assert sorted(batches(plain(data__prompts=0), source).keys(0)) == sorted([f"set0:{i}" for i in range(4)] * 2)


class Tagged(pairs.Source):
    """Holds other words than a tagger would find."""

    tagger = "nltk"

    def __getitem__(self, i):
        return super().__getitem__(i) | {"words": ["plum"]}


@pytest.mark.parametrize("tagger, word", [("nltk", "plum"), ("pattern", "zebra")])
def test_stored_words_are_used_when_their_tagger_is_the_configured_one(tagger, word):
    made = config(data__prompts=1, data__templates=("a {}",), data__packing=False)
    made.data.tagger = tagger
    text = batches(made, Tagged([(pairs.picture(3), "zebra")]))[0]["text"]
    np.testing.assert_array_equal(text[0, 1], tokenizer.tokenize(f"a {word}", LENGTH)[0])


@pytest.mark.parametrize("weights, share", [([3.0, 1.0], 0.75), ([0.0, 0.0], 0.25)])
def test_sets_are_mixed_by_their_weights_or_their_numbers_of_pairs(weights, share):
    few, many = (pairs.Source([(pairs.picture(level), "a dog")] * n) for level, n in ((2, 2), (7, 6)))
    levels = levels_of(batches(plain(2, weights=weights, data__prompts=0), few, many), 30)
    assert abs((levels == 2).sum() - share * len(levels)) <= 2


def test_a_bad_sample_is_replaced_by_the_next_good_one_and_counted():
    usable = [(pairs.picture(level), "a dog") for level in range(8)]
    bad = usable[:3] + ["empty caption", "broken image"] + usable[5:]
    (good,), (mended,) = ([batches(plain(data__prompts=0), pairs.Source(source))[0]] for source in (usable, bad))
    expected = pairs.levels(good["image"])
    np.testing.assert_array_equal(pairs.levels(mended["image"]), np.where(np.isin(expected, (3, 4)), 5, expected))
    counts = dict(zip(KINDS, mended["bad"].sum(axis=0)))
    assert counts["empty caption"] == 1 and counts["broken image"] == 2 and mended["bad"].sum() == 3


def test_a_broken_picture_in_a_tar_is_replaced_with_threads_and_with_workers(tmp_path):
    write_tar(tmp_path / "0.tar", [("0.jpg", b"\xff\xd8 broken"), ("0.txt", b"a dog"),
                                   ("1.jpg", pairs.picture(6)), ("1.txt", b"a cat")])
    made = plain(data__workers=1, data__threads=1)
    with contextlib.closing(batches(made, TarSource(tmp_path / "0.tar")).iterate(made.data, 0)) as stream:
        batch = next(stream)
    assert set(pairs.levels(batch["image"])) == {6} and batch["bad"].sum() == batch["bad"][:, KINDS.index(
        "broken image")].sum() == BATCH // 2


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_samples_is_an_input_error(workers):
    made = config(data__workers=workers, data__threads=1)
    source = pairs.Source([(b"no picture", "a dog")])
    with contextlib.closing(batches(made, source).iterate(made.data, 0)) as stream:
        with pytest.raises(InputError, match="1000 samples in a row.*broken image"):
            next(stream)


def test_remote_samples_are_announced_a_block_ahead_of_their_use():
    source = pairs.Source([(pairs.picture(1), "a dog")] * 64, block=8)
    made = batches(plain(data__prompts=0), source)
    for n in range(4):
        made[n]
    assert source.ahead and not set(source.ahead[:8]) & set(source.read[:8])
    later = [i for n in range(4, 8) for i in (made[n], source.read[-8:])[1]]
    assert set(later) == set(source.ahead[:32])


@pytest.mark.parametrize("workers, cache, warned", [(0, 60, True), (0, 64, False), (2, 32, False), (3, 32, True)])
def test_too_small_a_cache_for_the_lanes_of_a_process_is_said(workers, cache, warned, caplog):
    made = config(data__workers=workers, data__cache=cache)
    batches(made, pairs.Source([(pairs.picture(1), "a dog")] * 64, block=8))._check_cache(made.data)
    assert ("64 MB of it" in caplog.text) == warned


def test_a_start_at_step_one_million_reads_no_more_than_one_at_the_first():
    source = pairs.Source([(pairs.picture(1), "a dog")] * 1000)
    made = batches(plain(data__prompts=0), source)
    made[10**6]
    assert len(source.read) == BATCH


@pytest.mark.parametrize("workers, most", [(0, 4), (2, 8)])
def test_no_more_than_some_batches_beyond_prefetch_are_made_ahead(tmp_path, workers, most):
    made = plain(data__prompts=0, data__workers=workers, data__threads=1, data__prefetch=2)
    with contextlib.closing(batches(made, Logged(tmp_path)).iterate(made.data, 0)) as stream:
        next(stream)
        time.sleep(3)  # long enough for all that will be
    assert BATCH <= len((tmp_path / "log").read_text()) <= (1 + most) * BATCH


class Logged(pairs.Unread):
    """Leaves a mark in a file for each sample that is read, in whatever process."""

    def __init__(self, folder):
        super().__init__([(pairs.picture(1, size=(8, 8)), "a dog")] * 1000)
        self.path = folder / "log"

    def __getitem__(self, i):
        with open(self.path, "a") as log:
            log.write(".")
        return super().__getitem__(i)


def test_a_worker_that_is_killed_is_replaced_and_the_batches_go_on(tar, caplog):
    made = config(data__workers=1, data__threads=1, data__prefetch=1, data__worker_restarts=1)
    whole = batches(made, tar)
    with contextlib.closing(pipeline.stream(whole, made.data, 3)) as stream:
        found = [next(stream) for _ in range(2)]
        multiprocessing.active_children()[0].kill()
        found += [next(stream) for _ in range(8)]
    for n, batch in enumerate(found, 3):
        np.testing.assert_array_equal(batch["image"], whole[n]["image"])
    assert "ended (exit code -9;" in caplog.text and "(1 of 1 times)" in caplog.text


def test_one_that_is_killed_too_often_is_an_input_error(tar):
    made = config(data__workers=1, data__threads=1, data__prefetch=1, data__worker_restarts=0)
    with contextlib.closing(pipeline.stream(batches(made, tar), made.data, 0)) as stream:
        next(stream)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        with pytest.raises(InputError, match="worker process.*exit code -9.*lower config.data.workers"):
            for _ in range(100):
                next(stream)



def test_cut_texts_are_counted():
    made = config(data__prompts=0, data__caption_tokens=8.0, data__pack_length=16)
    source = pairs.Source([(pairs.picture(1), f"a {a} and a {b} on the sand near a tree")
                           for a, b in itertools.product(pairs.WORDS, pairs.WORDS)])
    assert batches(made, source)[0]["cut"].sum() > 0


def test_a_batch_that_does_not_divide_over_processes_is_an_input_error(tar):
    with pytest.raises(InputError, match="set config.data.group=2"):
        batches(config(data__batch=6, data__group=6), tar, shares=3)


@pytest.mark.slow
def test_memory_is_flat_over_50_000_batches():
    """The resident set's slope over batches of a source that costs nothing to read, after the first tenth."""
    small = [(pairs.picture(level, size=(8, 8), kind="PNG"), f"a {word}") for level, word in enumerate(pairs.WORDS)]
    made = plain(data__prompts=0, data__batch=2, data__threads=1)
    taken = []
    with contextlib.closing(batches(made, pairs.Unread(small)).iterate(made.data, 0)) as stream:
        for n, _ in enumerate(itertools.islice(stream, 50_000)):
            if n >= 5000 and n % 500 == 0:
                with open("/proc/self/statm") as statm:
                    taken.append(int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
    slope = np.polyfit(np.arange(len(taken)) * 500, taken, 1)[0]
    assert slope * 50_000 < 8, f"{slope * 50_000:.1f} MB over 50,000 batches"
