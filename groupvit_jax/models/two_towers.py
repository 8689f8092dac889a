"""GroupViT whole: image tower, text tower, the projectors into their common space, the learned logit scales."""

import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from groupvit_jax.data.packing import Packed
from groupvit_jax.errors import InputError
from groupvit_jax.models.image import ImageFeatures, ImageTower
from groupvit_jax.models.layers import REMAT, dense, partitioned
from groupvit_jax.models.text import TextTower

MAX_LOGIT_SCALE = 100.0
MOST, BLOCKS, FACTOR = 2**20, 1000, 1e6  # of a size, of blocks in a row, of a gain: more is a slip of the hand
STAGES = ("depths", "group_tokens", "output_groups")  # what has one entry a stage
# PyTorch's default for a linear layer's weights, uniform in +-1/sqrt(inputs); biases start at 0 here as everywhere.
torch_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Projector(nn.Module):
    """Linear, BatchNorm, ReLU, linear. The statistics are those of the global batch: under `jax.jit` on a sharded
    batch the mean is taken over all of it, which is what others call SyncBN. They and the result are float32."""

    hidden: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:  # [... c] -> [... d]
        y = dense(self.hidden, ("embed", "hidden"), torch_default, self.dtype, name="fc1")(x.reshape(-1, x.shape[-1]))
        y = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, name="norm",
                         use_fast_variance=False, dtype=jnp.float32,
                         scale_init=partitioned(nn.initializers.ones, ("hidden",)),
                         bias_init=partitioned(nn.initializers.zeros, ("hidden",)))(y)
        y = dense(self.features, ("hidden", "projection"), torch_default, self.dtype, name="fc2")(nn.relu(y))
        return y.reshape(*x.shape[:-1], self.features).astype(jnp.float32)


class Features(NamedTuple):
    """What the towers make of a batch: `image` [b c], `texts` [b t c], `assignments`: a soft float32 [b g n] per
    grouping."""

    image: jax.Array
    texts: jax.Array
    assignments: tuple[jax.Array, ...]


