"""Weights to and from the PyTorch port in `transformers` (`transformers.models.groupvit`, Apache-2.0).

One table says which tensors of the port make which of ours; reading and writing both walk it. Arrays are
NumPy's, so that neither PyTorch nor `transformers` is needed.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from groupvit_jax.errors import InputError


class Row(NamedTuple):
    """One of our tensors, and how the port's make it: transposed, reshaped, then stacked if several."""

    ours: str  # path in the variables
    theirs: list[str]  # names in the state dict
    source: tuple[int, ...]  # shape of each of theirs
    shape: tuple[int, ...]  # what each becomes in ours
    axes: tuple[int, ...] | None = None  # transposition of each; None: none
    stack: int | None = None  # the new axis of ours along which several are stacked


def flat(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Variables by their paths, as "params/image/positions"."""
    return {name: np.asarray(x) for name, x in traverse_util.flatten_dict(dict(variables), sep="/").items()}


def unflat(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that `flat` was given."""
    return traverse_util.unflatten_dict(dict(arrays), sep="/")


def load(row: Row, tensors: list[np.ndarray]) -> np.ndarray:
    parts = [np.transpose(x, row.axes or range(x.ndim)).reshape(row.shape) for x in tensors]
    return (parts[0] if row.stack is None else np.stack(parts, row.stack)).astype(np.float32)


def store(row: Row, x: np.ndarray) -> list[np.ndarray]:
    parts = [x] if row.stack is None else [np.take(x, i, row.stack) for i in range(len(row.theirs))]
    axes = row.axes or tuple(range(len(row.source)))
    transposed, back = [row.source[a] for a in axes], np.argsort(axes)
    return [np.array(y.reshape(transposed).transpose(back), np.float32, order="C") for y in parts]


def vector(ours: str, theirs: str, shape: tuple[int, ...], source: tuple[int, ...] | None = None) -> Row:
    return Row(ours, [theirs], source or shape, shape)


def norm(ours: str, theirs: str, c: int) -> Iterator[Row]:
    yield vector(f"{ours}/scale", f"{theirs}.weight", (c,))
    yield vector(f"{ours}/bias", f"{theirs}.bias", (c,))


def linear(ours: str, theirs: list[str], n_in: tuple[int, ...], n_out: tuple[int, ...]) -> Iterator[Row]:
    """A linear map; several of the port's become one of ours, stacked before the outputs."""
    i, o, several = math.prod(n_in), math.prod(n_out), len(theirs) > 1
    yield Row(f"{ours}/kernel", [f"{x}.weight" for x in theirs], (o, i), n_in + n_out, (1, 0),
              len(n_in) if several else None)
    yield Row(f"{ours}/bias", [f"{x}.bias" for x in theirs], (o,), n_out, None, 0 if several else None)


def mlp(ours: str, theirs: str, n_in: int, hidden: int, n_out: int) -> Iterator[Row]:
    yield from linear(f"{ours}/fc1", [f"{theirs}.fc1"], (n_in,), (hidden,))
    yield from linear(f"{ours}/fc2", [f"{theirs}.fc2"], (hidden,), (n_out,))


def block(ours: str, theirs: str, c: int, heads: int, hidden: int) -> Iterator[Row]:
    split = (heads, c // heads)
    yield from norm(f"{ours}/norm1", f"{theirs}.layer_norm1", c)
    yield from linear(f"{ours}/attention/qkv", [f"{theirs}.self_attn.{x}_proj" for x in "qkv"], (c,), split)
    yield from linear(f"{ours}/attention/out", [f"{theirs}.self_attn.out_proj"], split, (c,))
    yield from norm(f"{ours}/norm2", f"{theirs}.layer_norm2", c)
    yield from mlp(f"{ours}/mlp", f"{theirs}.mlp", c, hidden, c)


def grouping(ours: str, theirs: str, c: int, heads: int, hidden: int, m: int, g: int) -> Iterator[Row]:
    split = (heads, c // heads)
    for name in ("norm_tokens", "norm_x", "norm_post_tokens"):
        yield from norm(f"{ours}/{name}", f"{theirs}.{name}", c)
    yield from mlp(f"{ours}/token_mlp/mlp", f"{theirs}.mlp_inter", m, c // 2, g)
    for x in "qkv":
        yield from linear(f"{ours}/pre_assign/{x}", [f"{theirs}.pre_assign_attn.attn.{x}_proj"], (c,), split)
        yield from linear(f"{ours}/{x}", [f"{theirs}.assign.{x}_proj"], (c,), (c,))
    yield from linear(f"{ours}/pre_assign/out", [f"{theirs}.pre_assign_attn.attn.out_proj"], split, (c,))
    yield from norm(f"{ours}/pre_assign/norm2", f"{theirs}.pre_assign_attn.norm2", c)
    yield from mlp(f"{ours}/pre_assign/mlp", f"{theirs}.pre_assign_attn.mlp", c, hidden, c)
    yield from norm(f"{ours}/pre_assign/norm_post", f"{theirs}.pre_assign_attn.norm_post", c)
    yield from linear(f"{ours}/out", [f"{theirs}.assign.proj"], (c,), (c,))
    yield from norm(f"{ours}/norm_mlp", f"{theirs}.norm_new_x", c)
    yield from mlp(f"{ours}/mlp", f"{theirs}.mlp_channels", c, hidden, c)


def image_tower(config: ConfigDict, ours: str = "params/image", theirs: str = "vision_model") -> Iterator[Row]:
    c, p, hidden = config.width, config.patch_size, int(config.mlp_ratio * config.width)
    n = (config.image_size // p) ** 2
    patch = f"{theirs}.embeddings.patch_embeddings.projection"
    # A patch is (row, column, colour) with us, (colour, row, column) in the port's convolution.
    yield Row(f"{ours}/patch/kernel", [f"{patch}.weight"], (c, 3, p, p), (p * p * 3, c), (2, 3, 1, 0))
    yield vector(f"{ours}/patch/bias", f"{patch}.bias", (c,))
    yield from norm(f"{ours}/patch_norm", f"{theirs}.embeddings.layernorm", c)
    yield vector(f"{ours}/positions", f"{theirs}.embeddings.position_embeddings", (1, n, c))
    previous = 0
    for s, (depth, m, g) in enumerate(zip(config.depths, config.group_tokens, config.output_groups)):
        stage = f"{theirs}.encoder.stages.{s}"
        for i in range(depth):
            yield from block(f"{ours}/stage{s}_block{i}", f"{stage}.layers.{i}", c, config.heads, hidden)
        if not m:
            continue
        yield vector(f"{ours}/stage{s}_tokens", f"{stage}.group_token", (1, m, c))
        yield from grouping(f"{ours}/stage{s}_grouping", f"{stage}.downsample", c, config.heads, hidden, m, g)
        if previous:
            projected = f"{stage}.group_projector"
            yield from norm(f"{ours}/stage{s}_tokens_norm", f"{projected}.0", c)
            yield from mlp(f"{ours}/stage{s}_tokens_mlp/mlp", f"{projected}.1", previous, c // 2, m)
        previous = m
    yield from norm(f"{ours}/norm", f"{theirs}.layernorm", c)


def text_tower(config: ConfigDict, ours: str = "params/text", theirs: str = "text_model") -> Iterator[Row]:
    c, embeddings = config.width, f"{theirs}.embeddings"
    yield vector(f"{ours}/tokens/embedding", f"{embeddings}.token_embedding.weight", (config.vocabulary, c))
    yield vector(f"{ours}/positions", f"{embeddings}.position_embedding.weight", (config.length, c))
    for i in range(config.depth):
        yield from block(f"{ours}/block{i}", f"{theirs}.encoder.layers.{i}", c, config.heads, 4 * c)
    yield from norm(f"{ours}/norm", f"{theirs}.final_layer_norm", c)


def projector(ours: str, theirs: str, c: int, hidden: int, features: int) -> Iterator[Row]:
    yield from linear(f"params/{ours}/fc1", [f"{theirs}.0"], (c,), (hidden,))
    yield from norm(f"params/{ours}/norm", f"{theirs}.1", hidden)
    yield vector(f"batch_stats/{ours}/norm/mean", f"{theirs}.1.running_mean", (hidden,))
    yield vector(f"batch_stats/{ours}/norm/var", f"{theirs}.1.running_var", (hidden,))
    yield from linear(f"params/{ours}/fc2", [f"{theirs}.3"], (hidden,), (features,))


def table(config: ConfigDict, multi_label: bool) -> Iterator[Row]:
    """Every tensor of the model of `config` (the `config.model` that `models.two_towers.build` takes)."""
    yield vector("params/caption_scale", "logit_scale", ())
    if multi_label:  # not in the port
        yield vector("params/multi_label_scale", "multi_label_logit_scale", ())
    yield from image_tower(config.image)
    yield from text_tower(config.text)
    yield from projector("image_projector", "visual_projection", config.image.width, **config.projector)
    yield from projector("text_projector", "text_projection", config.text.width, **config.projector)


REMEDY = "use the config that the weights were trained with"
# What older files hold beside weights, and PyTorch's count of steps, which matters only to momentum=None.
POSITION_IDS = "text_model.embeddings.position_ids"
STEP_COUNTS = ("visual_projection.1.num_batches_tracked", "text_projection.1.num_batches_tracked")


def fold_gains(arrays: dict[str, np.ndarray], config: ConfigDict, assignment: float, residual: float) -> dict[str, Any]:
    """Moves two gains of `GroupingBlock` into the weights; with the inverse gains, out of them."""
    factors = {"q/kernel": assignment / residual, "q/bias": assignment,
               "pre_assign/norm_post/scale": residual, "pre_assign/norm_post/bias": residual}
    stages = [s for s, m in enumerate(config.image.group_tokens) if m]
    scaled = {f"params/image/stage{s}_grouping/{name}": f for s in stages for name, f in factors.items()}
    return {name: x * np.float32(scaled[name]) if name in scaled else x for name, x in arrays.items()}


def gains(config: ConfigDict) -> tuple[float, float]:
    a, r = config.image.get("assignment_gain", 1.0), config.image.get("residual_gain", 1.0)
    if a == 0 or r == 0:
        raise InputError("config.model.image: a model whose assignment_gain or residual_gain is 0 is not "
                         "a plain GroupViT: use other gains")
    return a, r


def plain(config: ConfigDict) -> ConfigDict:
    """`config.model` of the plain GroupViT that a model with gains is once they are folded into its weights."""
    fields = ConfigDict(config).to_dict()
    return ConfigDict(fields | {"image": fields["image"] | {"assignment_gain": 1.0, "residual_gain": 1.0}})


def from_state_dict(state: Mapping[str, np.ndarray], config: ConfigDict, multi_label: bool = False) -> dict[str, Any]:
    """The port's state dict -> our variables {"params", "batch_stats"}, float32.

    `config` is `config.model`, its gains included: the variables give the port's outputs under them. The port
    has no scale of the multi-label loss; with `multi_label` it is expected as `multi_label_logit_scale`.
    Raises InputError that names a tensor which is missing, too many or of another shape.
    """
    found, used = {}, {POSITION_IDS, *STEP_COUNTS}
    for row in table(config, multi_label):
        for name in row.theirs:
            if name not in state:
                raise InputError(f"the weights have no tensor {name}: {REMEDY}")
            if tuple(state[name].shape) != row.source:
                raise InputError(f"tensor {name} has shape {tuple(state[name].shape)}, the config's model "
                                 f"has {row.source}: {REMEDY}")
        used.update(row.theirs)
        found[row.ours] = load(row, [np.asarray(state[name]) for name in row.theirs])
    if unknown := sorted(set(state) - used):
        raise InputError(f"the weights hold {len(unknown)} tensors that the config's model lacks, such as "
                         f"{unknown[0]}: {REMEDY}")
    a, r = gains(config)
    return unflat(fold_gains(found, config, 1 / a, 1 / r))


def to_state_dict(variables: Mapping[str, Any], config: ConfigDict, multi_label: bool = False) -> dict[str, np.ndarray]:
    """Our variables (unboxed) -> the port's state dict, float32, whose outputs are the same.

    Gains other than 1 are folded into the weights. The multi-label scale is left out unless `multi_label`.
    Raises InputError that names a tensor which is missing or too many.
    """
    found, state = fold_gains(flat(variables), config, *gains(config)), dict[str, np.ndarray]()
    if not multi_label:
        found.pop("params/multi_label_scale", None)
    for row in table(config, multi_label):
        if row.ours not in found:
            raise InputError(f"the model has no tensor {row.ours}: {REMEDY}")
        state.update(zip(row.theirs, store(row, found.pop(row.ours))))
    if found:
        raise InputError(f"the model holds {min(found)}, which the config's model lacks: {REMEDY}")
    return state | {name: np.zeros((), np.int64) for name in STEP_COUNTS}
