"""A model small enough to compile in seconds, as a configuration with every field of a real one, and meshes for it."""

import pathlib
import sys

import jax
import numpy as np
from jax.sharding import AxisType
from ml_collections import ConfigDict

from groupvit_jax import parallel
from groupvit_jax.models import two_towers
from groupvit_jax.training import optim
from groupvit_jax.training import state as states
from groupvit_jax.training import step as steps

sys.path.append(str(pathlib.Path(__file__).parent.parent))  # `configs` lies beside the package and is not installed
from configs import base  # noqa: E402

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


class Run:
    """State and step of a configuration on a mesh; call it with a host batch for the step's metrics."""

    def __init__(self, config: ConfigDict, mesh: jax.sharding.Mesh):
        self.mesh, self.model = mesh, two_towers.build(config.model, multi_label=config.data.prompts > 0)
        self.tx, schedule = optim.build(config.optim, config.data.batch, 2, 100)
        with parallel.use(mesh):
            self.state = states.create(self.model, self.tx, mesh, config.seed, config.mesh.zero1)
            self.step = steps.compile_step(self.model, self.tx, schedule, config, self.state, mesh)

    @staticmethod
    def abstract(config: ConfigDict, mesh: jax.sharding.Mesh) -> jax.stages.Compiled:
        """The compiled step, without a state or a batch."""
        model = two_towers.build(config.model, multi_label=config.data.prompts > 0)
        tx, schedule = optim.build(config.optim, config.data.batch, 2, 100)
        with parallel.use(mesh):
            state = states.abstract(model, tx, mesh, config.mesh.zero1)
            step = steps.compile_step(model, tx, schedule, config, state, mesh)
            return step.lower(state, steps.abstract_batch(config.data, model, mesh)).compile()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, float]:
        with parallel.use(self.mesh):
            self.state, metrics = self.step(self.state, parallel.to_global(self.mesh, batch))
        return {name: float(value) for name, value in metrics.items()}
