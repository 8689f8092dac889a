"""What of a model PyTorch's formats have no place for. It goes along, so that coming back is exact.

These are the run's configuration and progress, and tensors that cannot be had again from the state dict: the scale of
the multi-label loss, which the port lacks, and those into which gains were folded, as a product is rounded.
"""

import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from ml_collections import ConfigDict

from groupvit_jax.errors import InputError
from groupvit_jax.evals.windows import SIDES
from groupvit_jax.interop import huggingface
from groupvit_jax.interop.huggingface import flat, unflat

KEY = "groupvit_jax"  # in a .pth; in a folder the two files below
FACTS, TENSORS = f"{KEY}.json", f"{KEY}.safetensors"
FIELDS = ("config", "step", "metrics", "segmentation")


class Extras(NamedTuple):
    """facts: {"config", "step", "metrics", "segmentation"}, JSON; tensors: path in the variables -> array."""

    facts: dict[str, Any]
    tensors: dict[str, np.ndarray]

    @property
    def heads(self) -> tuple[int, int]:
        return tuple(self.facts["config"]["model"][tower]["heads"] for tower in ("image", "text"))


def of(config: ConfigDict, variables: Mapping[str, Any], step: int, metrics: Mapping[str, Any],
       state: Mapping[str, np.ndarray]) -> Extras:
    """Of a model and the state dict (the port's names) that is written of it."""
    multi_label = "multi_label_logit_scale" in state
    again = flat(huggingface.from_state_dict(state, huggingface.plain(config.model), multi_label))
    lost = {name: x for name, x in flat(variables).items() if name not in again or (again[name] != x).any()}
    segmentation = {name: config.eval[name] for name in SIDES}
    return Extras(dict(zip(FIELDS, (json.loads(config.to_json()), step, metrics, segmentation))), lost)


def apply(extras: Extras, config: ConfigDict, variables: dict[str, Any], state: Mapping[str, np.ndarray]
          ) -> tuple[ConfigDict, dict[str, Any]]:
    """The configuration and variables that went out as `state`, given those that `state` alone gives.

    Where PyTorch has changed the weights since, these count and gains are gone.
    """
    ours = ConfigDict(extras.facts["config"])
    multi_label = "multi_label_logit_scale" in state
    if not same_tensors(ours.model, config.model):
        raise InputError(f"{FACTS} is of another model than the weights beside it: remove {FACTS} and {TENSORS}")
    scale = "params/multi_label_scale"
    found = flat(variables)
    lost = {name: x for name, x in extras.tensors.items() if name in found or name == scale}
    again = huggingface.to_state_dict(unflat(found | lost), ours.model, multi_label)
    if any(state[name].dtype != np.float32 or (state[name] != again[name]).any() for name in state):
        lost = {name: x for name, x in lost.items() if name == scale}
        ours.model = huggingface.plain(ours.model)
    if scale not in found | lost:
        ours.data.prompts = 0
    return ours, unflat(found | lost)


def same_tensors(ours: Any, theirs: ConfigDict) -> bool:
    """Whether two `config.model` have the same table, the first of which may be anything."""
    try:  # row by row, as one could be made to have no end
        return all(a == b for a, b in itertools.zip_longest(huggingface.table(ours, True),
                                                            huggingface.table(theirs, True)))
    except Exception:
        return False


def write(extras: Extras, folder: pathlib.Path) -> None:
    """Beside a folder's weights."""
    (folder / FACTS).write_text(json.dumps(extras.facts, indent=1))
    if extras.tensors:
        tensors = {name: np.array(x, order="C") for name, x in extras.tensors.items()}
        (folder / TENSORS).write_bytes(safetensors.numpy.save(tensors))


def read(folder: pathlib.Path) -> Extras | None:
    """None where there are none."""
    if not (folder / FACTS).is_file():
        return None
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        tensors = safetensors.numpy.load_file(folder / TENSORS) if (folder / TENSORS).is_file() else {}
    except Exception as error:  # damage surfaces as errors of many kinds
        raise InputError(f"{folder / FACTS} or {TENSORS} cannot be read ({error}): remove both") from None
    return checked(facts, tensors, folder / FACTS)


def to_plain(extras: Extras) -> dict[str, Any]:
    """As a `.pth` holds them."""
    return {"facts": json.dumps(extras.facts), "tensors": extras.tensors}


def from_plain(found: Any) -> Extras:
    """From what a `.pth` holds, its tensors already arrays."""
    try:
        facts, tensors = json.loads(found["facts"]), dict(found["tensors"])
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise InputError(f"its entry {KEY!r} is damaged ({error}): export it again") from None
    return checked(facts, tensors, f"its entry {KEY!r}")


def checked(facts: Any, tensors: dict[str, np.ndarray], place: Any) -> Extras:
    """InputError for what these are not."""
    extras = Extras(facts, tensors)
    try:
        config = ConfigDict(facts["config"])
        sound = isinstance(config.data.prompts + facts["step"] + sum(extras.heads), int)
        sound &= all(isinstance(config.eval[name], int) for name in SIDES)
        sound &= all(isinstance(gain, int | float) for gain in huggingface.gains(config.model))
        dict(facts["metrics"])
    except Exception as error:
        raise InputError(f"{place} is damaged ({type(error).__name__}: {error}): remove it") from None
    if not sound:
        raise InputError(f"{place} is damaged: remove it")
    return extras
