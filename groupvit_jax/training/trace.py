"""A trace of some steps, for XProf or TensorBoard: what host and devices did when."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import logging

from groupvit_jax.errors import InputError


def check(profile: Any, steps: int) -> None:
    """Raises InputError unless `config.train.profile` is () or (first, last) of a training of so many steps."""
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in profile)
    if profile and not (whole and len(profile) == 2 and 1 <= profile[0] <= profile[1] <= steps):
        raise InputError(f"config.train.profile={tuple(profile)}: give the first and the last step to trace, as "
                         f"(100, 105), from 1 to this training's last, {steps}; or () for none")


class Trace:
    """Writes a trace of steps first to last, `config.train.profile`, to `workdir`/profile; of each process its own.

    A run that goes on from between them traces the rest; one that ends between them, what there was.
    """

    def __init__(self, profile: tuple[int, ...], workdir: str):
        self.first, self.last = profile or (0, 0)
        own = f"process-{jax.process_index()}" if jax.process_count() > 1 else ""
        self.folder, self.running = Path(workdir).expanduser().absolute() / "profile" / own, False

    @contextlib.contextmanager
    def step(self, n: int) -> Iterator[None]:
        """Around the dispatch of step n."""
        if self.first <= n <= self.last and not self.running:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot write {self.folder} ({error.strerror}): make room, or set "
                                 "config.train.profile=()") from None
            jax.profiler.start_trace(self.folder)
            self.running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=n):
            yield

    def done(self, n: int, metrics: Any) -> None:
        """Ends the trace after its last step n, which gives these arrays."""
        if self.running and n >= self.last:
            jax.block_until_ready(metrics)
            self.close()

    def close(self) -> None:
        if self.running:
            self.running = False
            jax.profiler.stop_trace()
            logging.info("a trace of steps %d to %d lies in %s: pip install xprof && xprof --logdir=%s", self.first,
                         self.last, self.folder, self.folder)
