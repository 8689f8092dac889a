"""Scenes: the embedded data set. Pictures of things on a ground, drawn from a seed, nothing to download.

A scene has one ground (sky, sand...) and up to four things (zebra, coin...), a caption that names what is
visible, and an exact mask. Masks serve evaluation only: `write` stores them for the validation scenes alone.
"""

import concurrent.futures
import io
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from groupvit_jax import files
from groupvit_jax.data.scene_canvas import VISIBLE, Canvas
from groupvit_jax.data.scene_captions import caption
from groupvit_jax.data.scene_looks import BACKGROUNDS, CLASSES, OBJECTS, PALETTE
from groupvit_jax.data.tar import write_tar
from groupvit_jax.errors import InputError

_SPLITS = ("train", "val")  # part of the random seed, so that the two never share a scene
_VERSION = 1  # raise it whenever the same (seed, index) would give another scene


class Scene(NamedTuple):
    image: np.ndarray  # uint8 [s s 3]
    mask: np.ndarray  # uint8 [s s], index into CLASSES, every pixel labelled
    caption: str
    names: tuple  # the visible classes, in label order


def draw(
    seed,
    index,
    size=64,
    *,
    split="train",
    bare=0.15,
    close=0.15,
    repeat=0.3,
    radius=(0.24, 0.4),
    all_named=0.85,
):
    """One scene, always the same for the same arguments.

    Args:
        seed, index: ints >= 0: which stream, which scene of it (streams have no end).
        size: side of the canvas in pixels.
        split: "train" or "val"; their streams are disjoint.
        bare: share of scenes that show a ground and nothing else.
        close: share of scenes in which one thing fills most of the canvas or all of it.
        repeat: share of the other scenes, where room allows, that hold several of one kind ("two coins").
        radius: smallest and largest radius of a thing as a share of the canvas; the more things, the smaller.
        all_named: share of captions that name everything visible; the others leave one class out.
    Returns:
        Scene.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPLITS.index(split), index)))
    canvas = Canvas(rng, 2 * size)  # drawn at twice the size, for smooth edges
    kind = rng.random()
    if kind >= bare + close:
        count = rng.choice(4, p=(0.3, 0.35, 0.25, 0.1)) + 1
        kinds = rng.permutation(len(OBJECTS))[:count]
        if rng.random() < repeat:
            kinds[-1] = kinds[0]  # one thing: no change
        largest = radius[1] - 0.2 * (count - 1) * (radius[1] - radius[0])
        for k in kinds:
            canvas.place(k, rng.uniform(radius[0], largest))
    elif kind >= bare:
        canvas.place(rng.integers(len(OBJECTS)), rng.uniform(0.55, 1.1), close=True)
    image, mask = canvas.develop()
    shares = np.bincount(mask.ravel(), minlength=len(CLASSES)) / mask.size
    names = tuple(name for name, share in zip(CLASSES, shares, strict=True) if share >= VISIBLE)
    return Scene(image, mask, _caption(rng, names, canvas.kinds, all_named), names)


def _caption(rng, names, kinds, all_named):
    said = list(names)
    if len(said) > 1 and rng.random() >= all_named:
        # The ground, or one thing of several: "sand" would be an odd name for a picture of a brick on sand.
        spare = [name for name in names if name in BACKGROUNDS or len(set(kinds)) > 1]
        said.remove(spare[rng.integers(len(spare))])
    counts = {name: kinds.count(OBJECTS.index(name)) for name in said if name in OBJECTS}
    return caption(rng, counts, next((name for name in said if name in BACKGROUNDS), None))


# ---------------------------------------------------------------- on disk


def write(output, train, val, seed=0, size=64, shuffle=False, shard_size=1000, workers=None):
    """Writes scenes as data sets lie on disk; what is there already stays, so a second run is quick.

    `output/train-00000.tar`, ...: WebDataset tars of JPEGs and captions, as img2dataset writes them.
    `output/VOCdevkit/scenes/`: validation scenes in the layout of Pascal VOC, masks as palette PNGs.
    `output/scenes.json`: the parameters. The bytes depend on these alone, not on the number of workers.

    Args:
        output: folder, new, empty, or begun by a call with the same parameters.
        train, val: numbers of scenes.
        seed, size: see `draw`.
        shuffle: gives each training scene the caption of another one of its tar, the control experiment: what is
            learnt then is learnt without words.
        shard_size: scenes a tar.
        workers: processes; None for one a core.
    Raises:
        InputError: the folder holds something else, or cannot be written (no space, no permission).
    """
    output = Path(output)
    wanted = {"version": _VERSION, "train": train, "val": val, "seed": seed, "size": size, "shuffle": shuffle,
              "shard_size": shard_size}
    if min(train, val, seed) < 0 or size < 16 or shard_size < 1:
        raise InputError(f"scenes need train, val, seed >= 0, size >= 16 and shard_size >= 1, not {wanted}")
    try:
        _claim(output, wanted)
        jobs = []
        for i, first in enumerate(range(0, train, shard_size)):
            shard = output / f"train-{i:05d}.tar"
            if not shard.exists():
                jobs.append((_write_train, shard, seed, size, shuffle, first, min(first + shard_size, train)))
        voc = output / "VOCdevkit" / "scenes"
        listing = voc / "ImageSets" / "Segmentation" / "val.txt"
        if not listing.exists():
            jobs += [
                (_write_val, voc, seed, size, first, min(first + 250, val)) for first in range(0, val, 250)
            ]
        _work(jobs, workers)
        if not listing.exists():
            files.write(listing, "".join(f"{_val_key(i)}\n" for i in range(val)).encode())
    except OSError as error:
        raise InputError(
            f"cannot write scenes to {output} ({error.strerror or error}): free some space there or choose "
            f"another folder, then run again"
        ) from error


def _claim(output, wanted):
    """Makes the folders and notes the parameters, or finds the same ones there."""
    note = output / "scenes.json"
    if output.is_dir() and any(output.iterdir()):
        try:
            found = dict(json.loads(note.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            raise InputError(f"{output} holds something else than scenes: choose another folder") from None
        if found != wanted:
            differ = ", ".join(f"{k}={found.get(k)} not {v}" for k, v in wanted.items() if found.get(k) != v)
            raise InputError(
                f"{output} holds other scenes ({differ}): choose another folder or delete it"
            ) from None
    output.mkdir(parents=True, exist_ok=True)
    files.write(note, json.dumps(wanted, indent=1).encode())
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (output / "VOCdevkit" / "scenes" / folder).mkdir(parents=True, exist_ok=True)


def _work(jobs, workers):
    """Runs (function, *arguments, first, last) jobs in processes, with progress."""
    from groupvit_jax.writer import Progress

    if not jobs:
        return
    workers = min(workers or os.cpu_count(), len(jobs))
    with Progress("scenes", sum(job[-1] - job[-2] for job in jobs), "scenes") as progress:
        if workers <= 1:
            for job, *arguments in jobs:
                job(*arguments)
                progress.advance(arguments[-1] - arguments[-2])
            return
        # Not forked: the caller may run threads (JAX does), and a forked copy of those can hang.
        spawn = multiprocessing.get_context("spawn")
        quietly = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_DFL)}  # end at Ctrl-C
        with concurrent.futures.ProcessPoolExecutor(workers, spawn, **quietly) as pool:
            running = {pool.submit(*job): job[-1] - job[-2] for job in jobs}
            try:
                for done in concurrent.futures.as_completed(running):
                    done.result()
                    progress.advance(running[done])
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _write_train(path, seed, size, shuffle, first, last):
    scenes = [draw(seed, index, size) for index in range(first, last)]
    captions = [scene.caption for scene in scenes]
    if shuffle:
        captions = captions[1:] + captions[:1]  # scenes follow each other at random

    def files():
        for index, scene, text in zip(range(first, last), scenes, captions):
            yield f"{index:09d}.jpg", _encode(scene.image, quality=92)
            yield f"{index:09d}.txt", text.encode()

    write_tar(path, files())


def _write_val(voc, seed, size, first, last):
    colours = [part for name in CLASSES for part in PALETTE[name]]
    for index in range(first, last):
        scene = draw(seed, index, size, split="val")
        files.write(voc / "JPEGImages" / f"{_val_key(index)}.jpg", _encode(scene.image, quality=95))
        mask, data = Image.fromarray(scene.mask).convert("P"), io.BytesIO()
        mask.putpalette(colours)
        mask.save(data, "PNG")
        files.write(voc / "SegmentationClass" / f"{_val_key(index)}.png", data.getvalue())


def _val_key(index):
    return f"val_{index:06d}"


def _encode(image, quality):
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality, subsampling=0)  # 4:4:4
    return data.getvalue()
