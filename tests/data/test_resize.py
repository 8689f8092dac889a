import numpy as np
import pytest
from PIL import Image

from groupvit_jax.data.resize import LARGE, resize


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pil(image, size, box):
    """PIL's, the height first."""
    top, left, h, w = box
    picture = Image.fromarray(image)
    picture = picture.resize((image.shape[1], size), Image.BILINEAR, (0, top, image.shape[1], top + h))
    return np.asarray(picture.resize((size, size), Image.BILINEAR, (left, 0, left + w, size)))


@pytest.mark.parametrize("sides", [(300, 400), (64, 64), (40, 90), (200, 20), (8, 8), (500, 501), (1, 3)])
@pytest.mark.parametrize("size", [64, 32])
def test_pixels_are_pils_but_for_rare_roundings(sides, size):
    for seed, part in enumerate([(0, 0, 1, 1), (0.1, 0.2, 0.6, 0.7)]):
        image = noise(*sides, seed)
        box = tuple(np.floor(8 * share * side) / 8 for share, side in zip(part, sides * 2))
        box = (*box[:2], max(box[2], 1), max(box[3], 1))
        out = resize(image, size, box).astype(int)
        assert out.shape == (size, size, 3)
        wrong = np.abs(out - pil(image, size, box))
        assert wrong.max() <= 1 and np.mean(wrong) < 0.01
        top, left, h, w = box
        once = Image.fromarray(image).resize((size, size), Image.BILINEAR, (left, top, left + w, top + h))
        assert np.abs(out - np.asarray(once)).max() <= 1


@pytest.mark.parametrize("value", [0, 1, 127, 255])
@pytest.mark.parametrize("side", [33, 100, 333, 767])
def test_a_flat_colour_stays_as_it_is(value, side):
    assert (resize(np.full((side, side, 3), value, np.uint8), 48) == value).all()


def test_an_image_of_the_right_size_stays_as_it_is():
    image = noise(48, 48)
    assert np.array_equal(resize(image, 48), image)


def test_shrinking_is_antialiased():
    checks = np.indices((256, 256)).sum(0) % 2 * 255
    small = resize(np.repeat(checks[..., None], 3, axis=-1).astype(np.uint8), 32)
    assert np.abs(small[4:-4, 4:-4].astype(int) - 127).max() <= 8


def test_views_in_any_direction_are_resized_as_their_copies():
    image = noise(90, 120)
    for view in (image[::-1], image[:, ::-1], image.swapaxes(0, 1), np.rot90(image), image[3:80, 7:100]):
        assert np.array_equal(resize(view, 32), resize(view.copy(), 32))


def test_large_images_are_pils():
    image = noise(1100, 1000)
    assert image.shape[0] * image.shape[1] > LARGE
    assert np.array_equal(resize(image, 32), Image.fromarray(image).resize((32, 32), Image.BILINEAR))
