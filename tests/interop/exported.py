"""A folder as `groupvit export --format=hf` writes it, with the random port's weights, and photographs to try it on."""

import importlib.util
import pathlib

import port
from ml_collections import ConfigDict
from PIL import Image

from groupvit_jax.inference import Model
from groupvit_jax.interop import writing
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
    """Exports our model of `sizes` with the random port's weights, which it returns."""
    _, variables, _ = port.make_ours(sizes, port.make_port(sizes))
    config = ConfigDict({"model": sizes, "data": {"prompts": 0}, "eval": GEOMETRY})
    writing.write_folder(folder, config, variables, 0, {}, licence="")
    return Model(config, variables)
