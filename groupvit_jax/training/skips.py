"""Steps whose loss or gradient was no number: they change no weights; too many in a row, and training goes back."""

import jax
import numpy as np
from absl import logging

from groupvit_jax.training.checkpoint import Checkpoints
from groupvit_jax.training.state import State


class Skips:
    """Counts skipped steps; `row` are those in a row up to now, as (step, metrics), `total` how many there were."""

    def __init__(self, limit: int):
        self.limit, self.total = limit, 0
        self.row: list[tuple[int, dict[str, jax.Array]]] = []
        self.running: tuple[int, dict[str, jax.Array]] | None = None  # dispatched, and perhaps not done
        self.went_back_at = 0

    def add(self, n: int, metrics: dict[str, jax.Array]) -> None:
        """Step n was dispatched; waits for the one before, and counts it."""
        self.settle()
        self.running = n, metrics

    def settle(self) -> None:
        """Waits for the last step that was added, and counts it."""
        if self.running:
            n, metrics = self.running
            skipped = bool(metrics["skipped"])
            self.row = [*self.row, self.running] if skipped else []
            self.total, self.running = self.total + skipped, None
            if skipped:
                logging.warning("step %d is skipped: its loss %.4g or gradient norm %.4g is no number (%d in a row, at "
                                "most %d)", n, metrics["loss"], metrics["gradient_norm"], len(self.row), self.limit)

    def too_many(self) -> bool:
        return len(self.row) >= self.limit

    def back(self, n: int, checkpoints: Checkpoints, like: State) -> State | None:
        """The state saved before those in a row, as that of step n, with which to meet the next batches; None where
        there is none, or none that is newer than when it went back last."""
        checkpoints.wait()
        step = checkpoints.latest(before=self.row[0][0])
        if step is None or step <= self.went_back_at:
            return None
        logging.warning("going back to the weights of step %d, and on with the batches after step %d", step, n)
        self.went_back_at, self.row, self.running = n, [], None
        return at_step(checkpoints.restore(step, like)[0], n)


def at_step(state: State, n: int) -> State:
    """The same weights and moments, with all counts of steps at n: whole numbers count nothing else."""
    def one(x: jax.Array) -> jax.Array:
        counts = jax.numpy.issubdtype(x.dtype, jax.numpy.integer)
        return jax.device_put(np.asarray(n, x.dtype), x.sharding) if counts else x

    return jax.tree.map(one, state)
