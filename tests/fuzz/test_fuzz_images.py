"""Whatever a picture's file holds: pixels, or one line; training counts it as a bad sample. Memory stays bounded."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from mutations import case, damaged, within
from PIL import Image

from groupvit_jax.cli import own_images
from groupvit_jax.data import decoding, images, segmentation_sets
from groupvit_jax.data.bad import BadSample
from groupvit_jax.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS).resize((48, 40))
HUGE = [(65500, 65500), (60000, 3000), (2**31 - 1, 2**31 - 1), (0, 0), (0, 10), (1, 65500), (65500, 9)]  # width, height


def encoded(image, form, **how) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **how)
    return file.getvalue()


def seeds() -> dict[str, bytes]:
    exif, turned = Image.Exif(), PICTURE.transpose(Image.Transpose.ROTATE_90)
    exif[0x0112] = 6
    depths = np.arange(1600).reshape(40, 40)
    grey, palette, cmyk, alpha = (PICTURE.convert(mode) for mode in ("L", "P", "CMYK", "RGBA"))
    return {
        "jpeg": encoded(PICTURE, "JPEG"), "progressive": encoded(PICTURE, "JPEG", progressive=True),
        "grey": encoded(grey, "JPEG"), "cmyk": encoded(cmyk, "JPEG"), "turned": encoded(PICTURE, "JPEG", exif=exif),
        "several": encoded(PICTURE, "MPO", save_all=True, append_images=[turned]),
        "png": encoded(PICTURE, "PNG"), "turned png": encoded(PICTURE, "PNG", exif=exif),
        "16 bits": encoded(Image.fromarray((depths * 40).astype(np.uint16)), "PNG"), "alpha": encoded(alpha, "PNG"),
        "palette": encoded(palette, "PNG", transparency=3), "1 bit": encoded(grey.convert("1"), "PNG"),
        "animated png": encoded(PICTURE, "PNG", save_all=True, append_images=[turned]),
        "webp": encoded(PICTURE, "WEBP"), "lossless": encoded(PICTURE, "WEBP", lossless=True),
        "animated webp": encoded(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(90)]),
        "gif": encoded(palette, "GIF"), "tiff": encoded(PICTURE, "TIFF"),
        "floats": encoded(Image.fromarray(depths.astype(np.float32)), "TIFF"),
        "32 bits": encoded(Image.fromarray(depths.astype(np.int32) * 10**6), "TIFF"),
        "bmp": encoded(PICTURE, "BMP"), "jpeg 2000": encoded(PICTURE, "JPEG2000"), "ppm": encoded(PICTURE, "PPM"),
        "a pixel": encoded(PICTURE.resize((1, 1)), "PNG"), "a line": encoded(PICTURE.resize((1, 60000)), "PNG"),
        "nothing": b"", "text": b"a zebra", "zeros": bytes(1000), "svg": b"<svg/>", "start": b"\xff\xd8",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }  # fmt: skip


def mended(png: bytes) -> bytes:
    """A PNG's checksums made right, so that what lies behind them is reached."""
    out, at = bytearray(png[:8]), 8
    while at + 12 <= len(png) and (end := at + 8 + int.from_bytes(png[at : at + 4])) + 4 <= len(png):
        out += png[at:end] + struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4
    return bytes(out + png[at:])


def look(data: bytes, path: str) -> dict[str, bool]:
    """Every way that a picture is read -> whether it was; fails on what is neither pixels nor a refusal in a line."""
    with open(path, "wb") as file:
        file.write(data)
    read = {}
    for way in ("scaled", "full"):
        try:
            pixels = images.train_transform(data, 16, np.random.default_rng(0), decode=way)
            assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
            read[way] = True
        except BadSample as error:
            assert "\n" not in str(error)
            read[way] = False
    ways = {"own": lambda: np.asarray(own_images.read(path)), "decode": lambda: images.decode(data)}
    for way, how in ways.items():
        try:
            pixels = how()
            assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
            read[way] = True
        except InputError as error:
            assert " (): " not in str(error)  # it says why
            read[way] = False
    try:
        assert segmentation_sets.read_mask(io.BytesIO(data), "m").ndim == 2
    except InputError:
        pass
    return read


def damaged_pictures(path: str) -> None:
    kept = seeds()
    for seed in range(1500):
        rng = random.Random(seed)
        name = rng.choice(list(kept))
        data = damaged(kept[name], rng)
        data = mended(data) if data.startswith(b"\x89PNG") and rng.random() < 0.8 else data
        with case(seed, (name, data)):
            look(data, path)


def bombs() -> dict[str, bytes]:
    """Small files whose headers claim to be large."""
    found = {}
    for width, height in HUGE:
        png = bytearray(encoded(PICTURE, "PNG"))
        png[16:24] = struct.pack(">II", width, height)
        found[f"png {width}x{height}"] = mended(bytes(png))
        found[f"ppm {width}x{height}"] = b"P6\n%d %d\n255\n" % (width, height) + bytes(99)
        if width < 2**16:
            for start, how in ((b"\xff\xc0", {}), (b"\xff\xc2", {"progressive": True})):
                jpeg = bytearray(encoded(PICTURE, "JPEG", **how))
                at = jpeg.find(start) + 5
                jpeg[at : at + 4] = struct.pack(">HH", height, width)
                found[f"jpeg {width}x{height} {how}"] = bytes(jpeg)
            gif = bytearray(encoded(PICTURE.convert("P"), "GIF"))
            gif[6:10] = struct.pack("<HH", width, height)
            found[f"gif {width}x{height}"] = bytes(gif)
    webp = bytearray(encoded(PICTURE, "WEBP"))
    at = webp.find(b"\x9d\x01\x2a") + 3
    webp[at : at + 4] = struct.pack("<HH", 0x3FFF, 0x3FFF)
    return found | {"webp": bytes(webp)}


def large_claims(path: str) -> None:
    for name, data in bombs().items():
        with case(name, data):
            read = look(data, path)
            try:
                stored = decoding.stored_rgb(io.BytesIO(data)).shape
            except Exception as error:  # as evaluation does, which says it in a line
                assert not isinstance(error, MemoryError), name
                stored = None
            if "65500x65500" in name:
                assert not any(read.values()) and stored is None


def test_damaged_pictures_are_pixels_or_one_line_in_bounded_memory(tmp_path):
    within(500, "test_fuzz_images", "damaged_pictures", tmp_path / "x.jpg")


def test_headers_that_claim_much_take_little_memory(tmp_path):
    within(1000, "test_fuzz_images", "large_claims", tmp_path / "x.jpg")


@pytest.mark.parametrize("name", [name for name in seeds() if name not in (
    "nothing", "text", "zeros", "svg", "start", "eps", "a pixel", "a line")])
def test_odd_but_whole_pictures_are_read_in_every_way(name, tmp_path):
    assert all(look(seeds()[name], str(tmp_path / "named.jpg")).values())


def test_nothing_hands_postscript_to_ghostscript(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *what, **more: started.append(what))
    assert not any(look(seeds()["eps"], str(tmp_path / "photo.jpg")).values())
    with pytest.raises(OSError):
        decoding.stored_rgb(io.BytesIO(seeds()["eps"]))
    assert not started


def test_evaluation_reads_no_jpeg_of_which_a_part_is_grey():
    data = encoded(PICTURE.resize((480, 400)), "JPEG")
    with pytest.raises(ValueError):
        decoding.stored_rgb(io.BytesIO(data[: len(data) // 2] + b"\xff\xd9"))
