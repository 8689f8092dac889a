"""The pipeline that `loader_speed.py` compares with: webdataset, PIL, float32 on the host, pure-Python tokenizing.

Written plainly after timm's recipe for DeiT; every operation is PIL's or NumPy's own.
"""

import io
import math
import random

import numpy as np
import webdataset
from PIL import Image, ImageEnhance, ImageOps

from groupvit_jax.data import captions
from groupvit_jax.data.images import MEAN, STD

FILL = (124, 116, 104)


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL)


def either(level):
    return -level if random.random() > 0.5 else level


def factor(m):
    return max(0.1, 1 + either(0.09 * m))


OPERATIONS = (
    lambda image, m: ImageOps.autocontrast(image),
    lambda image, m: ImageOps.equalize(image),
    lambda image, m: ImageOps.invert(image),
    lambda image, m: image.rotate(either(3 * m), Image.Resampling.BILINEAR, fillcolor=FILL),
    lambda image, m: ImageOps.posterize(image, max(1, 4 - int(0.4 * m))),
    lambda image, m: ImageOps.solarize(image, 256 - int(25.6 * m)),
    lambda image, m: image.point([min(255, v + int(11 * m)) if v < 128 else v for v in range(256)] * 3),
    lambda image, m: ImageEnhance.Color(image).enhance(factor(m)),
    lambda image, m: ImageEnhance.Contrast(image).enhance(factor(m)),
    lambda image, m: ImageEnhance.Brightness(image).enhance(factor(m)),
    lambda image, m: ImageEnhance.Sharpness(image).enhance(factor(m)),
    lambda image, m: affine(image, 1, either(0.03 * m), 0, 0, 1, 0),
    lambda image, m: affine(image, 1, 0, 0, either(0.03 * m), 1, 0),
    lambda image, m: affine(image, 1, 0, either(0.045 * m) * image.width, 0, 1, 0),
    lambda image, m: affine(image, 1, 0, 0, 0, 1, either(0.045 * m) * image.height),
)


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def random_resized_crop(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    for _ in range(10):
        area = random.uniform(0.08, 1) * width * height
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= width and h <= height:
            break
    else:
        w = h = min(width, height)
    left, top = random.randint(0, width - w), random.randint(0, height - h)
    return image.crop((left, top, left + w, top + h)).resize((size, size), Image.Resampling.BILINEAR)


def augment(image: Image.Image) -> Image.Image:
    """Flip and RandAugment m9-mstd0.5-inc1."""
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for operation in random.choices(OPERATIONS, k=2):
        if random.random() < 0.5:
            image = operation(image, min(10.0, max(0.0, random.gauss(9, 0.5))))
    return image


def normalise(image: Image.Image) -> np.ndarray:
    """float32 [3 h w], as torchvision's ToTensor and Normalize give it."""
    pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)).astype(np.float32) / 255
    pixels -= np.array(MEAN, np.float32)[:, None, None]
    pixels /= np.array(STD, np.float32)[:, None, None]
    return pixels


def erase(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random erasing with probability 0.25: 2 % to 33 % of the area, noise a pixel."""
    if random.random() < 0.25:
        _, height, width = pixels.shape
        for _ in range(10):
            area = random.uniform(0.02, 1 / 3) * height * width
            ratio = math.exp(random.uniform(math.log(0.3), math.log(1 / 0.3)))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < height and w < width:
                top, left = random.randint(0, height - h), random.randint(0, width - w)
                pixels[:, top : top + h, left : left + w] = rng.standard_normal((3, h, w), np.float32)
                break
    return pixels


def texts(caption: str, rng: np.random.Generator) -> list[str]:
    """The caption and three prompts, as ours."""
    words = captions.content_words(caption, captions.tagger("pattern"))
    return [caption, *captions.prompts(caption, 3, rng, words)]


def read(tar: str):
    """(encoded image, caption) of every sample, in order."""
    for sample in webdataset.WebDataset(tar, shardshuffle=False):
        yield sample["jpg"], sample["txt"].decode("utf-8")


def examples(tar: str, tokenizer, size: int = 224):
    """(float32 [3 size size], int64 [4 77]) of every sample of a tar."""
    rng = np.random.default_rng(0)
    for data, caption in read(tar):
        image = augment(random_resized_crop(decode(data), size))
        yield erase(normalise(image), rng), tokenizer(texts(caption, rng))
