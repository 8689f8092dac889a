"""Any file with a GroupViT's weights to a model of ours: which form it has, its tensors, its sizes, its variables."""

import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
import safetensors
from ml_collections import ConfigDict

from groupvit_jax.errors import InputError
from groupvit_jax.evals.windows import SIDES, Geometry
from groupvit_jax.interop import extras, huggingface, nvlabs, sizes, torch_files
from groupvit_jax.interop.torch_tensors import Tensor
from groupvit_jax.models import two_towers
from groupvit_jax.models.image import resize_positions

INDEXED = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
MOST = 16  # times a file's size, the tensors taken from it
WANTED = "give a Hugging Face folder, a .safetensors, a .pth or .bin file of a GroupViT"


class Weights(NamedTuple):
    """A model read from a file.

    config: `model`, `eval`, `data.prompts`, and all the rest if this code trained it. variables: {"params",
    "batch_stats"}, float32 NumPy arrays. step, metrics: of the training, 0 and {} if the file does not say.
    form: what the file is. ignored: what of it is not used, in words. state: the port's state dict it holds. port: the
    `config.json` beside it.
    """

    config: ConfigDict
    variables: dict[str, Any]
    step: int
    metrics: dict[str, float]
    form: str
    ignored: list[str]
    state: dict[str, np.ndarray]
    port: dict[str, Any] | None


class Raw(NamedTuple):
    """What lies in a file: its form, its state dict, the names of what else it holds, the attention heads it tells of;
    the port's config and our extras that it has with it."""

    form: str
    state: dict[str, np.ndarray]
    others: list[str]
    heads: tuple[int | None, int | None] = (None, None)
    port: dict[str, Any] | None = None
    more: extras.Extras | None = None


def is_weights(path: str) -> bool:
    """Whether there is a file, or a folder as Hugging Face's, at `path`."""
    place = pathlib.Path(path).expanduser()
    return place.is_file() or any((place / name).is_file() for name in ("config.json", *INDEXED))


def read(path: str, heads: tuple[int | None, int | None] = (None, None)) -> Weights:
    """The model in a Hugging Face folder, a .safetensors, .pth or .bin file, or a bare state dict.

    heads: attention heads of the image and the text tower, for files that do not say; None: one to 64 channels.
    No code of the file runs, and PyTorch is not needed. Raises InputError for what is no such file, lacks a tensor, or
    was made for something that this code does not compute.
    """
    place = pathlib.Path(path).expanduser()
    if not is_weights(path):
        raise InputError(f"{path} holds no weights: {WANTED}")
    raw = read_folder(place) if place.is_dir() else read_file(place)
    state = {name.removeprefix("module."): x for name, x in raw.state.items()}  # of a model wrapped for several GPUs
    state = nvlabs.to_port(state) if nvlabs.is_original(state) else state
    try:
        return assemble(raw, state, heads)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def assemble(raw: Raw, state: dict[str, np.ndarray], heads: tuple[int | None, int | None]) -> Weights:
    known = sizes.heads_of(raw.port) if raw.port else raw.more.heads if raw.more else raw.heads
    if any(asked and told and asked != told for asked, told in zip(heads, known)):
        raise InputError(f"it says that its towers have {known[0]} and {known[1]} heads: leave out --heads")
    model = sizes.model_config(state, (heads[0] or known[0], heads[1] or known[1]))
    multi_label = "multi_label_logit_scale" in state
    two_towers.build(model, multi_label)
    names = {name for row in huggingface.table(model, multi_label) for name in row.theirs}
    ignored = sorted(f"{name} {list(x.shape)}" for name, x in state.items() if name not in names)
    used = {name: x for name, x in state.items() if name in names}
    variables = huggingface.from_state_dict(used, model, multi_label)
    geometry = {name: getattr(Geometry, name) for name in SIDES}
    config = ConfigDict({"model": model, "data": {"prompts": 3 * multi_label},
                         "eval": {"every": 0, "tasks": ("voc",), "data_root": "", "batch": 0, **geometry}})
    step, metrics = 0, {}
    if raw.more:
        config, variables = extras.apply(raw.more, config, variables, used)
        step, metrics = raw.more.facts["step"], raw.more.facts["metrics"]
    return Weights(config, variables, step, metrics, raw.form, ignored + raw.others, used, raw.port)


