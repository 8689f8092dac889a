"""The training step of a configuration as a program for a slice: traced, exported, compiled. No arrays, no data."""

import contextlib
import sys
import threading
import time
from typing import NamedTuple

import jax
from jax import export
from ml_collections import ConfigDict

from groupvit_jax import parallel
from groupvit_jax.aot.topology import Slice
from groupvit_jax.data import pipeline
from groupvit_jax.models import two_towers
from groupvit_jax.training import flops, optim
from groupvit_jax.training import state as states
from groupvit_jax.training import step as steps
from groupvit_jax.writer import clock


class Program(NamedTuple):
    """The step, and shapes with shardings for its arguments."""

    step: jax.stages.Wrapped
    state: states.State
    batch: steps.Batch
    mesh: jax.sharding.Mesh
    forward_flops: float  # of a global batch

    def trace(self) -> jax.stages.Traced:
        with parallel.use(self.mesh):
            return self.step.trace(self.state, self.batch)

    def export(self) -> bytes:
        """StableHLO, with all that `jax.export.deserialize` needs to make a function of it. That takes two lists, of
        the state's and of the batch's arrays as `jax.tree.leaves` orders them, on as many TPUs as the slice has, and
        gives the next state's list and the metrics:

            step = jax.export.deserialize(open("F.stablehlo", "rb").read()).call
        """
        (state, of_state), (batch, of_batch) = (jax.tree.flatten(x) for x in (self.state, self.batch))

        def flat(state: list, batch: list):
            after, metrics = self.step(of_state.unflatten(state), of_batch.unflatten(batch))
            return jax.tree.leaves(after), metrics

        with parallel.use(self.mesh):
            return bytes(export.export(jax.jit(flat, donate_argnums=0), platforms=["tpu"])(state, batch).serialize())


def build(config: ConfigDict, target: Slice) -> Program:
    """Raises InputError for a configuration that cannot be, or whose mesh or batch does not fit the slice."""
    pipeline.check(config)
    mesh = parallel.create_mesh(config.mesh, target.devices)
    parallel.check_batch(mesh, config.data.batch, pipeline.group_size(config.data), config.train.microbatches)
    model = two_towers.build(config.model, multi_label=config.data.prompts > 0)
    # Without data the length of the run is unknown: a constant of the schedule, which costs the same whatever it is.
    tx, schedule = optim.build(config.optim, config.data.batch, warmup=1, steps=2)
    with parallel.use(mesh):
        state = states.abstract(model, tx, mesh, config.mesh.zero1)
        batch = steps.abstract_batch(config.data, model, mesh)
        step = steps.compile_step(model, tx, schedule, config, state, mesh)
        return Program(step, state, batch, mesh, flops.forward_flops(model, batch))


@contextlib.contextmanager
def waiting(what: str, every: float = 5.0):
    """Says every few seconds that `what` goes on, and for how long: a compilation cannot know how far it is."""
    ended, began, terminal = threading.Event(), time.monotonic(), sys.stderr.isatty()

    def say() -> None:
        while not ended.wait(every):
            print(("\r\033[K" if terminal else "") + f"{what}, {clock(time.monotonic() - began)}",
                  end="" if terminal else "\n", file=sys.stderr, flush=True)

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
