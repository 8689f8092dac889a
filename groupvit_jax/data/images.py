"""Encoded bytes to uint8 pixels, on the host: decoding, the training crop, the two evaluation resizes.

Images stay uint8 [h w 3] until they are on the device, where training/augment.py flips, normalises and erases
them: a quarter of the bytes to move, and less work for the host.
"""

import io
import math

import cv2
import numpy as np
from PIL import Image

from groupvit_jax.data.randaugment import randaugment as apply_randaugment
from groupvit_jax.errors import InputError

# Mean and standard deviation of ImageNet's pixels, red green blue, in units of the full range 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def decode(data: bytes) -> np.ndarray:
    """Encoded image (JPEG, PNG, WebP, whatever PIL reads) -> uint8 [h w 3] RGB, read-only.

    PIL's convert("RGB"), as image-text training commonly reads its pairs: grey is repeated, CMYK and palettes
    are converted, an alpha channel is dropped (not blended), the EXIF orientation is ignored, and of an
    animation the first frame counts. Truncated or undecodable bytes raise InputError, and so does an image
    above PIL's limit against decompression bombs (179 megapixels).
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # PIL's readers raise nearly anything when the bytes are corrupt
        reason = str(error) or type(error).__name__
        message = f"cannot decode an image of {len(data)} bytes ({reason}): replace or remove it"
        raise InputError(message) from error


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear as PIL does it: antialiased, the filter widens where the image shrinks."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def crop_box(height, width, rng, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)) -> tuple[int, int, int, int]:
    """Draws (top, left, height, width) of a crop: share of the area uniform, width/height log-uniform.

    After 10 boxes that do not fit, the largest centred one whose aspect is allowed (torchvision, timm).
    """
    for _ in range(10):
        target = rng.uniform(*area) * height * width
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    h = min(height, max(1, round(width / aspect[0])))
    w = min(width, max(1, round(height * aspect[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def random_resized_crop(image, size, rng, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)) -> np.ndarray:
    """uint8 [h w 3] -> uint8 [size size 3]: a random box (see crop_box), resized bilinear and antialiased.

    `area` is the range of the box's share of the image, `aspect` that of its width/height; `rng` is a numpy
    Generator.
    """
    top, left, h, w = crop_box(*image.shape[:2], rng, area, aspect)
    return _resize(image[top : top + h, left : left + w], size, size)


def train_transform(
    data: bytes,
    size: int,
    rng: np.random.Generator,
    crop_area=(0.08, 1.0),
    crop_aspect=(3 / 4, 4 / 3),
    randaugment=9.0,
) -> np.ndarray:
    """Encoded image -> uint8 [size size 3] for training: decode, crop, RandAugment.

    crop_area:   the crop's share of the image; (1, 1) takes the whole image, squeezed to the square.
    crop_aspect: the crop's width/height.
    randaugment: magnitude in 0..10, timm's `rand-m<magnitude>-mstd0.5-inc1`; 0 leaves it out.
    Raises InputError where `decode` does. timm flips before RandAugment, here the device does it afterwards:
    the distribution is the same, but for ShearY, whose fixed edge is then the left or the right one and not
    always the left.
    """
    image = decode(data)
    if tuple(crop_area) == (1, 1):
        image = _resize(image, size, size)
    else:
        image = random_resized_crop(image, size, rng, crop_area, crop_aspect)
    if randaugment:
        image = np.asarray(apply_randaugment(Image.fromarray(image), rng, magnitude=randaugment))
    return image


def resize_shorter(image: np.ndarray, short: int, long: int) -> np.ndarray:
    """uint8 [h w 3] -> uint8 [h' w' 3], the segmentation protocols' resize: aspect kept, the short side
    becomes `short` unless the long side would pass `long`.

    OpenCV's INTER_LINEAR on uint8: half-pixel centres, not antialiased, rounded to whole values; published
    scores depend on it. The image comes back as it is when no side changes.
    """
    height, width = image.shape[:2]
    scale = min(short / min(height, width), long / max(height, width))
    h, w = (max(1, int(side * scale + 0.5)) for side in (height, width))
    if (h, w) == (height, width):
        return image
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)


def classification_transform(image: np.ndarray, resize: int = 256, crop: int = 224) -> np.ndarray:
    """uint8 [h w 3] -> uint8 [crop crop 3]: short side to `resize` (bilinear, antialiased), then the centre.

    torchvision's Resize and CenterCrop, the usual ImageNet evaluation; `resize` must be at least `crop`.
    """
    assert resize >= crop, (resize, crop)
    height, width = image.shape[:2]
    short = min(height, width)
    image = _resize(image, resize * height // short, resize * width // short)
    top, left = (round((side - crop) / 2) for side in image.shape[:2])
    return image[top : top + crop, left : left + crop]
