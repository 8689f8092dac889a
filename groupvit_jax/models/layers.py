"""The parts both towers are built from: linear maps, norms, attention, the pre-norm transformer block.

Flax's defaults differ from PyTorch's (LayerNorm epsilon, GELU, initial weights); each is set here, once, so that
weights can cross to PyTorch and back. Every parameter names its axes logically; `groupvit_jax.parallel` maps the
names to the mesh.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from groupvit_jax.models.attention import attend

Initializer = Callable[..., jax.Array]


class Inits(NamedTuple):
    """Initial weights of a transformer block's four linear maps."""

    attention_in: Initializer
    attention_out: Initializer
    mlp_in: Initializer
    mlp_out: Initializer


def truncated_normal(std: float) -> Initializer:
    """Normal of deviation `std` cut at +-2 in absolute value, as timm's `trunc_normal_` (not at two deviations)."""
    # Past 5 deviations float32 no longer tells the cut from infinity, and one weight in 2**23 lands on it: a -2.0.
    cut = min(2.0 / std, 5.0)
    return nn.initializers.truncated_normal(stddev=std, lower=-cut, upper=cut)


def exact_gelu(x: jax.Array) -> jax.Array:
    """GELU by the error function, as PyTorch writes it. `jax.nn.gelu` is the tanh approximation, and where it is not,
    takes erfc, which costs twice as much as erf and is better only where GELU is nearly 0."""
    y = x.astype(jnp.float32)
    return (0.5 * y * (1.0 + jax.lax.erf(y * 0.5**0.5))).astype(x.dtype)


def quick_gelu(x: jax.Array) -> jax.Array:
    """CLIP's x * sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


def unit(x: jax.Array | np.ndarray) -> jax.Array:
    """Unit length along the last axis, in float32; a zero vector stays zero."""
    y: Any = x.astype(jnp.float32)
    return y * jax.lax.rsqrt(jnp.maximum(jnp.sum(y * y, axis=-1, keepdims=True), 1e-24))


def partitioned(init: Initializer, axes: tuple[str, ...]) -> Callable[..., Any]:
    """`init` of an array whose axes have these names. flax hands a module the array, not the box that it is kept in."""
    return nn.with_logical_partitioning(init, axes)


class Dense(nn.Module):
    """A linear map with bias over the last `inputs` axes; `axes` names the axes of its kernel, inputs first.

    With `several`, the first axis of `features` is of as many maps, applied one by one: the result is a tuple.
    (`nn.DenseGeneral` draws its weights in a flattened shape, which the named axes of a kernel of rank 4 do not fit.)
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    initial: Initializer
    inputs: int = 1
    dtype: Any = jnp.float32
    several: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        shape = x.shape[-self.inputs:] + self.features
        kernel = self.param("kernel", partitioned(self.initial, self.axes), shape)
        bias = self.param("bias", partitioned(nn.initializers.zeros, self.axes[self.inputs:]),
                          self.features)
        x, kernel, bias = (y.astype(self.dtype) for y in (x, kernel, bias))
        # FSDP gathers a weight for its use. Left to choose, XLA splits what both weights and batch want over one mesh
        # axis as it likes, and was seen to compute wrong numbers on a 2x2x2 mesh.
        kernel, bias = (nn.with_logical_constraint(y, tuple("activation" if a == "embed" else a for a in axes))
                        for y, axes in ((kernel, self.axes), (bias, self.axes[self.inputs:])))
        # float32 means float32: TPUs multiply with bfloat16 inputs, GPUs with TF32, unless told otherwise.
        precision = jax.lax.Precision.HIGHEST if self.dtype == jnp.float32 else None
        product = lambda kernel: jnp.tensordot(x, kernel, self.inputs, precision=precision)  # noqa: E731
        if self.several:
            return tuple(add_bias(product(kernel[..., i, :, :]), bias[i]) for i in range(len(bias)))
        return product(kernel) + bias


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x [b n h d] + bias [h d]. On TPUs the bias's gradient, a sum over b and n, is a product with ones: where tokens
    lie along the lanes, as the gradients of queries, keys and values do, that costs a fraction of adding up lanes."""
    return x + bias


def gradient_by_product(gradient: jax.Array) -> jax.Array:
    ones = jnp.ones((8, *gradient.shape[:2]), gradient.dtype)  # one row would be taken for a sum again
    precision = jax.lax.Precision.HIGHEST if gradient.dtype == jnp.float32 else None
    return jnp.tensordot(ones, gradient, 2, precision=precision)[0]


add_bias.defvjp(lambda x, bias: (x + bias, None), lambda _, gradient: (gradient, jax.lax.platform_dependent(
    gradient, tpu=gradient_by_product, default=lambda gradient: gradient.sum((0, 1)))))


def dense(features: int | tuple[int, ...], axes: tuple[str, ...], init: Initializer, dtype: Any, *,
          inputs: int = 1, several: bool = False, name: str | None = None) -> Dense:
    """`Dense` in one line: features may be a number."""
    features = features if isinstance(features, tuple) else (features,)
    return Dense(features, axes, init, inputs, dtype, several, name=name)


def layer_norm(dtype: Any, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with PyTorch's epsilon; statistics in float32 whatever `dtype` is."""
    return nn.LayerNorm(
        epsilon=1e-5, dtype=dtype, name=name, use_fast_variance=False,
        scale_init=partitioned(nn.initializers.ones, ("norm",)),
        bias_init=partitioned(nn.initializers.zeros, ("norm",)))


