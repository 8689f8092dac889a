import itertools

import numpy as np
import pytest

from groupvit_jax.palette import BACKGROUND, SIDE_BY_SIDE, apart, colours, palette_of, side_by_side

# Machado, Oliveira and Fernandes (2009), table 1, severity 1.0.
EYES = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def closest(rgb, eye):
    """The smallest CIE76 distance between two of the colours [n 3] as the eye sees them, written out by the standard
    (sRGB: IEC 61966-2-1; CIELAB under D65: ISO/CIE 11664-4)."""
    rgb = np.asarray(rgb) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(EYES[eye]), 0, 1)
    xyz = linear @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    t = xyz / [0.9505, 1.0, 1.089]
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29).T
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2))


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("n, distance", [(5, 28), (8, 22), (12, 18), (16, 16), (20, 14), (24, 12)])
def test_the_first_colours_are_apart_for_every_eye(eye, n, distance):
    # For comparison: the seven colours of Okabe and Ito are 16 apart, of which a just noticeable difference is 2.3.
    assert closest(np.concatenate([colours(n), [BACKGROUND]]), eye) >= distance


def test_colours_begin_alike_are_all_different_and_repeat_after_what_a_png_holds():
    many = colours(600)
    assert many.dtype == np.uint8 and many.shape == (600, 3) and colours(0).shape == (0, 3)
    np.testing.assert_array_equal(colours(9), many[:9])
    assert len(np.unique(np.concatenate([many[:255], [BACKGROUND]]), axis=0)) == 256
    np.testing.assert_array_equal(many[255:510], many[:255])


def test_a_background_is_grey_and_moves_no_colour():
    with_it, without = palette_of(["background", "cat", "sofa"]), palette_of(["cat", "sofa"])
    assert tuple(with_it[0]) == BACKGROUND
    np.testing.assert_array_equal(with_it[1:], without)


@pytest.mark.parametrize("eye", EYES)
def test_the_classes_of_a_picture_are_apart_wherever_they_stand_in_a_long_list(eye):
    palette, occur = colours(10_000), [9424, 150, 151, 152, 405, 406, 660, 7, 262, 5107]
    assert closest(palette[occur], eye) == 0 and closest(apart(palette, occur)[occur], eye) >= 12
    np.testing.assert_array_equal(apart(palette, occur)[9424], palette[9424])  # the most important keeps its own


def test_the_colours_of_a_short_list_never_change():
    np.testing.assert_array_equal(apart(colours(24), range(23, -1, -1)), colours(24))


def test_regions_that_touch_have_different_colours():
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, 60, (200, 2))
    index = ((np.indices((60, 60))[..., None] - seeds.T[:, None, None]) ** 2).sum(axis=0).argmin(axis=-1)
    index = np.unique(index, return_inverse=True)[1].reshape(60, 60)
    chosen = side_by_side(index)
    picture = chosen[index].astype(int)
    for a, b, c, d in ((picture[1:], picture[:-1], index[1:], index[:-1]),
                       (picture[:, 1:], picture[:, :-1], index[:, 1:], index[:, :-1])):
        assert (a != b).any(axis=-1)[c != d].all()
    assert 1 < len(np.unique(chosen, axis=0)) <= SIDE_BY_SIDE
    assert side_by_side(np.zeros((1, 1), int)).shape == (1, 3)
