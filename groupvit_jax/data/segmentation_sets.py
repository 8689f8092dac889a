"""Where the images and masks of the segmentation sets lie, and what their masks' values mean: one row each.

Label ids are places in the set's list of class names; 255 is ignored. Masks as published use other values in some
sets: `labels` turns them into label ids.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from groupvit_jax.data.decoding import FORMATS
from groupvit_jax.errors import InputError

IGNORED = 255
_WRONG = -1  # in a table: a value that this set's masks never have


def _table(ids: dict[int, int]) -> np.ndarray:
    """int16 [256]: mask value -> label id; 255 stays 255."""
    table = np.full(256, _WRONG, np.int16)
    table[IGNORED] = IGNORED
    table[list(ids)] = list(ids.values())
    return table


def _as_they_are(classes: int) -> np.ndarray:
    return _table({i: i for i in range(classes)})


def _down_by_one(classes: int) -> np.ndarray:
    """Value 0 is ignored, the others begin at 1."""
    return _table({0: IGNORED} | {i + 1: i for i in range(classes)})


# COCO's ids are 1 to 90 for things and 92 to 182 for stuff; these eleven were never annotated.
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
_COCO_IDS = [i for i in range(1, 183) if i not in _COCO_GAPS]  # 80 things, then 91 kinds of stuff
# The PNGs of COCO-Stuff 164k hold the id less one, and 255 where nobody drew anything.
_COCO_ALL = _table(dict.fromkeys(range(182), IGNORED) | {i - 1: place for place, i in enumerate(_COCO_IDS)})
# A pixel is background if it is in none of the 80 kinds of things: stuff (ids above 90), and 255 too.
_COCO_OBJECTS = _table(dict.fromkeys([*range(182), IGNORED], 0)
                       | {i - 1: place for place, i in enumerate(_COCO_IDS[:80], 1)})
# The 19 of Cityscapes' 34 ids that are scored, in order. Id -1, a number plate, is 255 in an 8-bit PNG.
_CITYSCAPES = _table(dict.fromkeys(range(34), IGNORED) | {i: place for place, i in enumerate(
    (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33))})


@dataclass(frozen=True)
class Layout:
    """One data set as it is unpacked.

    folders: where it may lie under the data root, tried in order. split: the one that is scored, by the name it has in
    the paths. image, mask: paths below the folder. masks: ending of the masks' files -> table of their values; the
    first ending that is there is taken. listing: a file with one key a line; without it, all images, sorted. source:
    where to get it.
    """

    key: str
    folders: tuple[str, ...]
    split: str
    image: str
    mask: str
    masks: dict[str, np.ndarray]
    source: str
    listing: str = ""


Settings = dict[str, Any]  # of Layout
_VOC: Settings = {"image": "JPEGImages/{key}.jpg", "mask": "SegmentationClass/{key}{ending}", "split": "val",
                  "listing": "ImageSets/Segmentation/{split}.txt"}
_VOC2012 = _VOC | {"folders": ("VOCdevkit/VOC2012", "VOC2012"), "source": "unpack VOCtrainval_11-May-2012.tar from "
                   "http://host.robots.ox.ac.uk/pascal/VOC/voc2012 in DATA_ROOT"}
_CONTEXT: Settings = {"folders": ("VOCdevkit/VOC2010", "VOC2010"), "split": "val", "image": "JPEGImages/{key}.jpg",
            "mask": "SegmentationClassContext/{key}{ending}", "listing": "ImageSets/SegmentationContext/{split}.txt",
            "source": "unpack VOC2010's trainval images in DATA_ROOT and make the masks of 59 classes from "
                      "https://cs.stanford.edu/~roozbeh/pascal-context as MMSegmentation's guide says"}
_COCO164K: Settings = {"folders": ("coco", "coco_stuff164k"), "split": "val2017", "image": "images/{split}/{key}.jpg",
             "mask": "annotations/{split}/{key}{ending}",
             "source": "unpack val2017.zip from https://cocodataset.org in DATA_ROOT/coco/images and "
                       "stuffthingmaps_trainval2017.zip from https://github.com/nightrome/cocostuff in "
                       "DATA_ROOT/coco/annotations"}

LAYOUTS = (
    Layout("voc", masks={".png": _as_they_are(21)}, **_VOC2012),
    Layout("voc20", masks={".png": _down_by_one(20)}, **_VOC2012),
    Layout("context", masks={".png": _as_they_are(60)}, **_CONTEXT),
    Layout("context59", masks={".png": _down_by_one(59)}, **_CONTEXT),
    Layout("coco_object", masks={"_instanceTrainIds.png": _as_they_are(81), ".png": _COCO_OBJECTS}, **_COCO164K),
    Layout("coco_stuff", masks={"_labelTrainIds.png": _as_they_are(171), ".png": _COCO_ALL}, **_COCO164K),
    Layout("cityscapes", ("cityscapes",), "val", "leftImg8bit/{split}/{city}/{key}_leftImg8bit.png",
           "gtFine/{split}/{city}/{key}_gtFine_{ending}",
           {"labelTrainIds.png": _as_they_are(19), "labelIds.png": _CITYSCAPES},
           "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com in "
           "DATA_ROOT/cityscapes"),
    Layout("ade20k", ("ade/ADEChallengeData2016", "ADEChallengeData2016"), "validation", "images/{split}/{key}.jpg",
           "annotations/{split}/{key}{ending}", {".png": _down_by_one(150)},
           "unpack ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu in DATA_ROOT/ade"),
    Layout("scenes", ("VOCdevkit/scenes", "scenes", "."), masks={".png": _as_they_are(15)},
           source="make them with `groupvit data scenes --output=DATA_ROOT`", **_VOC),
    Layout("fashion", ("VOCdevkit/fashion", "fashion", "."), masks={".png": _as_they_are(16)},
           source="make them with `groupvit data fashion --output=DATA_ROOT`", **_VOC),
)


def find_layout(key: str) -> Layout:
    """The row of this key; InputError names those that there are."""
    for layout in LAYOUTS:
        if layout.key == key:
            return layout
    raise InputError(f"no segmentation set {key!r}: choose among {', '.join(layout.key for layout in LAYOUTS)}")


def pairs(key: str, root: str | Path, split: str | None = None) -> list[tuple[str, Path, Path]]:
    """(key of the picture, its image, its mask) of every picture of a split, in listed or else sorted order.

    root: the folder the sets were unpacked in. split: by its name in the paths, in place of the one that is scored.
    Raises InputError: what is missing, where it was looked for, where to get it.
    """
    layout = find_layout(key)
    split = split or layout.split
    if not os.path.exists(root):
        raise InputError(f"{key}: no folder {root}: give the one that the data sets lie in, or "
                         f"{layout.source.replace('DATA_ROOT', str(root))}")
    folders = [Path(root) / folder for folder in layout.folders]
    mark = layout.listing or layout.image.partition("/{city}")[0].partition("/{key}")[0]
    marks = [folder / mark.format(split=split) for folder in folders]
    found = [folder for folder, path in zip(folders, marks) if os.path.exists(path)]  # nor does it raise for long names
    if not found:
        raise InputError(f"{key}: no {' nor '.join(map(str, marks))}; {layout.source}")
    folder = found[0]
    keys = _keys(layout, folder, split)
    if not keys:
        raise InputError(f"{key}: no image in split {split!r} of {folder}; {layout.source}")
    images = [folder / _path(layout.image, split, name) for name in keys]
    masks = _masks(layout, folder, split, keys)
    for path in (*images, *masks):
        if not os.path.isfile(path):
            raise InputError(f"{key}: {path} is missing, but split {split!r} has it: complete the data set")
    return list(zip(keys, images, masks))


def _keys(layout: Layout, folder: Path, split: str) -> list[str]:
    if layout.listing:
        lines = (folder / layout.listing.format(split=split)).read_text().splitlines()
        return [line.strip() for line in lines if line.strip()]
    paths = sorted(folder.glob(layout.image.format(split=split, city="*", key="*")))
    ending = layout.image.rpartition("{key}")[2]
    return [path.name.removesuffix(ending) for path in paths]


def _masks(layout: Layout, folder: Path, split: str, keys: list[str]) -> list[Path]:
    """The masks with the first ending that the first picture has, so that all are of one kind."""
    for ending in layout.masks:
        masks = [folder / _path(layout.mask, split, key, ending) for key in keys]
        if os.path.isfile(masks[0]):
            return masks
    looked = " nor ".join(str(folder / _path(layout.mask, split, keys[0], ending)) for ending in layout.masks)
    raise InputError(f"{layout.key}: no {looked}; {layout.source}")


def _path(template: str, split: str, key: str, ending: str = "") -> str:
    return template.format(split=split, key=key, ending=ending, city=key.partition("_")[0])


def labels(key: str, mask: np.ndarray, ending: str | None = None) -> np.ndarray:
    """Mask values -> label ids of the set, both uint8 [h w], 255 ignored.

    ending: of the mask's file, where a set is known in several forms (see `Layout.masks`); else its published form.
    Raises InputError for a value that the set's masks never have.
    """
    masks = find_layout(key).masks
    ids = masks[ending or list(masks)[-1]][mask]
    if (ids == _WRONG).any():
        raise InputError(f"a mask of {key} has the value {mask[ids == _WRONG][0]}, which stands for nothing there: it "
                         "belongs to another data set, or was converted")
    return ids.astype(np.uint8)


def read_labels(key: str, path: str | Path) -> np.ndarray:
    """The label ids in a mask's file, uint8 [h w], 255 ignored; which form it has is told by its name."""
    ending = next(ending for ending in find_layout(key).masks if str(path).endswith(ending))
    try:
        return labels(key, read_mask(path, str(path)), ending)
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def read_mask(file: BinaryIO | str | os.PathLike, name: str) -> np.ndarray:
    """The values of a mask in a file or at its path, uint8 [h w]; of 16 bits, 65535 becomes 255 (ignored)."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            mask = np.asarray(image)  # a palette image's values are its labels; converting it would give colours
    except Exception as error:  # PIL's readers raise nearly anything when the bytes are corrupt
        raise InputError(f"cannot read {name} ({str(error) or type(error).__name__}): replace it") from error
    if mask.ndim == 2 and mask.dtype in (np.uint16, np.int32):  # how PIL gives 16 bits
        mask = np.where(mask == 65535, IGNORED, mask)
        if mask.max() > 255:
            raise InputError(f"{name} has the value {mask.max()}, which stands for nothing there: it belongs to "
                             "another data set, or was converted")
        return mask.astype(np.uint8)
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise InputError(f"{name} is not a mask of 8 or 16 bits: save it as a grey or palette PNG")
    return mask