def resized(weights: Weights, image_size: int) -> Weights:
    """For images of another size: the position embedding resized as the towers would at every call."""
    image = weights.config.model.image
    if image_size % image.patch_size:
        raise InputError(f"--image_size={image_size} is not a multiple of the patches of {image.patch_size} pixels")
    old, new = image.image_size // image.patch_size, image_size // image.patch_size
    config = ConfigDict(weights.config.to_dict())
    variables: dict[str, Any] = huggingface.flat(weights.variables)
    name = "params/image/positions"
    variables[name] = np.asarray(resize_positions(variables[name], (old, old), (new, new)))
    config.model.image.image_size = image_size
    return weights._replace(config=config, variables=huggingface.unflat(variables))


def read_folder(folder: pathlib.Path) -> Raw:
    found = next((folder / name for name in INDEXED if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{folder} has no {' or '.join(INDEXED)}: {WANTED}")
    return read_file(found)


def read_file(file: pathlib.Path) -> Raw:
    """A file's tensors, and what lies beside it if it is named as in Hugging Face's folders."""
    if file.name.endswith(".index.json"):
        raw = Raw("sharded", read_shards(file), [])
    elif file.suffix == ".safetensors":
        raw = Raw("safetensors", read_safetensors(file), [])
    else:
        raw = read_torch(file)
    if file.name not in INDEXED:
        return raw
    port = read_json(file.with_name("config.json")) if file.with_name("config.json").is_file() else None
    if port and port.get("model_type", "groupvit") != "groupvit":
        raise InputError(f"{file.parent} holds a model of type {port['model_type']!r}: only groupvit can be read")
    return raw._replace(form=f"Hugging Face folder ({file.name})", port=port, more=extras.read(file.parent))


def read_shards(index: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of several files, as an index lists them."""
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise InputError(f"{index} has no weight_map of file names: download it again")
    state: dict[str, np.ndarray] = {}
    for name in sorted(set(shards.values())):
        if pathlib.PurePath(name).name != name or not (index.parent / name).is_file():
            raise InputError(f"{index} names {name!r}, which is no file beside it: download the whole folder")
        state |= read_file(index.parent / name).state
    if missing := shards.keys() - state.keys():
        raise InputError(f"{index} names {min(missing)}, which no file has: download the whole folder")
    return state


def read_json(file: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON ({error}): download it again") from None
    if not isinstance(found, dict):
        raise InputError(f"{file} is no JSON object: download it again")
    return found


def read_safetensors(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with safetensors.safe_open(file, framework="np") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # it is no dict
    except Exception as error:  # damage and unknown types surface as errors of many kinds
        raise InputError(f"{file} cannot be read as safetensors ({error}): download it again, or save it in float32"
                         ) from None


def read_torch(file: pathlib.Path) -> Raw:
    """A file of `torch.save`: a training checkpoint {"model": state dict, ...}, or a state dict."""
    found = torch_files.read(file)
    if not isinstance(found, dict):
        raise InputError(f"{file} holds no state dict: save model.state_dict() instead")
    inner = next((key for key in ("model", "state_dict") if isinstance(found.get(key), dict)), None)
    tensors = found[inner] if inner else found
    tensors = {str(name): x for name, x in tensors.items()}
    state = arrays(file, {name: x for name, x in tensors.items() if isinstance(x, Tensor)})
    others = [name for name, x in tensors.items() if not isinstance(x, Tensor)]
    if not inner:
        return Raw("state dict", state, sorted(others))
    others += [str(key) for key in found if key not in (inner, extras.KEY)]
    more = None
    if extras.KEY in found:
        plain = found[extras.KEY]
        if isinstance(plain, dict) and isinstance(plain.get("tensors"), dict):
            kept = {str(name): x for name, x in plain["tensors"].items() if isinstance(x, Tensor)}
            plain = plain | {"tensors": arrays(file, kept)}
        more = extras.from_plain(plain)
    return Raw("training checkpoint", state, sorted(others), nvlabs.heads_of(found.get("config")), more=more)


def arrays(file: pathlib.Path, tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The numbers of tensors; InputError for many that view the same few numbers, which memory might not hold."""
    if sum(math.prod(x.shape) * x.dtype.itemsize for x in tensors.values()) > MOST * file.stat().st_size:
        raise InputError(f"{file} has tensors that repeat its numbers many times: save copies of them instead")
    return {name: x.array() for name, x in tensors.items()}
