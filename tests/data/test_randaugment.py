import numpy as np
import pytest
from PIL import Image

from groupvit_jax.data import randaugment as ra

# What timm 1.0's level functions give for rand-...-inc1 at magnitude 0, 9 and 10: the published recipe.
LEVELS = {
    "Rotate": (0, 27, 30),
    "Posterize": (4, 1, 0),
    "Solarize": (256, 26, 0),
    "SolarizeAdd": (0, 99, 110),
    "Color": (1, 1.81, 1.9),
    "Contrast": (1, 1.81, 1.9),
    "Brightness": (1, 1.81, 1.9),
    "Sharpness": (1, 1.81, 1.9),
    "ShearX": (0, 0.27, 0.3),
    "ShearY": (0, 0.27, 0.3),
    "TranslateX": (0, 0.405, 0.45),
    "TranslateY": (0, 0.405, 0.45),
}
ENHANCE = ("Color", "Contrast", "Brightness", "Sharpness")
WITHOUT_LEVEL = ("AutoContrast", "Equalize", "Invert")


@pytest.fixture
def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


def test_there_are_timms_fifteen_operations():
    assert len(ra.NAMES) == 15
    assert set(ra.NAMES) == {*LEVELS, *WITHOUT_LEVEL}
    assert all(ra.OPS[name][0] is None for name in WITHOUT_LEVEL)


@pytest.mark.parametrize("name", LEVELS)
def test_levels_at_magnitude_0_9_and_10_are_timms(name):
    level = ra.OPS[name][0]
    assert [level(m, 1) for m in (0, 9, 10)] == pytest.approx(LEVELS[name])


@pytest.mark.parametrize("name", LEVELS)
def test_the_sign_turns_the_geometric_levels_and_the_enhancements_around(name):
    positive, negative = (ra.OPS[name][0](9, sign) for sign in (1, -1))
    if name in ENHANCE:
        assert negative == pytest.approx(0.19) and ra.OPS[name][0](10, -1) == pytest.approx(0.1)
    elif name in ("Posterize", "Solarize", "SolarizeAdd"):
        assert negative == positive
    else:
        assert negative == -positive


@pytest.mark.parametrize("name", [name for name in LEVELS if name != "Posterize"])
def test_magnitude_0_changes_nothing(name, noise):
    assert np.array_equal(ra.apply(noise, name, 0), noise)


@pytest.mark.parametrize("name", ra.NAMES)
@pytest.mark.parametrize("sign", [1, -1])
def test_every_operation_keeps_the_size_and_changes_the_image_at_9(name, sign, noise):
    image = noise.point([v // 2 for v in range(256)] * 3)  # so that there is contrast to stretch
    out = ra.apply(image, name, 9.0, sign)
    assert out.size == image.size and out.mode == "RGB"
    assert not np.array_equal(out, image)


def test_operations_on_values_do_what_they_say():
    grey = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (2, 1, 3)))
    v = np.arange(256)
    expected = {
        "Invert": 255 - v,
        "Posterize": v & 128,  # one bit left
        "Solarize": np.where(v >= 26, 255 - v, v),
        "SolarizeAdd": np.where(v < 128, v + 99, v),
    }
    for name, values in expected.items():
        assert np.array_equal(np.asarray(ra.apply(grey, name, 9.0))[0, :, 0], values), name
    assert np.asarray(ra.apply(grey, "Posterize", 10.0)).max() == 0


@pytest.mark.parametrize("name, axis", [("TranslateX", 1), ("TranslateY", 0)])
def test_translation_moves_by_a_share_of_the_side_and_fills_with_the_mean(name, axis, noise):
    moved, image = (np.moveaxis(np.asarray(x), axis, 0) for x in (ra.apply(noise, name, 10.0), noise))
    shift = round(0.45 * len(image))
    assert np.array_equal(moved[: len(image) - shift - 1], image[shift:-1])
    assert (moved[len(image) - shift :] == (124, 116, 104)).all()


@pytest.mark.parametrize("name, corner", [("Rotate", (0, 0)), ("ShearX", (-1, -1)), ("ShearY", (-1, -1))])
def test_corners_from_outside_are_filled_with_the_imagenet_mean(name, corner):
    out = np.asarray(ra.apply(Image.new("RGB", (64, 64)), name, 9.0))
    assert tuple(out[corner]) == (124, 116, 104)
    assert tuple(out[32, 32]) == (0, 0, 0)


def record(monkeypatch, noise, draws, **options):
    """The operations (name, magnitude, sign) that `draws` images received."""
    calls = []
    monkeypatch.setattr(ra, "apply", lambda image, *call: calls.append(call) or image)
    rng = np.random.default_rng(0)
    for _ in range(draws):
        ra.randaugment(noise, rng, **options)
    return calls


def test_an_image_gets_on_average_one_operation_each_as_likely_as_the_next(monkeypatch, noise):
    calls = record(monkeypatch, noise, 6000)
    assert len(calls) / 6000 == pytest.approx(1.0, abs=0.04)  # two draws, each applied half of the time
    names, signs = [name for name, _, _ in calls], [sign for _, _, sign in calls]
    assert all(names.count(name) / len(names) == pytest.approx(1 / 15, abs=0.016) for name in ra.NAMES)
    assert np.mean(signs) == pytest.approx(0, abs=0.06)


def test_the_magnitude_is_normal_around_9_and_clipped_at_10(monkeypatch, noise):
    m = np.array([m for _, m, _ in record(monkeypatch, noise, 6000)])
    assert m.mean() == pytest.approx(9, abs=0.03) and m.std() == pytest.approx(0.5, abs=0.03)
    assert m.max() == 10 and (m == 10).mean() == pytest.approx(0.0228, abs=0.012)


def test_the_same_rng_gives_the_same_image_and_leaves_the_input_alone(noise):
    before = np.array(noise)
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        runs.append([np.asarray(ra.randaugment(noise, rng)) for _ in range(30)])
    assert np.array_equal(*runs)
    assert any(not np.array_equal(out, before) for out in runs[0])
    assert np.array_equal(noise, before)
