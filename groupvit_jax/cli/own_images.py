"""Images that a person names by a glob: read them, and name what is made of them."""

import collections
import os

from PIL import Image, ImageOps

from groupvit_jax.data.decoding import FORMATS, rgb
from groupvit_jax.errors import InputError


def output_names(paths: list[str]) -> list[str]:
    """A name for each: below the folder all are in, without what follows the dot unless only that tells two apart."""
    paths = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    names = [os.path.relpath(path, root) for path in paths]
    count = collections.Counter(os.path.splitext(name)[0] for name in names)
    return [name if count[stem := os.path.splitext(name)[0]] > 1 else stem for name in names]


def read(path: str) -> Image.Image:
    try:
        with Image.open(path, formats=FORMATS) as image:
            ImageOps.exif_transpose(image, in_place=True)  # phones store a photo as the sensor lies
            return Image.fromarray(rgb(image))
    except Exception as error:  # PIL's readers raise nearly anything for damaged files
        raise InputError(f"cannot read {path} as an image ({str(error) or type(error).__name__}): replace it or "
                         "narrow --images") from None
