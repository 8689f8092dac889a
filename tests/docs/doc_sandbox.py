"""A folder in which what the pages say can be typed: runs, photographs, pairs and benchmarks, all of them tiny."""

import json
import pathlib
import shutil
import sqlite3
import sys

import fashion_files
import numpy as np
import pairs
import tiny_run
from PIL import Image

from groupvit_jax.drawn import scenes

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "evals"))
import layouts  # noqa: E402

SIZES = ((40, 40), (48, 64))  # pixels of the benchmarks' pictures


def write(folder: pathlib.Path) -> None:
    """Makes the sandbox in a new folder."""
    folder.mkdir()
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "launch").symlink_to(ROOT / "launch")
    (folder / ".git").mkdir()  # launch/tpu.sh looks for a checkout
    runs(folder / "runs")
    photographs(folder)
    benchmarks(folder / "data")
    for name in ("gcc3m", "gcc12m", "yfcc14m"):
        (folder / "data" / name).mkdir()
        for shard in range(2):
            pairs.write(folder / "data" / name / f"{shard:05}.tar", pairs.CAPTIONS)
    lists(folder)


def runs(folder: pathlib.Path) -> None:
    config = tiny_run.config()
    for name in ("quickstart", "a"):
        tiny_run.save(folder / name, config)
    scenes.write(folder / "scenes", train=16, val=2, seed=5, size=48, workers=1)
    fashion_files.write(folder.parent / "idx")  # for `groupvit data fashion`


def photographs(folder: pathlib.Path) -> None:
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("photos/zebra.jpg", "photos/beach.jpg", "photo.jpg"):
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        small.resize((60, 48), Image.Resampling.BICUBIC).save(folder / name)


def benchmarks(folder: pathlib.Path) -> None:
    for key in layouts.KEYS:
        layouts.write(key, folder, SIZES)
    for i in range(1000):
        (folder / "imagenet" / "val" / f"n{i:08}").mkdir(parents=True)
    for i in range(8):
        layouts.photograph(i, (40, 48), np.random.default_rng(i)).save(
            folder / "imagenet" / "val" / f"n{i:08}" / "a.JPEG")


def lists(folder: pathlib.Path) -> None:
    """What is downloaded of YFCC100M and RedCaps to make lists for img2dataset: a few rows."""
    (folder / "yfcc100m_subset_data.tsv").write_text("0\t7\tab\n1\t9\tcd\n")
    with sqlite3.connect(folder / "yfcc100m_dataset.sql") as connection:
        connection.execute("create table yfcc100m_dataset (photoid integer primary key, title text, description text, "
                           "downloadurl text)")
        connection.executemany("insert into yfcc100m_dataset values (?, ?, ?, ?)", [
            (7, "a+zebra", "seen+%3Cb%3Ehere%3C%2Fb%3E", "u7"), (8, "not+wanted", "", "u8"), (9, "", "a+kite", "u9")])
    connection.close()
    annotations = folder / "redcaps" / "annotations"
    annotations.mkdir(parents=True)
    for name in ("birds_2019", "boats_2020"):
        rows = [{"image_id": "x", "url": f"u/{name}", "raw_caption": "A!", "caption": name}]
        (annotations / f"{name}.json").write_text(json.dumps({"info": {}, "annotations": rows}))
