"""The rows of metrics.jsonl and of TensorBoard. A row begins when its step is dispatched, and is written when that step
is done: one step later, so that reading it keeps no device waiting."""

import collections
import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from absl import logging

from groupvit_jax import parallel
from groupvit_jax.data.health import Health
from groupvit_jax.training import speed
from groupvit_jax.training.skips import Skips
from groupvit_jax.training.vitals import Collapse
from groupvit_jax.writer import MetricWriter, Progress


@dataclasses.dataclass(frozen=True)
class Row:
    """What is kept of a step until it is done."""

    step: int
    metrics: dict[str, jax.Array]
    counts: np.ndarray  # of Health, over all processes
    rates: Callable[[], dict[str, float]]


class Log:
    """Writes rows where this process has a writer. `last` holds the newest value of everything written.

    compilations: how often the step has been compiled so far.
    """

    def __init__(self, writer: MetricWriter | None, progress: Progress, health: Health, pace: speed.Speed,
                 skips: Skips, collapse: Collapse, compilations: Callable[[], int]):
        self.writer, self.progress, self.health, self.pace = writer, progress, health, pace
        self.skips, self.collapse, self.compilations = skips, collapse, compilations
        self.last: dict[str, float] = {}
        self.rows: collections.deque[Row] = collections.deque()

    def counts(self) -> np.ndarray:
        """Of the batches so far, over all processes; call it before the step is dispatched. Summing them is a program
        of its own, whose collectives must not meet a step's (on CPUs they would take each other's numbers): with
        several processes nothing runs for that moment."""
        if jax.process_count() > 1:
            self.pace.wait()
        return parallel.total(self.health.counts)

    def add(self, n: int, metrics: dict[str, jax.Array], counts: np.ndarray) -> None:
        """A row of step n, which was just dispatched."""
        self.rows.append(Row(n, metrics, counts, self.pace.cut()))

    def write(self, before: int) -> None:
        """Waits for the rows of steps before this one, and writes them; InputError when the data is too bad, or the
        model has collapsed and is to stop then."""
        while self.rows and self.rows[0].step < before:
            self._write(self.rows.popleft())

    def _write(self, row: Row) -> None:
        values = {name: float(value) for name, value in jax.device_get(row.metrics).items()}
        values |= row.rates() | self.health.check(row.counts)
        values |= {"skipped_steps": self.skips.total, "compilations": self.compilations()}
        before = self.last.get("compilations", 1)
        self.put(row.step, values)
        if values["compilations"] > before:
            logging.warning("step %d: the training step has been compiled %d times; a batch or the state changed its "
                            "shape or place, and training stood still meanwhile", row.step, values["compilations"])
        self.collapse.check(row.step, values)
        note = f"loss {values['loss']:.3f}  lr {values['learning_rate']:.2e}  {speed.note(values)}"
        self.progress.advance(0, note)

    def scores(self, n: int, results: dict[str, dict]) -> dict[str, float]:
        """Writes what an evaluation of step n's state gave, by task -> the same as "task/name"."""
        values = {f"{task}/{name}": value for task, scores in results.items()
                  for name, value in scores.items() if isinstance(value, float)}
        self.put(n, values)
        logging.info("step %d: %s", n, "  ".join(f"{name} {value:.1f}" for name, value in values.items()))
        return values

    def put(self, n: int, values: dict[str, float]) -> None:
        """Writes a row of step n."""
        self.last |= values
        if self.writer:
            self.writer.write(n, values)