class TwoTowers(nn.Module):
    """The model. `multi_label` adds the second logit scale, of the multi-label loss."""

    image: ImageTower
    text: TextTower
    image_projector: Projector
    text_projector: Projector
    multi_label: bool = False

    if TYPE_CHECKING:  # flax cannot say that it is a pair where something is mutable, and else what the method gives
        def apply(self, variables: Mapping[str, Any], *inputs: Any, **how: Any) -> Any: ...

    def setup(self) -> None:
        init = partitioned(nn.initializers.constant(math.log(1 / 0.07)), ())
        self.caption_scale = self.param("caption_scale", init, ())
        if self.multi_label:
            self.multi_label_scale = self.param("multi_label_scale", init, ())

    def encode_image(self, images: jax.Array, keys: jax.Array | None = None) -> ImageFeatures:
        """Normalised float images [b h w 3] -> pooled [b c], segments [b g c], soft assignments per stage [b g n];
        keys [b] when training."""
        return self.image(images, keys)

    def encode_text(self, text: jax.Array | Packed) -> jax.Array:
        """int32 tokens [b t l], or the same texts packed -> [b t c]."""
        if isinstance(text, Packed):
            groups, g, t, _ = text.places.shape
            return self.text(text).reshape(groups * g, t, -1)
        b, t, n = text.shape
        return self.text(text.reshape(b * t, n)).reshape(b, t, -1)

    def project_image(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Image or segment features [... c] -> common space [... d], not normalised."""
        return self.image_projector(x, train)

    def project_text(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Text features [... c] -> common space [... d], not normalised."""
        return self.text_projector(x, train)

    def logit_scale(self) -> jax.Array:
        """The caption loss's factor on cosine similarities, at most 100."""
        return jnp.minimum(jnp.exp(self.caption_scale), MAX_LOGIT_SCALE)

    def multi_label_logit_scale(self) -> jax.Array:
        """The multi-label loss's factor, at most 100."""
        return jnp.minimum(jnp.exp(self.multi_label_scale), MAX_LOGIT_SCALE)

    def encode(self, images: jax.Array, text: jax.Array | Packed, keys: jax.Array | None = None) -> Features:
        """Both towers; each image and text is encoded by itself."""
        features = self.encode_image(images, keys)
        return Features(features.pooled, self.encode_text(text), features.assignments)

    def project(self, image: jax.Array, texts: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Features [b c] and [b t c] of the whole batch -> everything a loss needs: `image` [b d], `texts` [b t d] (not
        normalised) and the scales."""
        out = {"image": self.project_image(image, train), "texts": self.project_text(texts, train),
               "scale": self.logit_scale()}
        return out | ({"multi_label_scale": self.multi_label_logit_scale()} if self.multi_label else {})

    def __call__(self, images: jax.Array, text: jax.Array | Packed) -> dict[str, Any]:
        """What a loss needs, and `assignments`, not training."""
        features = self.encode(images, text)
        return self.project(features.image, features.texts) | {"assignments": features.assignments}


def build(config: ConfigDict, multi_label: bool, remat: str = "none", scan: bool = False) -> TwoTowers:
    """The model of `config.model`; `multi_label` says whether the multi-label loss is used, `remat` and `scan` how its
    gradient is computed (see `configs.base`, train).

    Raises InputError for sizes that do not go together. Unknown keys are errors.
    """
    dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}.get(config.dtype)
    if dtype is None:
        raise InputError(f"config.model.dtype is {config.dtype!r}: use 'float32' or 'bfloat16'")
    if remat not in REMAT:
        raise InputError(f"config.train.remat={remat!r}: use 'none', 'dots' or 'full'")
    image, text = dict(config.image), dict(config.text)
    for name in STAGES:
        image[name] = tuple(image[name])
    check_sizes(image, text, dict(config.projector))
    projector = Projector(**config.projector, dtype=dtype)
    return TwoTowers(ImageTower(**image, dtype=dtype, remat=remat),
                     TextTower(**text, dtype=dtype, remat=remat, scan=scan), projector,
                     projector.copy(), multi_label)


def check_numbers(image: dict, text: dict, projector: dict) -> None:
    """Raises InputError for what no array or layer can have."""
    stages = {f"{name}[{i}]": n for name in STAGES for i, n in enumerate(image[name])}
    bounds = [("image", name, image[name], 1, MOST) for name in ("image_size", "patch_size", "width", "heads")]
    bounds += [("image", name, n, 0, BLOCKS if name.startswith("depths") else MOST) for name, n in stages.items()]
    bounds += [("text", name, text[name], 1, MOST) for name in ("vocabulary", "length", "width", "heads")]
    bounds += [("text", "depth", text["depth"], 1, BLOCKS)]
    bounds += [("projector", name, projector[name], 1, MOST) for name in ("hidden", "features")]
    for part, name, value, low, high in bounds:
        if not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
            raise InputError(f"config.model.{part}.{name}={value}: give a whole number from {low} to {high}")
    for name in ("mlp_ratio", "init_std", "group_token_std", "position_std", "assignment_gain", "residual_gain"):
        if name in image and not 1 / FACTOR <= image[name] <= FACTOR:  # nor NaN
            raise InputError(f"config.model.image.{name}={image[name]}: give a number from {1 / FACTOR} to {FACTOR}")
    if image["mlp_ratio"] * image["width"] < 1:
        raise InputError(f"config.model.image.mlp_ratio={image['mlp_ratio']} leaves a block no channels: raise it")


def check_sizes(image: dict, text: dict, projector: dict) -> None:
    check_numbers(image, text, projector)
    if image["image_size"] % image["patch_size"]:
        raise InputError(f"config.model.image.image_size={image['image_size']} is not a multiple of "
                         f"patch_size={image['patch_size']}: change one of them")
    for name, tower in (("image", image), ("text", text)):
        if tower["width"] % tower["heads"]:
            raise InputError(f"config.model.{name}.width={tower['width']} is not a multiple of "
                             f"heads={tower['heads']}: change one of them")
    if not 0.0 <= image["drop_path"] < 1.0:
        raise InputError(f"config.model.image.drop_path={image['drop_path']}: give a rate from 0 to below 1")
    stages = {len(image[name]) for name in STAGES}
    if len(stages) != 1:
        raise InputError("config.model.image: depths, group_tokens and output_groups need one entry a stage each")
    if any(tokens and not groups for tokens, groups in zip(image["group_tokens"], image["output_groups"])):
        raise InputError("config.model.image.output_groups: give every stage that has group_tokens 1 group or more")
    if not any(image["group_tokens"]):
        raise InputError("config.model.image.group_tokens has no grouping stage: give one stage some group tokens")
