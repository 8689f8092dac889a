from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from groupvit_jax import parallel
from groupvit_jax.data.images import MEAN, STD
from groupvit_jax.training.augment import augment, erase_mask, normalize


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def erase_masks(keys, *how):
    return jax.vmap(lambda key: erase_mask(key, *how))(keys)


@pytest.fixture(scope="module")
def masks():
    """4000 draws of the erased pixels, erasing always: bool [4000 64 96]."""
    return np.asarray(jax.jit(lambda keys: erase_masks(keys, 64, 96, 1.0))(keys(4000)))


@pytest.fixture
def batch():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 24, 3), np.uint8)


def sides(masks):
    """Height and width of each mask's bounding box; the mask must not be empty."""
    return masks.any(axis=2).sum(axis=1), masks.any(axis=1).sum(axis=1)


def test_normalising_is_imagenets(batch):
    out = normalize(batch)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, (batch / 255 - np.array(MEAN)) / np.array(STD), atol=1e-5)


def test_augment_without_flip_and_erase_is_normalise_and_costs_no_more(batch):
    plain = partial(augment, flip=0, erase=0)
    np.testing.assert_array_equal(plain(keys(8), batch), normalize(batch))

    def flops(f):
        return jax.jit(f).lower(keys(8), batch).compile().cost_analysis()["flops"]

    assert flops(plain) == flops(lambda keys, images: normalize(images)) < flops(augment)


def test_flipping_mirrors_about_half_of_the_images_left_to_right():
    batch = np.random.default_rng(0).integers(0, 256, (1000, 4, 6, 3), np.uint8)
    out = np.asarray(augment(keys(1000), batch, erase=0))
    same = (out == normalize(batch)).all(axis=(1, 2, 3))
    mirrored = (out == normalize(batch[:, :, ::-1])).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert mirrored.mean() == pytest.approx(0.5, abs=0.06)


def test_flip_1_mirrors_every_image(batch):
    out = augment(keys(8), batch, flip=1.0, erase=0)
    np.testing.assert_array_equal(out, normalize(batch[:, :, ::-1]))


def test_a_quarter_of_the_images_is_erased():
    erased = erase_masks(keys(4000), 32, 32, 0.25).any(axis=(1, 2))
    assert erased.mean() == pytest.approx(0.25, abs=0.03)


def test_what_is_erased_is_one_rectangle(masks):
    h, w = sides(masks)
    np.testing.assert_array_equal(masks.sum(axis=(1, 2)), h * w)
    rows, columns = masks.any(axis=2), masks.any(axis=1)
    for line in (rows, columns):  # no gap
        assert (np.abs(np.diff(line, axis=1, prepend=0, append=0)).sum(axis=1) == 2).all()


def test_the_erased_area_is_uniform_from_2_to_33_percent(masks):
    share = masks.mean(axis=(1, 2))
    assert 0.018 < share.min() < 0.03 and 0.32 < share.max() < 0.345
    assert share.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)


def test_the_erased_aspect_lies_within_its_limits_on_both_sides(masks):
    h, w = sides(masks)
    assert (h < 64).all() and (w < 96).all()
    assert 0.27 < (h / w).min() < 0.4 and 2.5 < (h / w).max() < 3.7
    assert np.median(h / w) == pytest.approx(0.95, abs=0.12)  # tall rectangles are the ones that do not fit


def test_every_pixel_can_be_erased(masks):
    share = masks.mean(axis=0)
    assert share[0, 0] > 0 and share[-1, -1] > 0 and share[0, -1] > 0 and share[-1, 0] > 0
    assert share[32, 48] > share[0, 0]


def test_an_image_too_small_for_any_rectangle_stays_whole():
    assert not erase_masks(keys(50), 1, 1, 1.0).any()


def test_erased_pixels_are_standard_normal_noise_and_the_others_stay():
    batch = np.full((200, 32, 32, 3), 255, np.uint8)
    white = np.asarray(normalize(batch))
    out = np.asarray(augment(keys(200), batch, flip=0, erase=1.0))
    noise = out[(out != white).all(axis=-1)]  # [pixels 3]
    assert 0.12 < noise.shape[0] / (200 * 32 * 32) < 0.22
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(1, abs=0.02)
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.03  # each channel of its own
    assert ((out == white).all(axis=-1) | (out != white).all(axis=-1)).all()


def test_an_image_is_augmented_by_its_key_whatever_else_is_in_the_batch(batch):
    run = jax.jit(augment)
    first = run(keys(8, 1), batch)
    np.testing.assert_array_equal(first[2:4], run(keys(8, 1)[2:4], batch[2:4]))
    assert (first != run(keys(8, 2), batch)).any(axis=(1, 2, 3)).sum() > 2


def test_sharding_the_batch_changes_nothing(batch):
    spread = parallel.to_global(tiny.mesh(8, 1, 1), {"image": batch})["image"]
    run = jax.jit(augment)
    np.testing.assert_array_equal(run(keys(8, 3), batch), run(keys(8, 3), spread))
