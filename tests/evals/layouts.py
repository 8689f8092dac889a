"""Tiny data sets in the eight layouts that are scored, and the truth about them, each written down by hand here.

The pictures are crops of photographs that come with scikit-image (test extra), the masks drawn. What a mask's values
mean stands here once more, apart from `groupvit_jax.data.segmentation_sets`, which is to be checked.
"""

import importlib.util
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
SIZES = ((40, 40), (48, 64), (60, 45), (41, 90), (96, 80))  # height x width
KEYS = ("voc", "voc20", "context", "context59", "coco_object", "coco_stuff", "cityscapes", "ade20k")
# Ids from 1 to 182, less one in the files; 92 and up are stuff, and nobody ever drew these:
COCO_NEVER = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
# road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider,
# car, truck, bus, train, motorcycle, bicycle
CITYSCAPES = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13,
              27: 14, 28: 15, 31: 16, 32: 17, 33: 18}


class Sample(NamedTuple):
    """image uint8 [h w 3] as its file decodes; mask [h w], the values in the file; truth uint8 [h w], 255 ignored."""

    key: str
    image: np.ndarray
    mask: np.ndarray
    truth: np.ndarray


def published_values(key: str) -> list[int]:
    """Every value that a mask of the set may have."""
    if key in ("voc", "voc20"):
        return [*range(21), 255]
    if key in ("context", "context59"):
        return [*range(60), 255]
    if key in ("coco_object", "coco_stuff"):
        return [i - 1 for i in range(1, 183) if i not in COCO_NEVER] + [255]
    if key == "cityscapes":
        return [*range(34), 255]
    return [*range(151)]


def label(key: str, value: int) -> int:
    """What a value in a mask stands for: the place in the list of classes, or 255."""
    if key in ("voc", "context"):
        return value
    if key == "cityscapes":
        return CITYSCAPES.get(value, 255)
    if key in ("coco_object", "coco_stuff"):
        before = sum(1 for i in range(1, value + 1) if i not in COCO_NEVER)  # drawn ids below value + 1
        if key == "coco_stuff":
            return 255 if value == 255 else before
        return 1 + before if value < 90 else 0  # 80 things; stuff and the unlabelled are background
    return 255 if value in (0, 255) else value - 1  # voc20, context59, ade20k