class Mlp(nn.Module):
    """Linear, activation, linear, over the last axis."""

    hidden: int
    features: int
    act: Callable[[jax.Array], jax.Array]
    inits: Inits
    dtype: Any = jnp.float32
    axes: tuple[str, str, str] = ("embed", "mlp", "embed")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = dense(self.hidden, self.axes[:2], self.inits.mlp_in, self.dtype, name="fc1")(x)
        return dense(self.features, self.axes[1:], self.inits.mlp_out, self.dtype, name="fc2")(self.act(x))


class Attention(nn.Module):
    """Multi-head self-attention. Queries, keys and values have one array of weights; they are projected one by one, as
    taking one result apart, and together again for its gradient, costs more than a larger product gains."""

    heads: int
    inits: Inits
    causal: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | np.ndarray | None = None) -> jax.Array:  # [b n c], [b 1 n n]
        c = x.shape[-1]
        shape = (3, self.heads, c // self.heads)
        q, k, v = dense(shape, ("embed", "qkv", "heads", "head_dim"), self.inits.attention_in, self.dtype, several=True,
                        name="qkv")(x)  # each [b n h d]
        if self.causal:
            order = np.tri(x.shape[1], dtype=bool)
            mask = order if mask is None else mask & order
        x = attend(q, k, v, mask)
        return dense(c, ("heads", "head_dim", "embed"), self.inits.attention_out, self.dtype, inputs=2,
                     name="out")(x)  # [b n c]


def fold(keys: jax.Array, number: int) -> jax.Array:
    """Another key for each of keys [b]. Every sample has its own, so that what is drawn for it does not depend on which
    others it is computed with: on how a batch is split, over devices or in time."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def drop_path(x: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Stochastic depth: drops a residual branch x [b n c] for whole samples and scales the rest up to keep the mean;
    keys [b], or None when not training."""
    if keys is None or rate == 0.0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate))(keys)  # [b]
    return jnp.where(keep[:, None, None], x / (1.0 - rate), 0.0).astype(x.dtype)


REMAT = {  # what of a block is kept for its gradient, the rest is computed again
    "none": None,  # everything
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # results of linear maps
    "full": jax.checkpoint_policies.nothing_saveable,  # its input
}


def rematerialized(remat: str) -> type["Block"]:
    """`Block` with the policy of that name in REMAT."""
    return Block if REMAT[remat] is None else nn.remat(Block, policy=REMAT[remat])


class Block(nn.Module):
    """A pre-norm transformer block."""

    heads: int
    mlp_ratio: float
    act: Callable[[jax.Array], jax.Array]
    inits: Inits
    causal: bool = False
    drop_path: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None = None, mask: jax.Array | None = None) -> jax.Array:
        """[b n c] -> [b n c]; `keys` [b]: of drop-path, when training; `mask` bool [b 1 n n]: who (n) sees whom (n), in
        a causal block only what lies before."""
        c = x.shape[-1]
        first, second = (None, None) if keys is None else (fold(keys, 0), fold(keys, 1))
        y = Attention(self.heads, self.inits, self.causal, self.dtype, name="attention")(
            layer_norm(self.dtype, "norm1")(x), mask)
        x = x + drop_path(y, self.drop_path, first)
        y = Mlp(int(self.mlp_ratio * c), c, self.act, self.inits, self.dtype, name="mlp")(
            layer_norm(self.dtype, "norm2")(x))
        x = x + drop_path(y, self.drop_path, second)
        return nn.with_logical_constraint(x, ("batch", "length", "activation"))
