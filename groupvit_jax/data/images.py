"""Encoded bytes to uint8 pixels, on the host: the training crop, decoding for evaluation and its two resizes.

Images stay uint8 [h w 3] until they are on the device, where training/augment.py flips, normalises and erases
them: a quarter of the bytes to move, and less work for the host.
"""

import io
import math

import cv2
import numpy as np
from PIL import Image

from groupvit_jax.data.decoding import FORMATS, bad_samples, open_picture
from groupvit_jax.data.randaugment import randaugment as apply_randaugment
from groupvit_jax.data.resize import resize as fast_resize
from groupvit_jax.errors import InputError

# Mean and standard deviation of ImageNet's pixels, red green blue, in units of the full range 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def decode(data: bytes) -> np.ndarray:
    """Encoded image (JPEG, PNG, WebP, see decoding.FORMATS) -> uint8 [h w 3] RGB, read-only.

    PIL's convert("RGB"), as image-text training commonly reads its pairs: grey is repeated, CMYK and palettes
    are converted, an alpha channel is dropped (not blended), the EXIF orientation is ignored, and of an
    animation the first frame counts. Truncated or undecodable bytes raise InputError, and so does an image
    above PIL's limit against decompression bombs (179 megapixels).
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
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


def crop_box(height: int, width: int, rng: np.random.Generator,
             area: tuple[float, float] = (0.08, 1.0),
             aspect: tuple[float, float] = (3 / 4, 4 / 3)) -> tuple[int, int, int, int]:
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


def train_transform(
    data: bytes,
    size: int,
    rng: np.random.Generator,
    crop_area: tuple[float, float] = (0.08, 1.0),
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3),
    randaugment: float = 9.0,
    decode: str = "scaled",
) -> np.ndarray:
    """Encoded image -> uint8 [size size 3] for training: decode, crop, RandAugment.

    crop_area:   the crop's share of the image; (1, 1) takes the whole image, squeezed to the square.
    crop_aspect: the crop's width/height.
    randaugment: magnitude in 0..10, timm's `rand-m<magnitude>-mstd0.5-inc1`; 0 leaves it out.
    decode:      "full" gives PIL's pixels exactly. "scaled", twice as fast, decodes a JPEG at 1/8, 1/4 or 1/2 of its
                 size where the crop still has `size` pixels a side, and resizes with other rounding. Both draw the
                 same crop from `rng`, in pixels of the full size.
    Odd pictures are repaired, see decoding.open_picture. Raises BadSample for the rest: "broken image" (empty,
    truncated, corrupt, of no format that is read), "image too large" (over 89 megapixels; it is not decoded), "image
    too small" (a side under 8 pixels).
    timm flips before RandAugment, here the device does it afterwards: the distribution is the same, but for ShearY,
    whose fixed edge is then the left or the right one and not always the left.
    """
    with bad_samples(data):
        picture = open_picture(data)
    box = (0, 0, picture.height, picture.width)
    if tuple(crop_area) != (1, 1):
        box = crop_box(picture.height, picture.width, rng, crop_area, crop_aspect)
    shrink = 1
    if decode == "scaled":
        shrink = next((s for s in picture.shrinks if min(box[2:]) >= s * size), 1)
    with bad_samples(data):
        pixels = picture.read(shrink)
    top, left, h, w = (v / shrink for v in box)
    y, x = int(top), int(left)
    part = pixels[y : math.ceil(top + h), x : math.ceil(left + w)]  # what lies beyond the edge of the crop never counts
    image = fast_resize(part, size, (top - y, left - x, h, w)) if decode == "scaled" else _resize(part, size, size)
    return apply_randaugment(image, rng, magnitude=randaugment) if randaugment else image


def resize_shorter(image: np.ndarray, short: float, long: float) -> np.ndarray:
    """uint8 [h w 3] -> uint8 [h' w' 3], the segmentation protocols' resize: aspect kept, the short side
    becomes `short` unless the long side would pass `long`.

    OpenCV's INTER_LINEAR on uint8: half-pixel centres, not antialiased, rounded to whole values; published
    scores depend on it. The image comes back as it is when no side changes.
    """
    height, width = shorter_size(image.shape[0], image.shape[1], short, long)
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def shorter_size(height: int, width: int, short: float, long: float) -> tuple[int, int]:
    """The size that `resize_shorter` gives."""
    scale = min(short / min(height, width), long / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


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
