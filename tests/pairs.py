"""Pairs to train on: pictures whose grey level says which they are, as a source in memory and as a tar."""

import io

import numpy as np
from PIL import Image

from groupvit_jax.data.bad import BadSample
from groupvit_jax.data.tar import write_tar

WORDS = "dog cat bird horse zebra kite boat coin brick lamp".split()
CAPTIONS = [f"a {word} and a tree on the sand" for word in WORDS]


def picture(level: int, size=(24, 20), kind="JPEG") -> bytes:
    """A plain encoded picture; levels are 20 apart."""
    data = io.BytesIO()
    Image.new("RGB", size, (20 * level,) * 3).save(data, kind)
    return data.getvalue()


def levels(images: np.ndarray) -> np.ndarray:
    """Which picture each image [b h w 3] was made from: without colour changes its level says so."""
    return np.rint(images.mean(axis=(1, 2, 3)) / 20).astype(int)


def write(path, captions, offset=0) -> str:
    """A tar with a picture a caption."""
    files = []
    for i, caption in enumerate(captions):
        files += [(f"{i:04}.jpg", picture(i + offset)), (f"{i:04}.txt", caption.encode())]
    write_tar(path, files)
    return str(path)


class Source:
    """A source of (image bytes, caption) pairs in memory. A string in place of a pair is the kind of a bad sample."""

    problems: dict = {}
    tagger = None

    def __init__(self, pairs, block=1):
        self.pairs, self.block, self.read, self.ahead = pairs, block, [], []

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        self.read.append(i)
        if isinstance(self.pairs[i], str):
            raise BadSample(self.pairs[i], str(i))
        image, caption = self.pairs[i]
        return {"image": image, "caption": caption, "key": str(i)}

    def key(self, i):
        return str(i)

    def block_bytes(self):
        return self.block << 20

    def prefetch(self, i):
        self.ahead.append(i)


class Unread(Source):
    """The same without a record of what was read."""

    def __getitem__(self, i):
        image, caption = self.pairs[i]
        return {"image": image, "caption": caption, "key": str(i)}
