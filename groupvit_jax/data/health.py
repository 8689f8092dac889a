"""How good the data was: samples drawn, replaced and cut, over a run."""

from collections import Counter

import numpy as np

from groupvit_jax.data.bad import KINDS, listed
from groupvit_jax.errors import InputError

_ENOUGH = 200  # samples, before a share of bad ones means anything


class Health:
    """Counts what the batches of a run were made from.

    limit: share of bad samples above which the run stops. counts: of this process, int64 [2 + kinds]: good samples, cut
    texts, bad samples by kind.
    """

    def __init__(self, limit: float):
        self.limit = limit
        self.counts = np.zeros(2 + len(KINDS), np.int64)
        self.checked = self.counts  # when `check` was last called

    def add(self, batch: dict) -> None:
        """Counts a batch of the pipeline and takes its counts out of it."""
        made = [len(batch["image"]), batch.pop("cut").sum(), *batch.pop("bad").sum(axis=0)]
        self.counts = self.counts + np.array(made, np.int64)

    def opened(self, pairs: int, problems: Counter) -> None:
        """Stops a run whose sources already left out too many."""
        self._check(pairs, problems, "in the shards")

    def check(self, counts: np.ndarray) -> dict[str, float]:
        """The counts of all processes -> shares since the last check; raises InputError above the limit."""
        good, _, bad = parts(counts)
        self._check(good, bad, "drawn so far")
        good, cut, bad = parts(counts - self.checked)
        self.checked = counts
        wrong = sum(bad.values())
        return {"bad_samples": wrong / max(good + wrong, 1), "cut_texts": cut / max(good, 1)}

    def _check(self, good: int, bad: dict[str, int], where: str) -> None:
        wrong = sum(bad.values())
        if good + wrong >= _ENOUGH and wrong > self.limit * (good + wrong):
            raise InputError(
                f"{wrong} of {good + wrong} samples {where} are bad ({listed(bad)}), more than config.data.max_bad="
                f"{self.limit}: look at them with `groupvit data inspect`, mend the shards or raise the limit")

    def report(self, counts: np.ndarray) -> str:
        """One line for the end of a run."""
        good, cut, bad = parts(counts)
        replaced = f"{sum(bad.values()):,} bad ones replaced" + (f" ({listed(bad)})" if bad else "")
        return f"{good:,} samples, {replaced}; {cut:,} texts cut to fit their rows"


def parts(counts: np.ndarray) -> tuple[int, int, dict[str, int]]:
    """Good samples, cut texts, and bad samples of the kinds that there were."""
    good, cut, *kinds = counts.tolist()
    return good, cut, {kind: count for kind, count in zip(KINDS, kinds, strict=True) if count}
