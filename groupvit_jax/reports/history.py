"""The rows of metrics.jsonl, however many there are, as curves of some hundreds of points."""

import json
import pathlib
from collections.abc import Iterator

POINTS = 2000  # of a curve, at most


class Rows:
    """Rows of one kind, evenly thinned: every `stride`-th, and the newest, up to POINTS."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.stride, self.seen, self.newest = 1, 0, b""

    def add(self, line: bytes) -> None:
        if self.seen % self.stride == 0:
            if len(self.kept) == POINTS - 1:
                self.kept, self.stride = self.kept[::2], 2 * self.stride
            if self.seen % self.stride == 0:
                self.kept.append(line)
        self.seen, self.newest = self.seen + 1, line

    def __iter__(self) -> Iterator[dict]:
        last = [] if (self.seen - 1) % self.stride == 0 else [self.newest]
        for line in [*self.kept, *last] if self.seen else []:
            try:
                yield json.loads(line)
            except ValueError:  # of a killed run, the last may be cut
                continue


class History:
    """What a metrics.jsonl holds. `read` reads what was added since it was read last.

    Rows of different things (steps, scores, checkpoints) have different first names; those of a kind are thinned
    together, and only what is kept is ever parsed.
    """

    def __init__(self, path: pathlib.Path):
        self.path, self.at = path, 0
        self.kinds: dict[bytes, Rows] = {}

    def read(self) -> None:
        if self.path.stat().st_size < self.at:  # another file
            self.at, self.kinds = 0, {}
        with open(self.path, "rb") as file:
            file.seek(self.at)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.at += len(line)
                kind = line.split(b'"', 4)[3:4]  # the first name behind "step"
                self.kinds.setdefault(b"".join(kind), Rows()).add(line)

    def curves(self) -> dict[str, dict[int, float | None]]:
        """The values of each name by step, in order; None for what was no number."""
        found: dict[str, dict[int, float | None]] = {}
        for rows in self.kinds.values():
            for row in rows:
                step = row.pop("step")
                for name, value in row.items():
                    found.setdefault(name, {})[step] = value
        return {name: dict(sorted(values.items())) for name, values in found.items()}
