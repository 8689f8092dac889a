"""What is counted over a data set, and its scores in percent, None where undefined."""

from typing import NamedTuple

import numpy as np


class Confusion(NamedTuple):
    """How many pixels of class t were called p: counts int64 [t p], over a whole data set."""

    counts: np.ndarray

    def compute(self, names: list[str]) -> dict:
        """mIoU and accuracy in percent, and the IoU by class name, None for a class with no pixel in either."""
        hit, truth, said = np.diag(self.counts), self.counts.sum(axis=1), self.counts.sum(axis=0)
        union = truth + said - hit
        iou = [percent(h, u) for h, u in zip(hit, union)]
        return {"mIoU": mean(iou), "accuracy": percent(hit.sum(), truth.sum()),
                "iou": dict(zip(names, iou, strict=True))}

    def constant(self) -> float | None:
        """The best mIoU of calling every pixel the same class: what must be beaten to have seen anything."""
        truth = self.counts.sum(axis=1)
        # Class k, said everywhere, has IoU truth[k] / all; every other class that occurs has 0.
        classes = (truth > 0).sum() + (truth == 0)
        return 100 * float((truth / classes).max() / truth.sum()) if truth.sum() else None


def percent(part: float | np.ndarray, whole: float | np.ndarray) -> float | None:
    return 100 * float(part) / float(whole) if whole else None


def mean(values: list[float | None]) -> float | None:
    """The mean of those that are defined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
