import contextlib
import io
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from groupvit_jax.data import images
from groupvit_jax.data.bad import BadSample
from groupvit_jax.errors import InputError


def smooth(height, width):
    """A picture without sharp edges, so that JPEG and resizing keep it nearly as it is."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * y / height, 255 * x / width, 127 + 100 * np.sin(x / 30)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def encode(image, form="PNG", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer := io.BytesIO(), form, **options)
    return buffer.getvalue()


def test_decode_gives_the_pixels_of_a_png():
    picture = smooth(20, 30)
    assert np.array_equal(images.decode(encode(picture)), picture)


@pytest.mark.parametrize(
    "form, mode",
    [("JPEG", mode) for mode in ("L", "RGB", "CMYK")]
    + [("PNG", mode) for mode in ("L", "LA", "P", "RGBA")]
    + [("WEBP", "RGB"), ("WEBP", "RGBA"), ("GIF", "P")],
)
def test_decode_gives_rgb_for_every_colour_mode(form, mode):
    image = Image.new("RGB", (12, 8), (200, 100, 50))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    decoded = images.decode(encode(image, form))
    assert decoded.shape == (8, 12, 3) and decoded.dtype == np.uint8
    expected = (124, 124, 124) if mode in ("L", "LA") else (200, 100, 50)
    assert np.abs(decoded[4, 6] - np.array(expected)).max() <= 8


def test_decode_drops_alpha_and_ignores_the_exif_orientation():
    see_through = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert tuple(images.decode(encode(see_through))[0, 0]) == (10, 20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees to view
    assert images.decode(encode(smooth(20, 30), "JPEG", exif=exif)).shape == (20, 30, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_corrupt_bytes_are_an_input_error_of_one_line(form):
    data = encode(smooth(64, 64), form)
    for corrupt in (b"", b"not an image", data[: len(data) // 2], data[:20]):
        with pytest.raises(InputError, match="cannot decode an image") as caught:
            images.decode(corrupt)
        assert "\n" not in str(caught.value)


def test_flipped_bytes_never_raise_anything_but_an_input_error():
    rng = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "WEBP"):
        data = np.frombuffer(encode(smooth(40, 40), form), np.uint8)
        for _ in range(100):
            broken = data.copy()
            broken[rng.integers(len(data), size=5)] = rng.integers(256, size=5)
            with contextlib.suppress(InputError):
                images.decode(broken.tobytes())


def test_crop_boxes_lie_inside_and_keep_to_the_area_and_aspect():
    rng, (height, width) = np.random.default_rng(0), (400, 500)
    boxes = np.array([images.crop_box(height, width, rng) for _ in range(4000)])
    top, left, h, w = boxes.T
    assert top.min() == 0 and left.min() == 0
    assert (top + h).max() == height and (left + w).max() == width
    share, aspect = h * w / (height * width), w / h
    assert 0.079 < share.min() < 0.09 and share.max() > 0.95
    assert 0.74 < aspect.min() < 0.76 and 1.32 < aspect.max() < 1.345
    assert np.abs(np.log(aspect)).mean() == pytest.approx(math.log(4 / 3) / 2, rel=0.1)  # log-uniform
    # Half of the mass of a uniform share lies below 0.54; fewer large boxes fit.
    assert 0.5 < (share < 0.54).mean() < 0.65


@pytest.mark.parametrize(
    "sides, box", [((30, 300), (0, 130, 30, 40)), ((300, 30), (130, 0, 40, 30)), ((1, 100), (0, 49, 1, 1))]
)
def test_a_crop_that_never_fits_falls_back_to_the_centre(sides, box):
    assert images.crop_box(*sides, np.random.default_rng(0), area=(1, 1)) == box


def train(data, seed=0, **options):
    return images.train_transform(data, 32, np.random.default_rng(seed), **options)


def test_the_same_rng_gives_the_same_training_image_and_another_gives_another():
    data = encode(np.random.default_rng(5).integers(0, 256, (60, 80, 3), np.uint8))
    first, again, other = (train(data, seed) for seed in (3, 3, 4))
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_training_without_augmentation_keeps_an_image_of_the_right_size():
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    plain = train(encode(picture), crop_area=[1.0, 1.0], randaugment=0)
    assert np.array_equal(plain, picture)


def test_training_without_a_crop_squeezes_the_whole_image():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 40:] = 255
    plain = train(encode(picture), crop_area=(1, 1), randaugment=0)
    assert plain.shape == (32, 32, 3) and plain[:, :14].max() == 0 and plain[:, 18:].min() == 255


@pytest.mark.parametrize(
    "sides, expected",
    [
        ((375, 500), (448, 597)),
        ((500, 375), (597, 448)),
        ((333, 500), (448, 673)),
        ((100, 1000), (205, 2048)),  # more than 2048/448 times as long as high: the long side decides
        ((448, 448), (448, 448)),
        ((2000, 2000), (448, 448)),
        ((1, 10000), (1, 2048)),
    ],
)
def test_resize_shorter_gives_the_protocols_sides(sides, expected):
    image = np.zeros((*sides, 3), np.uint8)
    assert images.resize_shorter(image, 448, 2048).shape == (*expected, 3)


def test_resize_shorter_leaves_an_image_of_the_right_size_alone():
    image = smooth(48, 60)
    assert images.resize_shorter(image, 48, 100) is image


@pytest.mark.parametrize("sides", [(30, 44), (91, 71)])
def test_resize_shorter_is_bilinear_at_half_pixel_centres_without_antialiasing(sides):
    image = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    out = images.resize_shorter(image, 56, 2048)

    def weights(old, new):  # [new old]
        x = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        return np.maximum(0, 1 - np.abs(x[:, None] - np.arange(old)))

    rows, columns = (weights(old, new) for old, new in zip(image.shape, out.shape[:2], strict=False))
    exact = np.einsum("yh,hwc,xw->yxc", rows, image.astype(float), columns)
    assert np.abs(out - exact).max() <= 1.0
    assert np.abs(out - exact).mean() < 0.3  # rounded, not cut: cutting would give 0.5


def test_classification_takes_the_centre_of_the_resized_image():
    picture = smooth(512, 768)
    out = images.classification_transform(picture)
    assert out.shape == (224, 224, 3)
    # 256x384 after the resize; the crop starts at 16, 80: every second pixel from 32, 160 on.
    assert np.abs(out.astype(int) - picture[32:480:2, 160:608:2]).max() <= 2


def test_reading_images_does_not_import_jax():
    code = "import sys, groupvit_jax.data.images; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def photo(height, width, seed=0):
    """Noise whose strength falls with its frequency, as in photographs, and a little grain."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128.0)
    for octave in range(1, 8):
        coarse = Image.fromarray(rng.integers(0, 256, (2**octave, 2**octave, 3), np.uint8))
        layer = np.asarray(coarse.resize((width, height), Image.BICUBIC), float) - 128
        pixels += layer * 0.8 / 1.6**octave
    return np.clip(pixels + rng.normal(0, 3, (height, width, 1)), 0, 255).astype(np.uint8)


