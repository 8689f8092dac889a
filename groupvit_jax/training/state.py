"""The training state: one pytree, created by one jitted function straight into its shardings."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from groupvit_jax import parallel
from groupvit_jax.models.two_towers import TwoTowers


class State(struct.PyTreeNode):
    """What a step changes. `step` counts finished steps, and with the seed it fixes the next step's random numbers."""

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The form `TwoTowers.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def init_variables(model: TwoTowers, key: jax.Array) -> dict[str, Any]:
    """Fresh parameters and batch statistics; parameters boxed with their logical axes."""
    size = model.image.image_size
    images, tokens = jnp.zeros((2, size, size, 3)), jnp.zeros((2, 1, model.text.length), jnp.int32)
    return dict(model.init({"params": key}, images, tokens))


def abstract_variables(model: TwoTowers) -> dict[str, Any]:
    """Shapes and dtypes of `State.variables`."""
    return parallel.unbox(jax.eval_shape(lambda: init_variables(model, jax.random.key(0))))


def init(model: TwoTowers, tx: optax.GradientTransformation, key: jax.Array) -> State:
    """A fresh state, its parameters (and so the optimizer's moments) boxed with their logical axes."""
    variables = init_variables(model, key)
    params = variables["params"]
    return State(jnp.zeros((), jnp.int32), params, variables["batch_stats"], tx.init(params))


def abstract(model: TwoTowers, tx: optax.GradientTransformation, mesh: jax.sharding.Mesh, zero1: bool = False) -> State:
    """Shapes, dtypes and shardings of the state: what a restore, or a compilation without arrays, needs.

    Moments lie as their parameters do; with `zero1` each device of `data` keeps a part of them, and the step's
    compiler gives it that part of the gradient and gathers what it makes of it.
    """
    boxed = jax.eval_shape(lambda: init(model, tx, jax.random.key(0)))
    shaped = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)  # noqa: E731
    state = jax.tree.map(shaped, parallel.unbox(boxed), parallel.shardings_of(boxed, mesh))
    if zero1:
        state = state.replace(opt_state=jax.tree.map(lambda x: shaped(x, parallel.over_data(x)), state.opt_state))
    return state


def create(model: TwoTowers, tx: optax.GradientTransformation, mesh: jax.sharding.Mesh, seed: int,
           zero1: bool = False) -> State:
    """A fresh state on the mesh; no device ever holds more than its share."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract(model, tx, mesh, zero1))
    make = jax.jit(lambda key: parallel.unbox(init(model, tx, key)), out_shardings=shardings)
    return make(jax.random.key(seed))


def count_parameters(state: State) -> int:
    return sum(x.size for x in jax.tree.leaves(state.params))
