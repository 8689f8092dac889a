"""Batches: one global order, whoever makes them and wherever one starts; prompts; mixing; fresh draws."""

import contextlib
import io
import itertools

import numpy as np
import pytest
import tiny
from PIL import Image

from groupvit_jax.data import pipeline, tokenizer
from groupvit_jax.data.tar import write_tar
from groupvit_jax.errors import InputError

BATCH, LENGTH, SIZE = 4, 16, 16


def write_pairs(path, captions, offset=0):
    """A tar with a plain picture a caption, its grey level telling which (20 apart)."""
    files = []
    for i, caption in enumerate(captions):
        data = io.BytesIO()
        Image.new("RGB", (24, 20), (20 * (i + offset),) * 3).save(data, "JPEG")
        files += [(f"{i:04}.jpg", data.getvalue()), (f"{i:04}.txt", caption.encode())]
    write_tar(path, files)
    return str(path)


WORDS = "dog cat bird horse zebra kite boat coin brick lamp".split()


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "0.tar"
    return write_pairs(path, [f"a {word} and a tree on the sand" for word in WORDS])


def config(*paths, weights=None, **changes):
    made = tiny.config(data__batch=BATCH, data__tagger="pattern", model__text__vocabulary=49408, **changes).unlock()
    weights = weights or [0.0] * len(paths)
    made.data.train = [tiny.base.train_set(f"set{i}", p, weight=w) for i, (p, w) in enumerate(zip(paths, weights))]
    return made


def dataset(config, share=0, shares=1, seed=0):
    make = pipeline.MakeExample(config.data, config.augment, SIZE, LENGTH)
    return pipeline.batches(pipeline.open_sources(config.data), config.data, make, seed, share, shares)


def equal(a, b):
    assert a.keys() == b.keys() == {"image", "text"}
    return all(np.array_equal(a[name], b[name]) for name in a)


def grey_levels(images):
    """Which picture each image was made from: without colour changes its level says so."""
    return np.rint(images.mean(axis=(1, 2, 3)) / 20).astype(int)


def plain(*paths, **changes):
    return config(*paths, augment__randaugment=0.0, augment__crop_area=(1.0, 1.0), **changes)


@pytest.mark.parametrize("shares", [2, 4])
def test_the_parts_of_several_processes_are_the_global_batch_in_order(tar, shares):
    whole = dataset(config(tar))
    parts = [dataset(config(tar), share, shares) for share in range(shares)]
    for n in range(5):
        rows = [part[n] for part in parts]
        assert equal(whole[n], {name: np.concatenate([r[name] for r in rows]) for name in rows[0]})


@pytest.mark.parametrize("start", [1, 4, 1000])
def test_starting_at_a_step_gives_that_step_of_an_undisturbed_run(tar, start):
    made = config(tar)
    with contextlib.closing(pipeline.iterate(dataset(made), made.data, start)) as stream:
        for n, batch in enumerate(itertools.islice(stream, 2), start):
            assert equal(batch, dataset(made)[n])


@pytest.mark.parametrize("changes", [dict(data__threads=1), dict(data__threads=3, data__prefetch=1)], ids=str)
def test_threads_do_not_change_batches(tar, changes):
    made = config(tar, **changes)
    with contextlib.closing(pipeline.iterate(dataset(made), made.data, 3)) as stream:
        for n, batch in enumerate(itertools.islice(stream, 4), 3):
            assert equal(batch, dataset(made)[n])


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_do_not_change_batches(tar, workers):
    made = config(tar, data__workers=workers, data__threads=1)
    with contextlib.closing(pipeline.iterate(dataset(made), made.data, 3)) as stream:
        for n, batch in enumerate(itertools.islice(stream, 4), 3):
            assert equal(batch, dataset(made)[n])


def test_a_broken_picture_is_an_input_error_that_names_the_sample_with_threads_and_with_workers(tmp_path):
    write_tar(tmp_path / "0.tar", [("0007.jpg", b"\xff\xd8 broken"), ("0007.txt", b"a dog")])
    for workers in (0, 1):
        made = config(str(tmp_path / "0.tar"), data__workers=workers)
        with contextlib.closing(pipeline.iterate(dataset(made), made.data, 0)) as stream:
            with pytest.raises(InputError, match="0007"):
                next(stream)


def test_shapes_are_uint8_images_and_a_caption_with_k_prompts(tar):
    batch = dataset(config(tar, data__prompts=3))[0]
    assert batch["image"].shape == (BATCH, SIZE, SIZE, 3) and batch["image"].dtype == np.uint8
    assert batch["text"].shape == (BATCH, 4, LENGTH) and batch["text"].dtype == np.int32


def test_an_epoch_has_every_pair_once_and_the_next_another_order(tar):
    made = plain(tar)
    levels = np.concatenate([grey_levels(dataset(made)[n]["image"]) for n in range(5)])
    assert sorted(levels[:10]) == sorted(levels[10:]) == list(range(10))
    assert levels[:10].tolist() != levels[10:].tolist()


def test_another_seed_is_another_order(tar):
    assert not equal(dataset(config(tar))[0], dataset(config(tar), seed=1)[0])


def test_augmentation_of_a_pair_is_drawn_anew_each_epoch(tmp_path):
    made = config(write_pairs(tmp_path / "0.tar", ["a dog on the sand"], offset=5), data__prompts=0)
    crops = dataset(made)
    assert any(not np.array_equal(crops[0]["image"][0], crops[n]["image"][0]) for n in range(1, 4))
    assert equal(crops[2], crops[2])


def test_prompts_of_a_pair_are_drawn_anew_each_epoch(tmp_path):
    made = config(write_pairs(tmp_path / "0.tar", ["a dog, a cat, a bird and a kite"]), data__prompts=1)
    prompts = np.concatenate([dataset(made)[n]["text"][:, 1] for n in range(3)])
    assert len(np.unique(prompts, axis=0)) > 3


def test_captions_with_fewer_words_than_prompts_fill_up_with_themselves(tmp_path):
    made = config(write_pairs(tmp_path / "0.tar", ["zebra"]), data__prompts=3, data__templates=("a photo of a {}.",))
    expected = tokenizer.tokenize(["zebra", "a photo of a zebra.", "zebra", "zebra"], LENGTH)
    np.testing.assert_array_equal(dataset(made)[0]["text"][0], expected)


def draws(config, batches=30):
    """How often each of two sets is drawn: the second one's captions are longer."""
    counted = dataset(config)
    lengths = np.concatenate([(counted[n]["text"][:, 0] != 0).sum(axis=-1) for n in range(batches)])
    return np.array([(lengths <= 4).sum(), (lengths > 4).sum()])


def two_sets(folder):
    return (write_pairs(folder / "a.tar", ["dog", "cat"]),
            write_pairs(folder / "b.tar", [f"a photo of a {word}" for word in WORDS[:6]]))


def test_sets_are_mixed_by_their_weights(tmp_path):
    few, many = draws(plain(*two_sets(tmp_path), weights=[3.0, 1.0], data__prompts=0))
    assert abs(few - 90) <= 2 and few + many == 120


def test_sets_of_weight_zero_are_mixed_by_their_numbers_of_pairs(tmp_path):
    few, many = draws(plain(*two_sets(tmp_path), data__prompts=0))
    assert abs(few - 30) <= 2 and few + many == 120


def test_an_unknown_kind_of_source_is_an_input_error(tar):
    made = config(tar)
    made.data.train[0].source = "parquet"
    with pytest.raises(InputError, match="set0.*parquet.*tar"):
        pipeline.open_sources(made.data)
