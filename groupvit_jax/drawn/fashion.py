"""Fashion: scenes composed of real photographs. Garments of Fashion-MNIST on a ground, captions, exact masks.

Training scenes show the 60,000 training photographs, validation scenes the 10,000 test photographs. A composed scene
has two to five garments, laid out side by side. All validation scenes are of this kind and 40 % of the training scenes;
the others show one garment, often close by, or a bare ground. A photograph is scaled, turned a little and dyed (it is
grey), and what is brighter than its backdrop is pasted, at twice the canvas's resolution, where linear interpolation
makes it half or more of a pixel; four of these make a pixel of the scene, labelled by their majority.
"""

import colorsys
import functools
import io
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from groupvit_jax.data.tar import write_tar
from groupvit_jax.drawn import idx, shards
from groupvit_jax.drawn.canvas import VISIBLE, Canvas
from groupvit_jax.drawn.captions import caption
from groupvit_jax.drawn.fashion_looks import CLASSES, GROUNDS, ITEMS, PALETTE
from groupvit_jax.drawn.shards import Scene
from groupvit_jax.errors import InputError

SOURCE = "/usr/share/datasets/fashion-mnist"  # of Debian's and Ubuntu's package
_PREFIX = {"train": "train", "val": "t10k"}  # how the files of a split's photographs are called
_SPLITS = tuple(_PREFIX)
_VERSION = 1  # raise it whenever the same (seed, index) would give another scene
_SIDE = 28  # pixels of a photograph
_REMEDY = (f"`apt install dataset-fashion-mnist` puts the four files in {SOURCE} (also at "
           "https://github.com/zalandoresearch/fashion-mnist); give their folder as --source")
_BACKDROP = 8  # of 255: no more is backdrop. It was 0 before the photographs were made small, which left faint specks.
# Where garments lie: up to four of them in the corners, five in two rows. (down, right), as a share of the canvas.
_CORNERS = np.array([(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)])
_ROWS = np.array([(0.25, 0.18), (0.25, 0.5), (0.25, 0.82), (0.75, 0.3), (0.75, 0.7)])


class Photographs(NamedTuple):
    """One split. images: uint8 [n 28 28] on a dark backdrop. labels: uint8 [n]. of: for each label, where they are."""

    images: np.ndarray
    labels: np.ndarray
    of: tuple


@functools.lru_cache(maxsize=4)
def photographs(source: str, split: str) -> Photographs:
    """The photographs of a split; InputError names the file that is missing or damaged, and the remedy.

    Args:
        source: folder of Fashion-MNIST's four IDX files, each as it is or compressed (.gz).
        split: "train" or "val" (the published test photographs).
    """
    images = idx.read(_find(source, f"{_PREFIX[split]}-images-idx3-ubyte"), (_SIDE, _SIDE), _REMEDY)
    labels = idx.read(_find(source, f"{_PREFIX[split]}-labels-idx1-ubyte"), (), _REMEDY)
    if len(images) != len(labels) or labels.max() >= len(ITEMS):
        raise InputError(f"{source}: {len(images)} {_PREFIX[split]} photographs and {len(labels)} labels up to "
                         f"{labels.max()} are no Fashion-MNIST: {_REMEDY}")
    seen = (images > _BACKDROP).any(axis=(1, 2))
    of = tuple(np.flatnonzero((labels == k) & seen) for k in range(len(ITEMS)))
    for k, places in enumerate(of):
        if not len(places):
            raise InputError(f"{source}: no {_PREFIX[split]} photograph has label {k} ({ITEMS[k]}): {_REMEDY}")
    return Photographs(images, labels, of)


def _find(source: str, name: str) -> Path:
    for path in (Path(source) / name, Path(source) / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"no {name} nor {name}.gz in {source}: {_REMEDY}")


def draw(source: str, seed: int, index: int, size: int = 96, *, split: str = "train",
         bare: float = 0.05, close: float = 0.35, alone: float = 0.2) -> Scene:
    """One scene, always the same for the same arguments.

    Args:
        source: folder of the photographs.
        seed, index: ints >= 0: which stream, which scene of it (streams have no end).
        size: side of the canvas in pixels.
        split: "train" or "val": whose photographs. Validation scenes are neither bare, nor close, nor of one garment.
        bare: share of training scenes that show a ground and nothing else.
        close: share of training scenes in which one garment fills the canvas. One in ten of their captions names the
            ground, of the other captions 85 %: a ground is learnt far sooner, and named everywhere it kept the
            garments from being learnt.
        alone: share of training scenes with one garment of the size it has among others.
    Returns:
        Scene.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPLITS.index(split), index)))
    photos = photographs(source, split)
    canvas = Canvas(rng, 2 * size, GROUNDS, things_first=len(ITEMS))  # drawn at twice the size, for smooth edges
    hue = rng.random()
    kind = rng.random() if split == "train" else 1.0
    if kind >= bare + close:
        count = 1 if kind < bare + close + alone else int(rng.choice((2, 3, 4, 5), p=(0.3, 0.3, 0.25, 0.15)))
        places, radius = (_ROWS, 0.19) if count == 5 else (rng.permutation(_CORNERS), 0.25)
        if rng.random() < 0.5:
            places = 1 - places  # the short row above
        for k, place in zip(_kinds(rng, count), places):
            _place(canvas, photos, k, rng.uniform(0.85, 1) * radius, place, hue)
    elif kind >= bare:
        _place(canvas, photos, int(rng.integers(len(ITEMS))), rng.uniform(0.38, 0.5), (0.5, 0.5), hue)
    image, mask = canvas.develop()
    shares = np.bincount(mask.ravel(), minlength=len(CLASSES)) / mask.size
    names = tuple(name for name, share in zip(CLASSES, shares, strict=True) if share >= VISIBLE)
    ground_named = 0.1 if bare <= kind < bare + close else 0.85
    return Scene(image, mask, _caption(rng, names, canvas.kinds, ground_named), names)


def _kinds(rng: np.random.Generator, count: int) -> list[int]:
    """So many labels; of three or more, two are the same now and then ("two coats")."""
    kinds = rng.permutation(len(ITEMS))[:count]
    if count > 2 and rng.random() < 0.3:
        kinds[-1] = kinds[0]
    return kinds.tolist()


def _place(canvas: Canvas, photos: Photographs, kind: int, radius: float, centre: Any, hue: float) -> None:
    """Puts one of the photographs of a kind on the canvas, about there; radius is half its side. Each garment of a
    scene is dyed in a hue far from the others' (0.618 of the circle apart), as strongly as chance has it."""
    rng = canvas.rng
    photo = photos.images[rng.choice(photos.of[kind])]
    if rng.random() < 0.5:
        photo = photo[:, ::-1]
    inside, grey = _scaled(photo, 2 * radius * canvas.n, rng.uniform(-0.12, 0.12))
    dye = np.array(colorsys.hsv_to_rgb((hue + 0.618 * len(canvas.kinds)) % 1, rng.uniform(0, 0.8), 1.0), np.float32)
    canvas.put(kind, inside, grey[..., None] * dye * canvas.tint(), 0.03, True, centre)


