"""A model small enough to compile in seconds, as a configuration with every field of a real one, and meshes for it."""

import pathlib
import sys

import jax
import numpy as np
from jax.sharding import AxisType
from ml_collections import ConfigDict

from groupvit_jax import parallel
from groupvit_jax.training import program as programs

sys.path.append(str(pathlib.Path(__file__).parent.parent))  # `configs` lies beside the package and is not installed
from configs import base

SMALL = {  # dotted name -> value: two grouping stages, every source of noise on
    "model.dtype": "float32",
    "model.image.image_size": 16, "model.image.patch_size": 4, "model.image.width": 16, "model.image.heads": 2,
    "model.image.depths": (1, 1, 1), "model.image.group_tokens": (4, 2, 0), "model.image.output_groups": (4, 2, 0),
    "model.image.drop_path": 0.3,
    "model.text.vocabulary": 64, "model.text.length": 8, "model.text.width": 8, "model.text.heads": 2,
    "model.text.depth": 1,
    "model.projector.hidden": 12, "model.projector.features": 8,
    "data.batch": 16, "data.group": 2, "data.prompts": 2,
    "augment.erase": 0.5,
    "optim.lr_batch": 16,
}


def config(**changes) -> ConfigDict:
    """The tiny configuration; `changes` are dotted names with `__` for the dot."""
    made = base.get_config()
    made.update_from_flattened_dict(SMALL | {name.replace("__", "."): value for name, value in changes.items()})
    return made.lock()


def mesh(data: int, fsdp: int, tensor: int) -> jax.sharding.Mesh:
    """Over the first data * fsdp * tensor devices (`parallel.create_mesh` takes them all)."""
    devices = jax.devices()[: data * fsdp * tensor]
    return jax.make_mesh((data, fsdp, tensor), parallel.MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def batch(config: ConfigDict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random images and texts in the shapes and ranges of a training batch."""
    rng = np.random.default_rng(seed)
    b, side, text = config.data.batch, config.model.image.image_size, config.model.text
    tokens = rng.integers(1, text.vocabulary - 1, (b, 1 + config.data.prompts, text.length), np.int32)
    tokens[..., -2:] = text.vocabulary - 1, 0  # the end of the text is the highest id, then padding
    return {"image": rng.integers(0, 256, (b, side, side, 3), np.uint8), "text": tokens}


def program(config: ConfigDict, mesh: jax.sharding.Mesh) -> programs.Program:
    return programs.build(config, mesh, warmup=2, steps=100)


class Run:
    """State and step of a configuration on a mesh; call it with a host batch for the step's metrics."""

    def __init__(self, config: ConfigDict, mesh: jax.sharding.Mesh):
        made = program(config, mesh)
        self.mesh, self.model, self.step = mesh, made.model, made.step
        with parallel.use(mesh):
            self.state = made.create()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        with parallel.use(self.mesh):
            self.state, metrics = self.step(self.state, parallel.to_global(self.mesh, batch))
        return {name: float(value) for name, value in metrics.items()}
