import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

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
NEARLY = {"Rotate": 1e-3}  # of its values at most this share differ from PIL's, by one level
ENHANCE = ("Color", "Contrast", "Brightness", "Sharpness")
WITHOUT_LEVEL = ("AutoContrast", "Equalize", "Invert")




def affine(picture, *matrix):
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(124, 116, 104)
    )


# The operations as PIL has them; timm calls these.
PIL = {
    "AutoContrast": lambda p, _: ImageOps.autocontrast(p),
    "Equalize": lambda p, _: ImageOps.equalize(p),
    "Invert": lambda p, _: ImageOps.invert(p),
    "Rotate": lambda p, level: p.rotate(level, Image.Resampling.BILINEAR, fillcolor=(124, 116, 104)),
    "Posterize": lambda p, level: ImageOps.posterize(p, level) if level else p.point(lambda _: 0),
    "Solarize": ImageOps.solarize,
    "SolarizeAdd": lambda p, level: p.point([v + level if v < 128 else v for v in range(256)] * 3),
    "Color": lambda p, level: ImageEnhance.Color(p).enhance(level),
    "Contrast": lambda p, level: ImageEnhance.Contrast(p).enhance(level),
    "Brightness": lambda p, level: ImageEnhance.Brightness(p).enhance(level),
    "Sharpness": lambda p, level: ImageEnhance.Sharpness(p).enhance(level),
    "ShearX": lambda p, level: affine(p, 1, level, 0, 0, 1, 0),
    "ShearY": lambda p, level: affine(p, 1, 0, 0, level, 1, 0),
    "TranslateX": lambda p, level: affine(p, 1, 0, level * p.width, 0, 1, 0),
    "TranslateY": lambda p, level: affine(p, 1, 0, 0, 0, 1, level * p.height),
}


def pictures():
    """Pixels of every kind: all values, few values, one value in a channel, a narrow range, very small."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (40, 60, 3), np.uint8)
    smooth = np.stack([np.add.outer(np.arange(40), np.arange(60) * k) % 256 for k in (1, 3, 4)], -1).astype(np.uint8)
    flat = noise // 4 + 90
    flat[..., 1] = 77
    return [noise, smooth, flat, noise // 128 * 200, rng.integers(0, 256, (1, 5, 3), np.uint8),
            rng.integers(0, 256, (16, 17, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)]


def close(out, expected, share):
    """At most `share` of the values differ, by at most one level."""
    apart = np.abs(out.astype(int) - expected)
    return apart.max() <= 1 and (apart > 0).mean() <= share


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


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


@pytest.mark.parametrize("name", ra.NAMES)
@pytest.mark.parametrize("magnitude", [0, 0.5, 3, 6.7, 9, 9.43, 10])
def test_every_operation_gives_pils_pixels_at_every_magnitude_and_sign(name, magnitude):
    level = ra.OPS[name][0]
    for sign in (1, -1):
        argument = level(magnitude, sign) if level else None
        for image in pictures():
            before = image.copy()
            out = ra.apply(image, name, magnitude, sign)
            assert out.dtype == np.uint8
            expected = np.asarray(PIL[name](Image.fromarray(image), argument))
            assert close(out, expected, NEARLY.get(name, 0)), (sign, image.shape)
            assert np.array_equal(image, before)


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY"])
@pytest.mark.parametrize("magnitude", [0, 0.1, 1, 5, 8, 9, 9.2137, 10])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_moves_pixels_gives_pils_at_the_size_of_training_and_on_narrow_pictures(name, magnitude, sign):
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, (224, 224, 3), np.uint8)
    slope = np.add.outer(np.arange(224), 3 * np.arange(224))[..., None] // np.array([4, 5, 7]) % 256
    blocks = noise[:28, :28].repeat(8, 0).repeat(8, 1)
    narrow = [rng.integers(0, 256, size, np.uint8) for size in ((200, 6, 3), (6, 200, 3), (224, 160, 3), (1, 1, 3))]
    for image in [noise, noise // 128 * 200, slope.astype(np.uint8), blocks, *narrow]:
        argument = ra.OPS[name][0](magnitude, sign)
        expected = np.asarray(PIL[name](Image.fromarray(image), argument))
        assert close(ra.apply(image, name, magnitude, sign), expected, NEARLY.get(name, 0)), image.shape
        black = np.zeros_like(image)  # the border between image and fill is PIL's to the pixel
        assert np.array_equal(ra.apply(black, name, magnitude, sign), PIL[name](Image.fromarray(black), argument))


@pytest.mark.parametrize("name", [name for name in LEVELS if name != "Posterize"])
def test_magnitude_0_changes_nothing(name, noise):
    assert np.array_equal(ra.apply(noise, name, 0), noise)


@pytest.mark.parametrize("name", ra.NAMES)
@pytest.mark.parametrize("sign", [1, -1])
def test_every_operation_keeps_the_size_and_changes_the_image_at_9(name, sign, noise):
    image = noise // 2  # so that there is contrast to stretch
    out = ra.apply(image, name, 9.0, sign)
    assert out.shape == image.shape and out.dtype == np.uint8
    assert not np.array_equal(out, image)


def test_operations_on_values_do_what_they_say():
    grey = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (2, 1, 3))
    v = np.arange(256)
    expected = {
        "Invert": 255 - v,
        "Posterize": v & 128,  # one bit left
        "Solarize": np.where(v >= 26, 255 - v, v),
        "SolarizeAdd": np.where(v < 128, v + 99, v),
    }
    for name, values in expected.items():
        assert np.array_equal(ra.apply(grey, name, 9.0)[0, :, 0], values), name
    assert ra.apply(grey, "Posterize", 10.0).max() == 0


@pytest.mark.parametrize("name, axis", [("TranslateX", 1), ("TranslateY", 0)])
def test_translation_moves_by_a_share_of_the_side_and_fills_with_the_mean(name, axis, noise):
    moved, image = (np.moveaxis(x, axis, 0) for x in (ra.apply(noise, name, 10.0), noise))
    shift = round(0.45 * len(image))
    assert np.array_equal(moved[: len(image) - shift - 1], image[shift:-1])
    assert (moved[len(image) - shift :] == (124, 116, 104)).all()


@pytest.mark.parametrize("name, corner", [("Rotate", (0, 0)), ("ShearX", (-1, -1)), ("ShearY", (-1, -1))])
def test_corners_from_outside_are_filled_with_the_imagenet_mean(name, corner):
    out = ra.apply(np.zeros((64, 64, 3), np.uint8), name, 9.0)
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
    before = noise.copy()
    runs = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        runs.append([ra.randaugment(noise, rng) for _ in range(30)])
    assert np.array_equal(*runs)
    assert any(not np.array_equal(out, before) for out in runs[0])
    assert np.array_equal(noise, before)