def _scaled(photo: np.ndarray, side: float, angle: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A photograph [28 28] at `side` pixels, turned by an angle: inside bool [k k], grey float32 [k k] in 0..255."""
    k = math.ceil(side * (abs(math.cos(angle)) + abs(math.sin(angle))))
    turn: np.ndarray = cv2.getRotationMatrix2D(((_SIDE - 1) / 2, (_SIDE - 1) / 2), math.degrees(angle), side / _SIDE)
    turn[:, 2] += (k - _SIDE) / 2  # from the photograph's middle to the box's
    inside = cv2.warpAffine((photo > _BACKDROP).astype(np.float32), turn, (k, k), flags=cv2.INTER_LINEAR)
    grey = cv2.warpAffine(photo.astype(np.float32), turn, (k, k), flags=cv2.INTER_LINEAR)
    return inside >= 0.5, grey


def _caption(rng: np.random.Generator, names: Sequence[str], kinds: Sequence[int], ground_named: float) -> str:
    counts = {name: kinds.count(ITEMS.index(name)) for name in names if name in ITEMS}
    ground = next((name for name in names if name in GROUNDS), None)
    return caption(rng, counts, ground if not counts or rng.random() < ground_named else None)


def single(photo: np.ndarray, size: int) -> np.ndarray:
    """A photograph alone on plain paper, uint8 [size size 3], nothing about it random."""
    inside, grey = _scaled(photo, 2 * 0.8 * size)
    image = np.full((2 * size, 2 * size, 3), 236, np.float32)
    top = (2 * size - len(inside)) // 2
    box = image[top : top + len(inside), top : top + len(inside)]
    box[inside] = grey[inside, None]
    image = image.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
    return image.round().astype(np.uint8)


# ---------------------------------------------------------------- on disk


def write(output: str | os.PathLike, source: str | os.PathLike = SOURCE, train: int = 24000, val: int = 500,
          seed: int = 0, size: int = 96, shuffle: bool = False, shard_size: int = 1000,
          workers: int | None = None) -> None:
    """Writes fashion scenes as data sets lie on disk, see `shards.write`, and the single test photographs.

    `output/singles/singles-00000.tar`, ...: every test photograph alone, `key.png` as large as a scene, and `key.cls`,
    the index into ITEMS in ASCII.

    Args:
        output: folder, new, empty, or begun by a call with the same parameters.
        source: folder of Fashion-MNIST's four IDX files.
        train, val: numbers of scenes.
        seed, size: see `draw`.
        shuffle: gives each training scene the caption of another one of its tar, the control experiment.
        shard_size: scenes or photographs a tar.
        workers: processes; None for one a core.
    Raises:
        InputError: a file of the source is missing or damaged; the folder holds something else or cannot be written.
    """
    folder = str(source)
    both = [photographs(folder, split) for split in _SPLITS]
    wanted = {"version": _VERSION, "train": train, "val": val, "seed": seed, "size": size, "shuffle": shuffle,
              "shard_size": shard_size,
              "photographs": [zlib.crc32(p.labels.data, zlib.crc32(p.images.data)) for p in both]}
    number = len(both[1].labels)
    singles = [(f"singles/singles-{i:05d}.tar", _write_singles, folder, size, first, min(first + shard_size, number))
               for i, first in enumerate(range(0, number, max(shard_size, 1)))]
    shards.write(output, "fashion", functools.partial(draw, folder, seed, size=size), wanted, PALETTE.values(),
                      workers, singles)


def _write_singles(path: Path, source: str, size: int, first: int, last: int) -> None:
    photos = photographs(source, "val")

    def files() -> Iterator[tuple[str, bytes]]:
        for index in range(first, last):
            data = io.BytesIO()
            Image.fromarray(single(photos.images[index], size)).save(data, "PNG")
            yield f"{index:05d}.png", data.getvalue()
            yield f"{index:05d}.cls", str(photos.labels[index]).encode()

    path.parent.mkdir(exist_ok=True)
    write_tar(path, files())
