"""Decoding whatever the web holds: what can be repaired is, the rest is a BadSample.

JPEG, nearly all of it, is decoded by simplejpeg: libjpeg-turbo, as in PIL, with the same pixels in less time, and it
tells a damaged file from a whole one, which PIL does not always. All else is PIL's.
"""

import contextlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError

from groupvit_jax.data.bad import BadSample

MAX_PIXELS = 89_478_485  # above it PIL warns of a decompression bomb: 256 MB as RGB; it refuses twice as many
MIN_SIDE = 8  # below it, tracking pixels and spacers

# What is read. PIL knows more, but hands EPS to Ghostscript, and nothing from the web should run a program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
_SHRINKS = (8, 4, 2)  # libjpeg-turbo also decodes to 3/8, 5/8, 6/8 and 7/8, but without SIMD: slower than in full
_CORRUPT = ("remature end", "Huffman", "arithmetic")  # libjpeg's warnings that leave a part of the picture grey

# EXIF orientation -> the upright view of the stored pixels.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}

# PIL warns of odd files by the thousand (bombs, palettes, EXIF); they are repaired, or counted as bad samples.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Picture(NamedTuple):
    """An encoded picture whose header was read."""

    height: int  # of the upright picture, in pixels
    width: int
    shrinks: tuple[int, ...]  # it can also be decoded at one of these fractions of its size, largest first
    read: Callable[[int], np.ndarray]  # shrink -> uint8 [height/shrink width/shrink 3], rounded up; 1: exact


def stored_rgb(file: BinaryIO | str | os.PathLike) -> np.ndarray:
    """The pixels of a picture in a file or at its path as they are stored, uint8 [h w 3]: masks fit no others. Raises
    whatever PIL does for one that is not whole."""
    data = file.read() if hasattr(file, "read") else Path(file).read_bytes()
    if data.startswith(b"\xff\xd8"):
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if height * width <= 2 * MAX_PIXELS and colours in ("YCbCr", "Gray", "RGB"):  # PIL refuses more
                return simplejpeg.decode_jpeg(data)
        except ValueError as error:  # PIL has its try, but it would take a picture of which a part is grey
            if any(sign in str(error) for sign in _CORRUPT):
                raise
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # TFDS, for one, sets it: half of a picture would be black
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return rgb(image)


def stored_size(file: BinaryIO | str | os.PathLike) -> tuple[int, int]:
    """Height and width of the same, from its header."""
    with Image.open(file, formats=FORMATS) as image:
        return image.height, image.width


@contextlib.contextmanager
def bad_samples(data: bytes) -> Iterator[None]:
    """Turns what the decoders of `data` raise into a BadSample that says why."""
    try:
        yield
    except BadSample:
        raise
    except Image.DecompressionBombError as error:
        raise BadSample("image too large", str(error)) from error
    except UnidentifiedImageError as error:  # its message is a memory address
        raise BadSample("broken image", f"{len(data)} bytes of no format that is read here") from error
    except Exception as error:  # PIL's readers raise nearly anything when the bytes are corrupt
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadSample("broken image", f"{len(data)} bytes: {reason}") from error


def open_picture(data: bytes) -> Picture:
    """Reads the header of an encoded picture. To be called, like `Picture.read`, inside `bad_samples`.

    Repaired: EXIF orientation is applied, CMYK (Adobe's inverted too), grey and palettes become RGB, alpha is dropped,
    of 16 bits the upper 8 count, of an animation the first frame. Raises BadSample for a picture above MAX_PIXELS,
    which is not decoded, or with a side under MIN_SIDE.
    """
    if data.startswith(b"\xff\xd8"):
        with contextlib.suppress(ValueError):  # then PIL has its try
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
            _check(height, width)
            if colours in ("YCbCr", "Gray", "RGB"):
                return _jpeg(data, height, width)
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # TFDS, for one, sets it: half of a picture would be black
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check(image.height, image.width)
        pixels = rgb(image)
        turn = _orientation(image)  # after the pixels: PNG may store it behind them, and TIFF is turned by PIL
        pixels = _UPRIGHT[turn](pixels) if turn in _UPRIGHT else pixels
        return Picture(pixels.shape[0], pixels.shape[1], (), lambda _: pixels)


def _check(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadSample("image too large", f"{width}x{height} pixels, more than {MAX_PIXELS}")
    if min(height, width) < MIN_SIDE:
        raise BadSample("image too small", f"{width}x{height} pixels, a side under {MIN_SIDE}")


def _jpeg(data: bytes, height: int, width: int) -> Picture:
    turn = _orientation(Image.open(io.BytesIO(data), formats=FORMATS)) if _has_app1(data) else 1
    if turn not in _UPRIGHT:
        return Picture(height, width, _SHRINKS, lambda shrink: _read_jpeg(data, height, width, shrink))
    sides = (width, height) if turn >= 5 else (height, width)
    return Picture(*sides, (), lambda _: _UPRIGHT[turn](_read_jpeg(data, height, width, 1)))


def _read_jpeg(data: bytes, height: int, width: int, shrink: int) -> np.ndarray:
    """The stored pixels, uint8 [height/shrink width/shrink 3], sides rounded up."""
    sides = {"min_height": -(-height // shrink), "min_width": -(-width // shrink)} if shrink > 1 else {}
    try:
        return simplejpeg.decode_jpeg(data, **sides)
    except ValueError as error:
        if any(sign in str(error) for sign in _CORRUPT):
            raise
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # bears stray bytes, which harm nothing
        return np.asarray(image.convert("RGB").reduce(shrink))


def _has_app1(jpeg: bytes) -> bool:
    """Whether there is an APP1 segment, which may hold the orientation (as EXIF or XMP)."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1] != 0xDA:  # up to the pixels
        if jpeg[at + 1] == 0xE1:
            return True
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return False


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # corrupt EXIF spoils no picture
        return 1


def rgb(image: Image.Image) -> np.ndarray:
    """The pixels as uint8 [h w 3]. Of 16 bits the upper 8 count, as PIL does for colour; grey it would clip."""
    if image.mode.startswith("I"):
        grey = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))
