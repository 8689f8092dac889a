"""A run of a tiny model with random weights, saved as training saves it; nothing is compiled for it."""

import contextlib
import pathlib
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from groupvit_jax import inference
from groupvit_jax.models import two_towers
from groupvit_jax.training import state as states
from groupvit_jax.training.checkpoint import Checkpoints

sys.path.append(str(pathlib.Path(__file__).parent.parent))  # `configs` lies beside the package and is not installed
from configs import scenes

OVERRIDES = {
    "model.image.image_size": 32, "model.image.width": 16, "model.image.heads": 2,
    "model.text.width": 16, "model.text.heads": 2, "model.text.length": 16,
    "model.projector.hidden": 32, "model.projector.features": 16,
    "eval.size": 32, "eval.window": 32, "eval.stride": 16, "eval.long": 128, "eval.batch": 8,
}  # fmt: skip

TWO_STAGES = {"model__image__depths": (1, 1, 1), "model__image__group_tokens": (6, 3, 0),
              "model__image__output_groups": (6, 3, 0)}


def config(**more) -> ConfigDict:
    """configs/scenes.py made smaller; `more` overrides, with __ for a dot."""
    config = scenes.get_config()
    overrides = OVERRIDES | {name.replace("__", "."): value for name, value in more.items()}
    config.update_from_flattened_dict(overrides)
    return config


def load(workdir, **more):
    """The `groupvit_jax.inference.Model` of such a run, saved in `workdir`."""
    save(workdir, config(**more))
    return inference.load(str(workdir))


def save(workdir, config: ConfigDict, step: int = 7) -> None:
    """Random weights, of the size that makes no assignment uniform, as the checkpoint of `step` in `workdir`."""
    rng = np.random.default_rng(0)
    model = two_towers.build(config.model, multi_label=config.data.prompts > 0)

    def draw(path, x):
        name = jax.tree_util.keystr(path)
        if "var" in name or x.ndim == 0:
            return np.full(x.shape, 2.0, x.dtype)
        spread = 0.3 if x.ndim == 1 else 1.5 / np.sqrt(x.shape[0] if x.ndim == 2 else x.shape[-1])
        return (rng.normal(size=x.shape) * spread + ("scale" in name)).astype(x.dtype)

    variables = jax.tree_util.tree_map_with_path(draw, states.abstract_variables(model))
    state = states.State(np.int32(step), variables["params"], variables["batch_stats"], {"count": np.int32(step)})
    with contextlib.closing(Checkpoints(str(workdir))) as checkpoints:
        checkpoints.save(jax.tree.map(jax.numpy.asarray, state), config, step, {"loss": 1.0})
