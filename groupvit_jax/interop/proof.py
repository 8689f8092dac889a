"""Proof at each crossing: how far the outputs of two programs are apart, as a table and a verdict."""

import importlib.util
from typing import NamedTuple

import numpy as np

from groupvit_jax.errors import InputError

ALLOWED = 1e-4  # of a difference in float32, absolute or relative to the largest value, whichever is less


class Difference(NamedTuple):
    """How far two arrays of an output are apart: the largest difference, and the same over the largest value."""

    output: str
    absolute: float
    relative: float

    @property
    def small(self) -> bool:
        return min(self.absolute, self.relative) <= ALLOWED  # not so for NaN


def installed() -> bool:
    """Whether PyTorch and `transformers` are."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def skipped(verify: str) -> str | None:
    """Why nothing is compared under --verify, None if something is."""
    if verify == "off":
        return "not verified: --verify=off"
    if not installed():
        return "not verified: PyTorch or transformers is not here: pip install torch transformers"
    return None


def difference(output: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
    if ours.shape != theirs.shape:
        return Difference(f"{output} {list(ours.shape)}, theirs {list(theirs.shape)}", np.inf, np.inf)
    apart = float(np.abs(ours - theirs).max())
    return Difference(output, apart, apart / max(float(np.abs(theirs).max()), 1e-30))


def table(rows: list[Difference]) -> str:
    lines = [f"{'output':25s} {'absolute':>9s} {'relative':>9s}"]
    lines += [f"{row.output:25s} {row.absolute:9.1e} {row.relative:9.1e}  {'ok' if row.small else 'DIFFERS'}"
              for row in rows]
    return "\n".join(lines)


def check(rows: list[Difference], what: str) -> None:
    """Prints the table; raises InputError for a difference that is not small."""
    print(table(rows))
    if nan := [row.output for row in rows if np.isnan(row.absolute)]:
        raise InputError(f"{what}: {nan[0]} is not a number, so the weights hold NaN or infinity: take others "
                         "(--verify=off writes them all the same)")
    if wrong := [row for row in rows if not row.small]:
        raise InputError(f"{what} differs in {wrong[0].output} by {wrong[0].absolute:.1e}, more than {ALLOWED:.0e}: "
                         "nothing was written; please report it (--verify=off writes it all the same)")
