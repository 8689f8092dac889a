"""What a person watches: progress lines, and metrics as JSONL and TensorBoard."""

import collections
import contextlib
import json
import pathlib
import sys
import threading
import time

from groupvit_jax import files
from groupvit_jax.errors import InputError


class Progress:
    """A line with count, rate and time left, kept fresh in a terminal and repeated every few seconds in a log file.

    `with Progress("scenes", 1000) as progress: progress.advance(10, "a note")`. `start` counts what was done before
    this run: it moves the position and not the rate.
    """

    def __init__(self, name: str, total: int, unit: str = "it", start: int = 0, scale: float = 1.0):
        self.name, self.total, self.unit, self.done, self.scale = name, total, unit, start, scale
        self.start, self.began, self.shown, self.note = start, time.monotonic(), 0.0, ""
        self.recent = collections.deque([(self.began, start)], maxlen=60)  # (time, done), a second apart
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None or self.terminal:
            self._show(end="\n")

    def advance(self, n: int = 1, note: str | None = None) -> None:
        """Counts n more; `note` stays on the line until the next one."""
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


class MetricWriter:
    """Scalars by step, to `metrics.jsonl` and TensorBoard event files under `workdir`.

    A resumed run repeats the steps after its checkpoint: their rows of the run before are dropped first.
    """

    def __init__(self, workdir: str, resumed_step: int = 0):
        from tensorboardX import SummaryWriter  # slow to import, and only the writing process needs it

        self.path = pathlib.Path(workdir) / "metrics.jsonl"
        with self._room():
            if self.path.exists():
                kept = [line for line in self.path.read_text().splitlines() if self._step(line) <= resumed_step]
                files.write(self.path, "".join(line + "\n" for line in kept).encode())
            self.file = self.path.open("ab", buffering=0)  # nothing is left to fail when it is closed
            self.board = SummaryWriter(str(workdir), purge_step=resumed_step + 1)

    @contextlib.contextmanager
    def _room(self):
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
            self.file.write((json.dumps({"step": step} | values) + "\n").encode())
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.file.close()
        self.board.close()
