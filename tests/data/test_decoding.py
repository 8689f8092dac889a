import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import simplejpeg
import threads
from PIL import Image, ImageFile, TiffImagePlugin

from groupvit_jax.data.bad import BadSample
from groupvit_jax.data.decoding import MAX_PIXELS, bad_samples, open_picture

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest sets aside the filter that decoding.py sets


def scene(height, width, seed=0):
    """Smooth noise with some grain, as photographs have; no symmetry, so that every turn shows."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8)).resize((width, height), Image.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 4, (height, width, 1)), 0, 255).astype(np.uint8)


def encode(image, form="JPEG", **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer := io.BytesIO(), form, **options)
    return buffer.getvalue()


def read(data, shrink=1):
    with bad_samples(data):
        picture = open_picture(data)
        pixels = picture.read(shrink)
    if shrink == 1:
        assert pixels.shape == (picture.height, picture.width, 3) and pixels.dtype == np.uint8
    return pixels


def refused(data):
    with pytest.raises(BadSample) as caught:
        read(data)
    assert "\n" not in str(caught.value) and "object at" not in str(caught.value)
    return caught.value.kind


def pil(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def png(height, width, depth, colour, rows):
    """A PNG of any bit depth: PIL writes no 16-bit colour."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30},
                                     {"optimize": True}, {"keep_rgb": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_has_pils_pixels_at_full_size(mode, options):
    data = encode(Image.fromarray(scene(67, 85)).convert(mode), **options)
    assert np.array_equal(read(data), pil(data))


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_shrunk_jpeg_has_rounded_up_sides_and_the_means_of_its_blocks(shrink):
    image = scene(101, 150)
    small = read(encode(image, quality=95, subsampling=0), shrink)
    assert small.shape == (-(-101 // shrink), -(-150 // shrink), 3)
    h, w = 101 // shrink, 150 // shrink
    means = image[: h * shrink, : w * shrink].reshape(h, shrink, w, shrink, 3).mean((1, 3))
    assert np.abs(small[:h, :w] - means).mean() < 2


def test_exif_orientation_stands_every_picture_upright():
    upright = scene(24, 40)
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
              6: np.rot90(upright, 1), 7: upright[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(upright, -1)}
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for form in ("PNG", "JPEG", "TIFF", "WEBP"):
            options = {"PNG": {}, "JPEG": {"quality": 95, "subsampling": 0}, "TIFF": {}, "WEBP": {"lossless": True}}
            data = encode(np.ascontiguousarray(pixels), form, exif=exif, **options[form])
            out = read(data)
            assert out.shape == upright.shape, (orientation, form)
            assert np.abs(out.astype(int) - upright).mean() < 3, (orientation, form)


def test_orientation_in_xmp_counts_and_corrupt_exif_does_not():
    upright = scene(24, 40)
    stored = np.ascontiguousarray(np.rot90(upright, 1))
    assert read(encode(stored, xmp=b'<x:xmpmeta tiff:Orientation="6"/>')).shape == upright.shape
    assert read(encode(stored, exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")).shape == stored.shape


@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_becomes_rgb_and_adobes_inversion_is_undone(progressive):
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(read(encode(red, progressive=progressive)) - np.array([255, 0, 0])).max() <= 3  # PIL writes Adobe's


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(form):
    values = np.tile(np.array([0, 255, 256, 32768, 65535], np.uint16), (8, 2))
    out = read(encode(Image.fromarray(values), form))
    assert out[0, :5].tolist() == [[v] * 3 for v in (0, 0, 1, 128, 255)]


def test_16_bit_colour_and_grey_with_alpha_are_scaled():
    values = np.tile(np.array([[0, 256, 65535]] * 8, ">u2"), (8, 1, 1))
    assert read(png(8, 8, 16, 2, [row.tobytes() for row in values]))[3, 3].tolist() == [0, 1, 255]
    grey = np.tile(np.array([[32768, 40000]] * 8, ">u2"), (8, 1, 1))
    assert read(png(8, 8, 16, 4, [row.tobytes() for row in grey]))[3, 3].tolist() == [128] * 3


def test_16_bit_pgm_is_scaled():
    values = np.full((8, 8), 32768, ">u2")
    assert read(b"P5 8 8 65535\n" + values.tobytes())[0, 0].tolist() == [128] * 3


def test_palettes_grey_and_alpha_become_rgb_as_pil_converts_them():
    image = Image.fromarray(scene(20, 30))
    see_through = image.convert("RGBA")
    see_through.putalpha(Image.new("L", image.size, 7))
    palette = image.quantize(16)
    for picture, options in ((image.convert("L"), {}), (image.convert("LA"), {}), (image.convert("1"), {}),
                             (palette, {}), (palette, {"transparency": bytes(range(16))}), (see_through, {})):
        data = encode(picture, "PNG", **options)
        assert np.array_equal(read(data), pil(data)), (picture.mode, options)
    assert np.array_equal(read(encode(see_through, "PNG")), image)


@pytest.mark.parametrize("form, options", [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_of_an_animation_the_first_frame_counts(form, options):
    frames = [Image.new("RGB", (16, 12), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert np.abs(read(data).astype(int) - np.array([200, 0, 0])).max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_empty_cut_and_foreign_bytes_are_broken(form):
    data = encode(scene(64, 64), form)
    for damaged in (b"", b"\0" * 1000, b"not an image", b"<html>404</html>", data[:20], data[: len(data) // 2],
                    data[: -len(data) // 4]):
        assert refused(damaged) == "broken image"


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_short_is_never_half_grey(mode, progressive):
    data = encode(Image.fromarray(scene(128, 128)).convert(mode), quality=90, progressive=progressive)
    for kept in (0.3, 0.6, 0.9, 0.99):
        cut = data[: int(kept * len(data))]
        assert refused(cut) == "broken image"
        if not progressive:
            assert refused(cut + b"\xff\xd9") == "broken image"  # closed again by whoever stored it: PIL is content
    assert refused(data[:-2]) == "broken image"


def test_truncated_pictures_are_broken_whatever_another_library_told_pil(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for form in ("JPEG", "PNG"):
        data = encode(scene(64, 64), form)
        assert refused(data[: len(data) // 2]) == "broken image"


def test_stray_bytes_around_a_whole_jpeg_are_harmless():
    image = scene(40, 56)
    data = encode(image)
    at = data.index(b"\xff\xdb")
    for odd in (data + b"\0" * 100, data + b"\xff\xd8 another", data[:at] + b"xyz" + data[at:]):
        assert np.array_equal(read(odd), pil(data))
        assert read(odd, 2).shape == (20, 28, 3)


def test_flipped_bytes_raise_nothing_but_a_bad_sample():
    rng = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        data = np.frombuffer(encode(scene(40, 40), form), np.uint8)
        for _ in range(100):
            broken = data.copy()
            broken[rng.integers(len(data), size=5)] = rng.integers(256, size=5)
            try:
                first = read(broken.tobytes())
            except BadSample as error:
                assert refused(broken.tobytes()) == error.kind
            else:
                assert np.array_equal(first, read(broken.tobytes()))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize("sides", [(1, 1), (7, 500), (500, 7)])
def test_tracking_pixels_and_spacers_are_too_small(form, sides):
    assert refused(encode(np.zeros((*sides, 3), np.uint8), form)) == "image too small"
    assert read(encode(np.zeros((8, 9, 3), np.uint8), form)).shape == (8, 9, 3)


def test_a_header_of_too_many_pixels_is_refused_before_anything_is_decoded():
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS
    for width in (9500, 20000, 60000):  # above PIL's warning, above its error, and far above
        jpeg = bytearray(encode(scene(16, 16)))
        at = jpeg.index(b"\xff\xc0")
        jpeg[at + 5 : at + 9] = struct.pack(">HH", 9500, width)
        assert refused(bytes(jpeg)) == "image too large"
        assert refused(png(9500, width, 8, 2, [])) == "image too large"


def test_thirty_thousand_pixels_of_width_are_decoded_and_cheaply_when_shrunk():
    data = simplejpeg.encode_jpeg(np.full((64, 30000, 3), 90, np.uint8))
    assert read(data).shape == (64, 30000, 3)
    assert read(data, 8).shape == (8, 3750, 3)


def test_formats_that_pil_hands_to_other_programs_are_not_read():
    assert refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n") == "broken image"


def test_reading_odd_files_prints_nothing(tmp_path):
    image = Image.fromarray(scene(20, 30))
    (tmp_path / "palette").write_bytes(encode(image.quantize(16), "PNG", transparency=bytes(range(16))))
    (tmp_path / "bomb").write_bytes(png(9500, 9501, 8, 2, []))
    (tmp_path / "exif").write_bytes(encode(image, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff nonsense"))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[65000] = "unknown"
    (tmp_path / "tiff").write_bytes(encode(image, "TIFF", tiffinfo=tags, compression="tiff_lzw")[:-40])
    code = (
        "import pathlib, sys\nfrom groupvit_jax.data.decoding import *\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        with bad_samples(b''): open_picture(path.read_bytes()).read(1)\n"
        "    except BadSample: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_threads_decode_the_same_pixels():
    kinds = [encode(scene(60, 80, i), form) for i, form in enumerate(("JPEG", "PNG", "WEBP", "JPEG"))]
    expected = [read(data) for data in kinds]
    wrong = []

    def work():
        for _ in range(20):
            wrong.extend(i for i, data in enumerate(kinds) if not np.array_equal(read(data), expected[i]))

    threads.at_once(work, 4)
    assert not wrong
