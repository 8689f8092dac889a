"""Composed scenes on disk: training tars, and a validation set in the layout of Pascal VOC."""

import concurrent.futures
import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from groupvit_jax import files
from groupvit_jax.data.tar import write_tar
from groupvit_jax.errors import InputError

Job = tuple[Any, ...]  # see `write` and `_work`


class Scene(NamedTuple):
    image: np.ndarray  # uint8 [s s 3]
    mask: np.ndarray  # uint8 [s s], index into the set's classes, every pixel labelled
    caption: str
    names: tuple  # the visible classes, in label order


def write(output: str | os.PathLike, name: str, draw: Callable, wanted: dict[str, Any],
          colours: Iterable[Sequence[int]], workers: int | None = None,
          more: Iterable[Job] = ()) -> None:
    """Writes scenes as data sets lie on disk; what is there already stays, so a second run is quick.

    `output/train-00000.tar`, ...: WebDataset tars of JPEGs and captions, as img2dataset writes them.
    `output/VOCdevkit/NAME/`: validation scenes in the layout of Pascal VOC, masks as palette PNGs.
    `output/NAME.json`: the parameters. The bytes depend on these alone, not on the number of workers.

    Args:
        output: folder, new, empty, or begun by a call with the same parameters.
        name: of the set.
        draw: `draw(index, split=...)` -> Scene, always the same; goes to other processes.
        wanted: all parameters, for the note; "train", "val", "seed", "size", "shuffle" and "shard_size" among them.
        colours: of the classes in label order, (r, g, b) each.
        workers: processes; None for one a core.
        more: tars beside these: (path below output, function, arguments..., first, last); called with the whole path.
    Raises:
        InputError: the folder holds something else, or cannot be written (no space, no permission).
    """
    folder = Path(output)
    train, val, shard = wanted["train"], wanted["val"], wanted["shard_size"]
    if min(train, val, wanted["seed"]) < 0 or wanted["size"] < 16 or shard < 1:
        found = ", ".join(f"{field}={wanted[field]}" for field in ("train", "val", "seed", "size", "shard_size"))
        raise InputError(f"{name} need train, val, seed >= 0, size >= 16 and shard_size >= 1, not {found}")
    try:
        _claim(folder, name, wanted)
        tars: list[Job] = [
            (f"train-{i:05d}.tar", _write_train, draw, wanted["shuffle"], first, min(first + shard, train))
            for i, first in enumerate(range(0, train, shard))]
        jobs: list[Job] = [(job, folder / path, *arguments) for path, job, *arguments in (*tars, *more)
                           if not (folder / path).exists()]
        voc = folder / "VOCdevkit" / name
        listing = voc / "ImageSets" / "Segmentation" / "val.txt"
        if not listing.exists():
            palette = [part for colour in colours for part in colour]
            jobs += [(_write_val, voc, draw, palette, first, min(first + 250, val)) for first in range(0, val, 250)]
        _work(jobs, name, workers)
        if not listing.exists():
            files.write(listing, "".join(f"{_val_key(i)}\n" for i in range(val)).encode())
    except OSError as error:
        raise InputError(
            f"cannot write {name} to {folder} ({error.strerror or error}): free some space there or choose "
            f"another folder, then run again"
        ) from error


def _claim(output: Path, name: str, wanted: dict[str, Any]) -> None:
    """Makes the folders and notes the parameters, or finds the same ones there."""
    note = output / f"{name}.json"
    if output.is_dir() and any(output.iterdir()):
        try:
            found = dict(json.loads(note.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            raise InputError(f"{output} holds something else than {name}: choose another folder") from None
        if found != wanted:
            differ = ", ".join(f"{k}={found.get(k)} not {v}" for k, v in wanted.items() if found.get(k) != v)
            raise InputError(
                f"{output} holds other {name} ({differ}): choose another folder or delete it"
            ) from None
    output.mkdir(parents=True, exist_ok=True)
    files.write(note, json.dumps(wanted, indent=1).encode())
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (output / "VOCdevkit" / name / folder).mkdir(parents=True, exist_ok=True)


def _work(jobs: Sequence[Job], name: str, workers: int | None) -> None:
    """Runs (function, *arguments, first, last) jobs in processes, with progress."""
    from groupvit_jax.writer import Progress

    if not jobs:
        return
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    with Progress(name, sum(job[-1] - job[-2] for job in jobs), "scenes") as progress:
        if workers <= 1:
            for job, *arguments in jobs:
                job(*arguments)
                progress.advance(arguments[-1] - arguments[-2])
            return
        # Not forked: the caller may run threads (JAX does), and a forked copy of those can hang.
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(  # they end at Ctrl-C, and quietly
                workers, spawn, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)) as pool:
            running = {pool.submit(*job): job[-1] - job[-2] for job in jobs}
            try:
                for done in concurrent.futures.as_completed(running):
                    done.result()
                    progress.advance(running[done])
            except BrokenProcessPool:
                time.sleep(1)  # Ctrl-C ends the processes too, and may still be on its way to this one
                raise InputError(f"a process that writes {name} was killed, maybe for want of memory: run it again; it "
                                 "goes on where it stopped") from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _write_train(path: Any, draw: Callable, shuffle: bool, first: int, last: int) -> None:
    scenes = [draw(index, split="train") for index in range(first, last)]
    captions = [scene.caption for scene in scenes]
    if shuffle:
        captions = captions[1:] + captions[:1]  # scenes follow each other at random

    def files() -> Iterator[tuple[str, bytes]]:
        for index, scene, text in zip(range(first, last), scenes, captions):
            yield f"{index:09d}.jpg", _encode(scene.image, quality=92)
            yield f"{index:09d}.txt", text.encode()

    write_tar(path, files())


def _write_val(voc: Path, draw: Callable, palette: Any, first: int, last: int) -> None:
    for index in range(first, last):
        scene = draw(index, split="val")
        files.write(voc / "JPEGImages" / f"{_val_key(index)}.jpg", _encode(scene.image, quality=95))
        mask, data = Image.fromarray(scene.mask).convert("P"), io.BytesIO()
        mask.putpalette(palette)
        mask.save(data, "PNG")
        files.write(voc / "SegmentationClass" / f"{_val_key(index)}.png", data.getvalue())


def _val_key(index: int) -> str:
    return f"val_{index:06d}"


def _encode(image: np.ndarray, quality: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality, subsampling=0)  # 4:4:4
    return data.getvalue()