def photograph(i: int, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A crop of the i-th photograph with the aspect of `size`, resized to it."""
    folder = pathlib.Path(importlib.util.find_spec("skimage").submodule_search_locations[0], "data")
    picture = Image.open(folder / PHOTOS[i % len(PHOTOS)]).convert("RGB")
    scale = rng.uniform(0.7, 1) * min(picture.height / size[0], picture.width / size[1])
    h, w = int(size[0] * scale), int(size[1] * scale)
    top, left = rng.integers(picture.height - h + 1), rng.integers(picture.width - w + 1)
    return picture.crop((left, top, left + w, top + h)).resize(size[::-1], Image.Resampling.LANCZOS)


def drawing(values: list[int], size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """uint8 [h w]: ellipses and polygons of some values, then a small square of each."""
    h, w = size
    mask = Image.new("L", (w, h), int(rng.choice(values)))
    draw = ImageDraw.Draw(mask)
    for n in range(8):
        y, x, value = rng.uniform(0, h), rng.uniform(0, w), int(rng.choice(values))
        ry, rx = h * rng.uniform(0.1, 0.4), w * rng.uniform(0.1, 0.4)
        if n % 2:
            draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=value)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, 6))
            draw.polygon([(x + rx * np.cos(a), y + ry * np.sin(a)) for a in angles], fill=value)
    places = [(y, x) for y in range(1, h - 3, 5) for x in range(1, w - 3, 5)]
    for value, place in zip(values, rng.permutation(places), strict=False):
        draw.rectangle((place[1], place[0], place[1] + 2, place[0] + 2), fill=value)
    return np.asarray(mask)


def names(key: str, number: int) -> list[str]:
    """Keys as in the set; in the order of the listing, if the set has one, else sorted."""
    if key in ("voc", "voc20", "context", "context59"):
        return [f"200{7 + i % 2}_{(i * 613 + 33) % 1000:06d}" for i in range(number)]
    if key in ("coco_object", "coco_stuff"):
        return [f"{139 + 146 * i:012d}" for i in range(number)]
    if key == "cityscapes":
        return sorted(f"{('frankfurt', 'lindau')[i % 2]}_{i:06d}_{294 + 282 * i:06d}" for i in range(number))
    return [f"ADE_val_{i + 1:08d}" for i in range(number)]


def paths(key: str, name: str, train_ids: bool) -> tuple[str, str]:
    """Where a picture and its mask lie, below the folder of the set."""
    if key in ("voc", "voc20"):
        return f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"
    if key in ("context", "context59"):
        return f"JPEGImages/{name}.jpg", f"SegmentationClassContext/{name}.png"
    if key in ("coco_object", "coco_stuff"):
        converted = "_instanceTrainIds" if key == "coco_object" else "_labelTrainIds"
        return f"images/val2017/{name}.jpg", f"annotations/val2017/{name}{converted if train_ids else ''}.png"
    if key == "cityscapes":
        city, kind = name.split("_")[0], "labelTrainIds" if train_ids else "labelIds"
        return f"leftImg8bit/val/{city}/{name}_leftImg8bit.png", f"gtFine/val/{city}/{name}_gtFine_{kind}.png"
    return f"images/validation/{name}.jpg", f"annotations/validation/{name}.png"


FOLDERS = {"voc": "VOCdevkit/VOC2012", "voc20": "VOCdevkit/VOC2012", "context": "VOCdevkit/VOC2010",
           "context59": "VOCdevkit/VOC2010", "coco_object": "coco", "coco_stuff": "coco", "cityscapes": "cityscapes",
           "ade20k": "ade/ADEChallengeData2016"}
LISTINGS = {"voc": "ImageSets/Segmentation/val.txt", "voc20": "ImageSets/Segmentation/val.txt",
            "context": "ImageSets/SegmentationContext/val.txt", "context59": "ImageSets/SegmentationContext/val.txt"}


def write(key: str, root: str | pathlib.Path, sizes: tuple[tuple[int, int], ...] = SIZES, *, folder: str | None = None,
          train_ids: bool = False, wide: bool = False) -> list[Sample]:
    """Writes a set below root and returns its samples in order. Sets that share a folder share its files.

    sizes: (height, width) of each picture. folder: in place of the usual one. train_ids: the masks of COCO and
    Cityscapes as the usual tools convert them, rather than as published. wide: masks of 16 bits.
    """
    home, samples = pathlib.Path(root, folder or FOLDERS[key]), []
    values, listed = published_values(key), names(key, len(sizes))
    for i, (name, size) in enumerate(zip(listed, sizes)):
        rng = np.random.default_rng(i)
        image, mask = (home / path for path in paths(key, name, train_ids))
        for path in (image, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        photograph(i, size, rng).save(image, **({"quality": 92} if image.suffix == ".jpg" else {}))
        drawn = drawing(values[i :: len(sizes)], size, rng)
        truth = np.array([[label(key, int(value)) for value in row] for row in drawn], np.uint8)
        stored = truth if train_ids and key in ("coco_object", "coco_stuff", "cityscapes") else drawn
        picture = Image.fromarray(stored.astype(np.uint16 if wide else np.uint8))
        if key in ("voc", "voc20"):
            picture = picture.convert("P")  # 8 bits: the values stay, colours are added
            picture.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
        picture.save(mask)
        with Image.open(image) as file:
            samples.append(Sample(name, np.asarray(file.convert("RGB")), stored, truth))
    if key in LISTINGS:
        (home / LISTINGS[key]).parent.mkdir(parents=True, exist_ok=True)
        (home / LISTINGS[key]).write_text("".join(f"{name}\n" for name in listed))
    return samples
