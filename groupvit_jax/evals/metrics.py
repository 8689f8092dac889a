"""Accumulators on the host: `empty`, `update`, `merge`, `compute`; scores in percent, None where undefined.

Each is a pytree of numpy arrays. What `update` takes comes from the device, batch by batch, and is small.
"""

from typing import NamedTuple

import numpy as np

IGNORED = 255  # the mask value of pixels that do not count


class Confusion(NamedTuple):
    """How many pixels of class t were called p: counts int64 [t p], over a whole data set."""

    counts: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> "Confusion":
        return cls(np.zeros((classes, classes), np.int64))

    @classmethod
    def of(cls, truth: np.ndarray, prediction: np.ndarray, classes: int) -> "Confusion":
        """From label maps of one shape; truth 255 is ignored."""
        valid = truth != IGNORED
        index = truth[valid].astype(np.int64) * classes + prediction[valid]
        return cls(np.bincount(index, minlength=classes**2).reshape(classes, classes))

    def update(self, counts: np.ndarray) -> "Confusion":
        return Confusion(self.counts + np.asarray(counts, np.int64))

    def merge(self, other: "Confusion") -> "Confusion":
        return self.update(other.counts)

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


class Presence(NamedTuple):
    """Which classes are in a picture: one row per picture of scores float32 [n c] and truth bool [n c]."""

    scores: np.ndarray
    present: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> "Presence":
        return cls(np.zeros((0, classes), np.float32), np.zeros((0, classes), bool))

    def update(self, scores: np.ndarray, present: np.ndarray) -> "Presence":
        return self.merge(Presence(np.asarray(scores), np.asarray(present)))

    def merge(self, other: "Presence") -> "Presence":
        return Presence(*(np.concatenate(pair) for pair in zip(self, other)))

    def compute(self) -> dict:
        """top1: pictures whose best-scored class is present; mAP: mean over the classes that occur; in percent."""
        best = self.scores.argmax(axis=-1)
        hits = self.present[np.arange(len(best)), best].sum()
        pairs = zip(self.scores.T, self.present.T)
        return {"top1": percent(hits, len(best)),
                "mAP": mean([average_precision(score, truth) for score, truth in pairs])}


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Area under the precision-recall steps in percent, for scores [n] and bool truth [n]; None with nothing true.

    Precision at every distinct score, weighted by the recall gained there: equal scores count together, as in
    scikit-learn's `average_precision_score`.
    """
    if not truth.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # last place of every distinct score
    found = truth[order].cumsum()[ends]
    gained = np.diff(found, prepend=0)
    return 100 * float((found / (ends + 1) * gained).sum() / found[-1])


def percent(part, whole) -> float | None:
    return 100 * float(part) / float(whole) if whole else None


def mean(values: list[float | None]) -> float | None:
    """The mean of those that are defined."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
