"""Pictures with one class each, in folders, tars or TFDS: where those of a set lie, one row each."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from groupvit_jax.data import storage, tar, tfds_sets
from groupvit_jax.data.decoding import stored_rgb
from groupvit_jax.data.samples import IMAGES
from groupvit_jax.errors import InputError

_ENDINGS = frozenset(f".{ending}" for ending in (*IMAGES, "bmp", "ppm"))


class Layout(NamedTuple):
    """A set as it is unpacked: the folders it may lie in, tried in order, and where to get it.

    Each holds a folder a class, in label order when sorted, or WebDataset tars of `key.jpg` with `key.cls`.
    """

    key: str
    folders: tuple[str, ...]
    classes: int
    source: str
    tfds: tuple[str, str] = ("", "")  # name and split of the TFDS data set


LAYOUTS = {layout.key: layout for layout in (
    Layout("imagenet", ("imagenet/val", "imagenet/validation", "imagenet"), 1000,
           "put ImageNet's 50,000 validation pictures in DATA_ROOT/imagenet/val, a folder for each of the 1,000 wnids "
           "(valprep.sh sorts them), or tars with .cls, or prepare TFDS's imagenet2012 as ArrayRecord files there",
           ("imagenet2012", "validation")),
    Layout("fashion", ("singles", "fashion/singles"), 10, "make them with `groupvit data fashion --output=DATA_ROOT`"),
)}


class Labelled:
    """n pictures, each one of some classes: `labelled[i]` is (key, uint8 [h w 3], class).

    Raises InputError for a picture that cannot be read."""

    def __init__(self, items: Sequence, classes: int, read: Callable[[Any], tuple[bytes, int]],
                 name: Callable[[Any], str]) -> None:
        self._items, self.classes, self._read, self._name = items, classes, read, name

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, i: int) -> tuple[str, np.ndarray, int]:
        key = self._name(self._items[i])
        try:
            data, label = self._read(self._items[i])
            return key, stored_rgb(io.BytesIO(data)), label
        except Exception as error:  # PIL's readers raise nearly anything when the bytes are corrupt
            raise InputError(f"cannot read {key} ({error}): replace it") from error


def open_set(key: str, root: str | Path) -> Labelled:
    """The set below a data root. Raises InputError: what is missing, where it was looked for, where to get it."""
    layout = LAYOUTS[key]
    folders = [Path(root) / folder for folder in layout.folders]
    for folder in folders:
        if sorted(folder.glob("*.tar")):
            return _tars(layout, folder)
        if classes := sorted(path for path in folder.glob("*") if path.is_dir()) if os.path.isdir(folder) else []:
            return _folders(layout, folder, classes)
    if layout.tfds[0] and (data := tfds_sets.find(Path(root) / layout.tfds[0])):
        return _tfds(layout, data)
    looked = ", ".join(filter(None, (*layout.folders, layout.tfds[0])))
    raise InputError(f"{key}: below {root}, no folders of classes and no tars in {looked}; {layout.source}")


def _folders(layout: Layout, folder: Path, classes: list[Path]) -> Labelled:
    if len(classes) != layout.classes:
        raise InputError(f"{layout.key}: {folder} has {len(classes)} folders, not one for each of the {layout.classes} "
                         f"classes; {layout.source}")
    items = [(path, label) for label, place in enumerate(classes) for path in sorted(place.iterdir())
             if path.suffix.lower() in _ENDINGS]
    if not items:
        raise InputError(f"{layout.key}: no picture in the folders of {folder}; {layout.source}")
    return Labelled(items, layout.classes, lambda item: (item[0].read_bytes(), item[1]), lambda item: str(item[0]))


def _tars(layout: Layout, folder: Path) -> Labelled:
    items = []
    for path in storage.expand(folder):
        with open(path, "rb") as file:
            def read(offset: int, size: int, file: Any = file) -> bytes:
                file.seek(offset)
                return file.read(size)

            pictures, labels = {}, {}
            try:
                for name, offset, size in tar.members(read, Path(path).stat().st_size):
                    stem, _, kind = name.rpartition(".")
                    if kind.lower() in IMAGES:
                        pictures[stem] = path, stem, offset, size
                    elif kind == "cls":
                        labels[stem] = read(offset, size)
            except (tar.Damaged, tar.NotTar) as error:
                raise InputError(f"{layout.key}: {path} is damaged ({error.args[-1]}): replace it") from None
        items += [(*picture, _label(layout, f"{path}:{stem}.cls", labels.get(stem)))
                  for stem, picture in pictures.items()]
    if not items:
        raise InputError(f"{layout.key}: no picture in the tars of {folder}; {layout.source}")
    return Labelled(items, layout.classes, _read_member, lambda item: f"{item[0]}:{item[1]}")


def _label(layout: Layout, place: str, text: bytes | None) -> int:
    if text is None or not text.strip().isdigit() or int(text) >= layout.classes:
        raise InputError(f"{layout.key}: {place} should be a class from 0 to {layout.classes - 1}, but "
                         f"{'is missing' if text is None else f'holds {text[:20]!r}'}")
    return int(text)


def _read_member(item: tuple[str, str, int, int, int]) -> tuple[bytes, int]:
    path, _, offset, size, label = item
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size), label


def _tfds(layout: Layout, folder: Path) -> Labelled:
    records = tfds_sets.Records(folder, layout.tfds[1], "image", "label")

    def read(i: int) -> tuple[bytes, int]:
        record = records[i]
        return record["image"], int(record["label"])

    return Labelled(range(len(records)), layout.classes, read, lambda i: f"{folder} record {i}")
