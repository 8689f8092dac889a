"""Loads the GroupViT programs beside this file. They need neither groupvit_jax nor flax, only JAX:

    pip install jax flatbuffers

    from load import load
    programs = load()
    embeddings = programs["image_encoder"](images)

`manifest.json` says what each program takes and gives. A program is compiled when it first sees a batch of a new size.
"""

import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np
from jax import export


def load(folder: str | pathlib.Path = pathlib.Path(__file__).parent) -> Any:
    """The programs in `folder` by name: functions of NumPy or JAX arrays, with the weights on the default device."""
    folder = pathlib.Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    with np.load(folder / manifest["weights"]) as weights:
        weights = jax.device_put(dict(weights))
    calls = {name: export.deserialize(bytearray((folder / program["file"]).read_bytes())).call
             for name, program in manifest["programs"].items()}
    return {name: functools.partial(jax.jit(call), weights) for name, call in calls.items()}
