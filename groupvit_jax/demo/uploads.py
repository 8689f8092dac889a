"""What people upload, read within bounds: a file of any kind becomes pixels or one sentence."""

import os
from pathlib import Path

import numpy as np

from groupvit_jax.data.bad import BadSample
from groupvit_jax.data.decoding import MAX_PIXELS, MIN_SIDE, bad_samples, open_picture
from groupvit_jax.errors import InputError
from groupvit_jax.viz import scaled

BYTES = 20 << 20  # the largest file
LONG = 1024  # pixels; a photograph with a longer side is made smaller, so that an answer takes a second
SENTENCES = {
    "broken image": "This file cannot be read as a photograph: it is damaged, or of a format that is not read here. "
                    "Give a JPEG, PNG, WebP, AVIF, GIF, TIFF or BMP.",
    "image too large": f"This photograph has more than {MAX_PIXELS // 10**6} million pixels: make it smaller.",
    "image too small": f"This photograph has a side of fewer than {MIN_SIDE} pixels: give a larger one.",
}  # fmt: skip


def read(path: str | os.PathLike) -> np.ndarray:
    """A photograph's file -> its pixels the way up it is to be seen, uint8 [h w 3], no side longer than LONG. Raises
    InputError, a sentence for the page, for anything else."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(BYTES + 1)
    except OSError:  # removed after an hour
        raise InputError("The photograph is no longer here: upload it again.") from None
    if len(data) > BYTES:
        raise InputError(f"This file is larger than {BYTES >> 20} MB: make the photograph smaller.")
    try:
        with bad_samples(data):
            picture = open_picture(data)
            long = max(picture.height, picture.width)
            return shrunk(picture.read(next((s for s in picture.shrinks if long >= s * LONG), 1)))
    except BadSample as error:
        raise InputError(SENTENCES[error.kind]) from None


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """uint8 [h w 3], with a side longer than LONG made as long, the other in proportion."""
    scale = LONG / max(pixels.shape[:2])
    return np.ascontiguousarray(pixels) if scale >= 1 else scaled(pixels, scale)