def drawn_box(seed, height, width):
    return images.crop_box(height, width, np.random.default_rng(seed))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_full_decoding_gives_pils_pixels(form):
    data = encode(photo(150, 200), form)
    for seed in range(10):
        top, left, h, w = drawn_box(seed, 150, 200)
        crop = Image.open(io.BytesIO(data)).convert("RGB").crop((left, top, left + w, top + h))
        expected = crop.resize((32, 32), Image.BILINEAR)
        assert np.array_equal(train(data, seed, randaugment=0, decode="full"), expected)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}])
def test_scaled_decoding_looks_the_same(options):
    data = encode(photo(301, 407), "JPEG", quality=90, **options)
    shrunk, kept = [], []
    for seed in range(60):
        scaled, full = (train(data, seed, randaugment=0, decode=way).astype(int) for way in ("scaled", "full"))
        smaller = min(drawn_box(seed, 301, 407)[2:]) >= 64
        (shrunk if smaller else kept).append(np.abs(scaled - full))
    assert len(shrunk) > 20
    assert max(wrong.mean() for wrong in shrunk) < 3 and np.mean(shrunk) < 2  # of 255; the grain is 3
    assert np.max(kept, initial=0) <= 1  # not shrunk: only rounded otherwise


def test_scaled_and_full_draw_the_same_and_only_jpeg_is_shrunk():
    picture = photo(301, 407)
    for data in (encode(picture, "JPEG"), encode(picture, "PNG")):
        states = []
        for way in ("scaled", "full"):
            rng = np.random.default_rng(3)
            images.train_transform(data, 32, rng, decode=way)
            states.append(rng.bit_generator.state)
        assert states[0] == states[1]
    png = encode(picture, "PNG")
    for seed in range(5):
        scaled, full = (train(png, seed, randaugment=0, decode=way).astype(int) for way in ("scaled", "full"))
        assert np.abs(scaled - full).max() <= 1


def test_a_jpeg_is_decoded_at_the_smallest_size_that_still_gives_the_crop_its_pixels(monkeypatch):
    asked = []
    opened = images.open_picture

    def record(data):
        picture = opened(data)
        return picture._replace(read=lambda shrink: asked.append(shrink) or picture.read(shrink))

    monkeypatch.setattr(images, "open_picture", record)
    data = encode(photo(600, 600), "JPEG")
    for seed in range(40):
        train(data, seed, randaugment=0)
        side = min(drawn_box(seed, 600, 600)[2:])
        assert asked.pop() == (8 if side >= 256 else 4 if side >= 128 else 2)
    train(data, crop_area=(1, 1))
    images.train_transform(data, 224, np.random.default_rng(0), crop_area=(1, 1))
    images.train_transform(data, 301, np.random.default_rng(0), crop_area=(1, 1))
    train(data, crop_area=(1, 1), decode="full")
    assert asked == [8, 2, 1, 1]


def test_the_crop_is_drawn_on_the_upright_picture():
    picture = photo(80, 160)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    stored = np.ascontiguousarray(np.rot90(picture, 1))
    for form, options in (("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0})):
        turned, upright = encode(stored, form, exif=exif, **options), encode(picture, form, **options)
        for seed in range(10):
            out = train(turned, seed, randaugment=0, decode="full").astype(int)
            assert np.abs(out - train(upright, seed, randaugment=0, decode="full")).mean() < 2


@pytest.mark.parametrize("decode", ["scaled", "full"])
def test_a_picture_of_thirty_thousand_pixels_is_used(decode):
    wide = encode(np.full((64, 30000, 3), (10, 100, 200), np.uint8), "JPEG")
    out = train(wide, randaugment=0, decode=decode)
    assert np.abs(out.astype(int) - (10, 100, 200)).max() <= 3


def test_unusable_pictures_are_bad_samples_of_their_kind():
    jpeg = encode(photo(64, 64), "JPEG")
    for data, kind in ((b"", "broken image"), (jpeg[:-300], "broken image"), (b"nonsense", "broken image"),
                       (encode(np.zeros((1, 1, 3), np.uint8)), "image too small")):
        with pytest.raises(BadSample) as caught:
            train(data)
        assert caught.value.kind == kind and str(caught.value).startswith(f"{kind}: ")
