"""A folder as `groupvit export --format=hf` writes it, from the random port, and photographs to try it on."""

import importlib.util
import json
import pathlib
import shutil

import port
from ml_collections import ConfigDict
from PIL import Image

from groupvit_jax.inference import Model
from groupvit_jax.interop import torch_segment
from groupvit_jax.interop.processor_files import processor_files

GEOMETRY = {"size": 96, "long": 438, "window": 96, "stride": 48}  # the published one, made smaller
NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def photograph(i: int, height: int, width: int) -> Image.Image:
    """One of those that come with scikit-image (test extra), resized."""
    folder = pathlib.Path(importlib.util.find_spec("skimage").submodule_search_locations[0], "data")
    return Image.open(folder / NAMES[i % len(NAMES)]).convert("RGB").resize((width, height))


def write_processor(folder: pathlib.Path, side: int, length: int) -> pathlib.Path:
    for name, content in processor_files(side, length).items():
        (folder / name).write_bytes(content)
    return folder


def write(folder: pathlib.Path, sizes: dict) -> Model:
    """Writes the folder of a random port of `sizes`; our model with the same weights."""
    theirs = port.make_port(sizes)
    theirs.save_pretrained(folder)
    write_processor(folder, sizes["image"]["image_size"], sizes["text"]["length"])
    (folder / "groupvit_jax.json").write_text(json.dumps({"segmentation": GEOMETRY}))
    shutil.copy(torch_segment.__file__, folder / "segment.py")
    _, variables, _ = port.make_ours(sizes, theirs)
    return Model(ConfigDict({"model": sizes, "data": {"prompts": 0}, "eval": GEOMETRY}), variables)
