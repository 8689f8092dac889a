"""The training step as StableHLO that another process can read."""

from typing import Any

import jax
from jax import export

from groupvit_jax import parallel
from groupvit_jax.training.program import Program


def exported(program: Program) -> bytes:
    """StableHLO for TPUs, with all that `jax.export.deserialize` needs to make a function of it. That takes two lists,
    of the state's and of the batch's arrays as `jax.tree.leaves` orders them, on as many TPUs as the slice has, and
    gives the next state's list and the metrics:

        step = jax.export.deserialize(open("F.stablehlo", "rb").read()).call
    """
    (state, of_state), (batch, of_batch) = (jax.tree.flatten(x) for x in (program.state, program.batch))
    whole: tuple[Any, Any] = of_state, of_batch

    def flat(state: list, batch: list) -> tuple[list, dict[str, jax.Array]]:
        after, metrics = program.step(whole[0].unflatten(state), whole[1].unflatten(batch))
        return jax.tree.leaves(after), metrics

    with parallel.use(program.mesh):
        return bytes(export.export(jax.jit(flat, donate_argnums=0), platforms=["tpu"])(state, batch).serialize())
