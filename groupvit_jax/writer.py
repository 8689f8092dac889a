"""What a person watches: progress lines, and metrics as JSONL and TensorBoard."""

import collections
import contextlib
import functools
import importlib.util
import json
import math
import pathlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from absl import logging

from groupvit_jax import files
from groupvit_jax.errors import InputError

_moves = 0


def moved() -> None:
    """Something went on that a person would see; `training.watch` ends a run in which nothing does."""
    global _moves
    _moves += 1


def moves() -> int:
    """How often `moved` was called."""
    return _moves


class Progress:
    """A line with count, rate and time left, kept fresh in a terminal and repeated every few seconds in a log file.

    `with Progress("scenes", 1000) as progress: progress.advance(10, "a note")`. `start` counts what was done before
    this run: it moves the position and not the rate.
    """

    def __init__(self, name: str, total: int, unit: str = "it", start: int = 0, scale: float = 1.0) -> None:
        self.name, self.total, self.unit, self.done, self.scale = name, total, unit, start, scale
        self.start, self.began, self.shown, self.note = start, time.monotonic(), 0.0, ""
        self.recent = collections.deque([(self.began, start)], maxlen=60)  # (time, done), a second apart
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None or self.terminal:
            self._show(end="\n")

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """Counts n more; `note` stays on the line until the next one."""
        moved()
        self.done += n
        self.note = self.note if note is None else note
        now = time.monotonic()
        if now - self.recent[-1][0] >= 1.0:
            self.recent.append((now, self.done))
        if now - self.shown >= (0.2 if self.terminal else 5.0) and self.done < self.total:
            self.shown = now
            self._show(end="\r" if self.terminal else "\n")

    def rate(self) -> float:
        """Units a second over the last minute or so (so that a first, compiling step is soon forgotten); an item
        counts `scale` units (a step is a batch of images)."""
        since, done = self.recent[0]
        return self.scale * (self.done - done) / max(time.monotonic() - since, 1e-9)

    def _show(self, end: str) -> None:
        left = (self.total - self.done) * self.scale / max(self.rate(), 1e-9)
        when = clock(left) + " left" if self.done < self.total else clock(time.monotonic() - self.began) + " in all"
        when = when if self.done > self.start else "time left unknown"
        rate = f"{self.rate():,.0f}" if self.rate() >= 10 else f"{self.rate():.1f}"
        line = f"{self.name} {self.done}/{self.total}  {rate} {self.unit}/s  {when}  {self.note}".rstrip()
        print(("\r\033[K" if self.terminal else "") + line, end=end, file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """65 -> "1:05"."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextlib.contextmanager
def waiting(what: str, every: float = 5.0) -> Iterator[None]:
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


class MetricWriter:
    """Scalars by step, to `metrics.jsonl` and TensorBoard event files under `workdir`.

    A resumed run repeats the steps after its checkpoint: their rows of the run before are dropped first. JSON has no
    word for what is no number: there it is null.
    wandb: what `open_wandb` gave; it gets the same rows.
    """

    def __init__(self, workdir: str, resumed_step: int = 0, wandb: Any = None) -> None:
        from tensorboardX import SummaryWriter  # slow to import, and only the writing process needs it

        self.path, self.wandb = pathlib.Path(workdir) / "metrics.jsonl", wandb
        with self._room():
            if self.path.exists():
                kept = [line for line in self.path.read_text().splitlines() if self._step(line) <= resumed_step]
                files.write(self.path, "".join(line + "\n" for line in kept).encode())
            self.file = self.path.open("ab", buffering=0)  # nothing is left to fail when it is closed
            self.board = SummaryWriter(str(workdir), purge_step=resumed_step + 1)

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"cannot write {self.path} ({error.strerror}): make room and run the same command again; "
                             "it goes on from the last whole checkpoint") from None

    @staticmethod
    def _step(line: str) -> float:
        try:
            return json.loads(line)["step"]
        except ValueError:  # the last line of a killed run may be cut
            return float("inf")

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._room():
            row = {name: value if math.isfinite(value) else None for name, value in values.items()}
            self.file.write((json.dumps({"step": step} | row) + "\n").encode())
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        if self.wandb:
            self.wandb.log({"step": step} | values)

    def close(self) -> None:
        self.file.close()
        self.board.close()
        if self.wandb:
            self.wandb.finish()


def check_wandb(project: str) -> None:
    """Raises InputError where `config.train.wandb` names a project and Weights & Biases is not installed."""
    found = importlib.util.find_spec("wandb") if project else None
    if project and not (found and found.origin):  # a mere folder "wandb", as it leaves behind, is no package
        raise InputError(f"config.train.wandb={project!r} needs Weights & Biases: pip install 'groupvit_jax[wandb]', "
                         "in a checkout pip install -e '.[wandb]', or leave it empty")


def open_wandb(project: str, run_id: str, workdir: str, config: dict[str, Any]) -> Any:
    """The run of that id in a project of Weights & Biases, begun or gone on with; None without a project.

    Its files lie in WORKDIR/wandb. Where the service cannot be reached they wait there for `wandb sync`. Rows come with
    "step" as an axis of their own: wandb's own step only grows, and would refuse those that a resumed run repeats.
    Raises InputError where wandb does not know who one is.
    """
    if not project:
        return None
    import wandb

    quietly = wandb.Settings(console="off", quiet=True, disable_git=True, save_code=False, finish_timeout=120.0)
    begin = functools.partial(wandb.init, project=project, id=run_id, resume="allow", dir=workdir, config=config,
                              name="/".join(pathlib.Path(workdir).absolute().parts[-2:]), settings=quietly)
    try:
        run = begin()
    except wandb.errors.UsageError as error:
        raise InputError(f"config.train.wandb={project!r}: {str(error).rstrip('.')}, or set WANDB_MODE=offline"
                         ) from None
    except Exception as error:  # of the network, of the service: training is not to stop for it
        logging.warning("Weights & Biases cannot be reached (%s): rows go to %s/wandb, for `wandb sync`",
                        " ".join(str(error).split())[:200], workdir)
        wandb.teardown()  # it still holds the run that it could not begin
        run = begin(mode="offline")
    run.define_metric("*", step_metric="step")
    return run
