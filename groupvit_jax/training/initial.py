"""Going on from given weights: a fresh state takes over what `config.init_from` names."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from flax import traverse_util
from ml_collections import ConfigDict

from groupvit_jax.errors import InputError
from groupvit_jax.interop import huggingface
from groupvit_jax.models.image import resize_positions
from groupvit_jax.training import checkpoint
from groupvit_jax.training.state import State

SCALES = ("caption_scale", "multi_label_scale")
PARTS = ("image", "text", "image_projector", "text_projector", "scales")


def check(config: ConfigDict, workdir: str) -> None:
    """Raises InputError for parts that there are not, and where nothing is to start a fresh run from."""
    parts = tuple(config.init_from.parts)
    if unknown := [part for part in parts if part not in PARTS]:
        raise InputError(f"config.init_from.parts has {unknown[0]!r}: choose among {', '.join(PARTS)}")
    if config.init_from.path and not parts:
        raise InputError(f"config.init_from.parts is empty: name some of {', '.join(PARTS)}")
    if config.init_from.path and not checkpoint.folder(workdir).is_dir():  # a run that goes on has it no more
        with of_source():
            checkpoint.find(config.init_from.path)


@contextlib.contextmanager
def of_source() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"config.init_from: {str(error).removeprefix('--checkpoint=')}") from None


def start(state: State, config: ConfigDict) -> State:
    """The fresh state with the parameters and batch statistics of `config.init_from.parts` taken from its path, each
    where the state has it; step and optimizer stay fresh.

    Gains differing from the source's are made up for, so that the function is the source's; an image position embedding
    of another size is resized, text positions beyond ours are left out (texts are causal: nothing else changes).
    Raises InputError that names a tensor which does not fit.
    """
    path, parts = config.init_from.path, tuple(config.init_from.parts)
    with of_source():
        source = checkpoint.load(path)
    found = adapt(huggingface.flat(jax.device_get(source.variables)), source.config.model, config.model)
    ours = traverse_util.flatten_dict(state.variables, sep="/")
    wanted = {name for name in ours if part_of(name) in parts}
    spare = {name for name in found if part_of(name) in parts} - wanted
    scale = f"params/{SCALES[1]}"  # the two losses are the run's choice, not the model's
    for name in sorted(wanted - {scale} if scale not in found else wanted):
        if name not in found or found[name].shape != ours[name].shape:
            there = f"has shape {found[name].shape} in {path}" if name in found else f"is not in {path}"
            raise InputError(f"config.init_from: {name} {there}, here {ours[name].shape}: give config.model the sizes "
                             f"of these weights, or leave {part_of(name)!r} out of config.init_from.parts")
    if left := sorted(spare - {scale}):
        raise InputError(f"config.init_from: {path} has {left[0]}, which is not in this model: give config.model its "
                         f"sizes, or leave {part_of(left[0])!r} out of config.init_from.parts")
    taken = {name: x for name, x in found.items() if name in wanted}
    logging.info("%d of %d tensors from %s (step %d): %s", len(taken), len(ours), path, source.step, ", ".join(parts))
    variables = huggingface.unflat({name: put(taken[name], x) if name in taken else x for name, x in ours.items()})
    return state.replace(params=variables["params"], batch_stats=variables["batch_stats"])


def part_of(name: str) -> str:
    """"params/image/stage0_tokens" -> "image"."""
    top = name.split("/")[1]
    return "scales" if top in SCALES else top


def put(x: np.ndarray, like: jax.Array) -> jax.Array:
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: x[index].astype(like.dtype))


def adapt(found: dict[str, np.ndarray], theirs: ConfigDict, ours: ConfigDict) -> dict[str, np.ndarray]:
    """Their variables in the form that our configuration of the same model has."""
    out: dict[str, Any] = dict(found)
    if (gains := huggingface.gains(theirs)) != (wanted := huggingface.gains(ours)):
        assignment, residual = (a / b for a, b in zip(gains, wanted))
        out = huggingface.fold_gains(out, theirs, assignment, residual)
    (old, new), name = ((x.image.image_size // x.image.patch_size for x in (theirs, ours)), "params/image/positions")
    if old != new and theirs.image.width == ours.image.width:
        out[name] = np.asarray(resize_positions(out[name], (old, old), (new, new)))
        logging.info("position embedding resized from %dx%d to %dx%d patches", old, old, new, new)
    name = "params/text/positions"
    out[name] = out[name][: ours.text.length]
    return out
