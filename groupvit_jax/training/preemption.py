"""A notice that this machine will be taken away: SIGTERM, which clusters, `kill` and TPU VMs under maintenance send."""

import contextlib
import itertools
import signal
import threading
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils


class Notice:
    """Listens while it is open; a second SIGTERM ends the process at once. With several processes JAX listens and lets
    all agree on a question."""

    # Of this process's questions, over all its runs. When the notice comes, JAX lets all agree on the number after the
    # last one that was asked, and none may have been yet: so they begin at 1 and leave none out, as steps would.
    numbers = itertools.count(1)

    def __init__(self) -> None:
        self.several = jax.process_count() > 1
        self.came, self.before = False, None
        if not self.several and threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: Any) -> None:
        self.came = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def given(self, step: int) -> bool:
        """Whether to save and stop after this step; all processes ask at each step, and all hear yes at the same."""
        came = multihost_utils.reached_preemption_sync_point(next(self.numbers)) if self.several else self.came
        if came:
            logging.warning("told to stop: saving step %d", step)
        return came

    def close(self) -> None:
        if self.before is not None:
            with contextlib.suppress(ValueError):  # not the main thread any more
                signal.signal(signal.SIGTERM, self.before)
