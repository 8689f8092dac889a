"""The evaluator: data sets and a model to scores, as the command line, training and tests want them."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from groupvit_jax import parallel
from groupvit_jax.evals import classes, datasets
from groupvit_jax.evals.metrics import IGNORED, Confusion, Presence
from groupvit_jax.evals.prompts import TextEncoder, class_embeddings
from groupvit_jax.evals.segmentation import block_rows, make_counter
from groupvit_jax.evals.windows import Geometry, Sizes, cut, pack
from groupvit_jax.writer import Progress


class Evaluator:
    """Scores a model on some tasks: `evaluator(variables)` as often as one likes; only the first call compiles.

    One program encodes all texts, and each data set has one for its images, whatever their sizes. (Images more
    than long/size times as long as they are high have lower windows, and need one more for each such height.)

    Arguments:
      model: a `TwoTowers`.
      tasks: keys of `datasets.TASKS`.
      data_root: the folder they lie in; problems of any of them raise InputError here, before an image is read.
      protocol: "groupvit" or "tcl": templates, class names, threshold of the background.
      size, long, window, stride: see `Geometry`.
      batch: windows a call; text_batch: texts a call.
      split: of every task, in place of its own.
      progress: whether to print it.
    """

    def __init__(self, model, tasks: list[str], data_root: str | Path, *, protocol: str = "groupvit",
                 size: int = 448, long: int = 2048, window: int = 448, stride: int = 224,
                 batch: int = 16, text_batch: int = 64, split: str | None = None, progress: bool = False):
        rows = datasets.find_tasks(tasks)
        self.templates = classes.templates(protocol)
        folders = datasets.open_tasks(rows, data_root, split)
        geometry = Geometry(size, long, window, stride)
        self.protocol, self.progress = protocol, progress
        self.text = TextEncoder(model, text_batch)
        self.tasks = [_Scorer(model, task, folder, geometry, protocol, batch) for task, folder in zip(rows, folders)]

    @classmethod
    def from_config(cls, model, config, **more) -> "Evaluator":
        """From `config.eval`, whose fields are the arguments; `every` is the training loop's."""
        settings = {**config, **more}
        settings.pop("every", None)
        return cls(model, list(settings.pop("tasks")), settings.pop("data_root"), **settings)

    def __call__(self, variables) -> dict[str, dict]:
        """Scores by task, in percent; the JSON of `groupvit eval`.

        variables: the model's, on the host or on devices, sharded or not; they stay where they are.
        """
        return {scorer.task.key: {"protocol": self.protocol} | self.score(scorer, variables) for scorer in self.tasks}

    def score(self, scorer: "_Scorer", variables) -> dict:
        embeddings = class_embeddings(lambda texts: self.text(variables, texts), scorer.named, self.templates)
        shown = Progress(scorer.task.key, len(scorer.folder), "images") if self.progress else nullcontext()
        with shown as progress:
            return scorer(variables, embeddings, progress)


class _Scorer:
    """One data set, and the program that counts on it."""

    def __init__(self, model, task, folder, geometry, protocol, batch):
        self.task, self.folder, self.geometry = task, folder, geometry
        self.names = classes.names(task.key, protocol)
        threshold = task.background.get(protocol)
        self.named = self.names if threshold is None else self.names[1:]  # background has a threshold, no prompt
        number = [geometry.count(*size) for size in folder.sizes]
        height, width = (int(side) for side in folder.sizes.max(axis=0))
        rows = block_rows(height, width, len(self.names))
        b = max(max(number), min(batch, sum(number)))
        self.padded = Sizes(b, 0, 0, b // min(number), math.ceil(height / rows) * rows, width)
        self.count = make_counter(model, len(self.names), rows, max(number), threshold)

    def __call__(self, variables, embeddings, progress) -> dict:
        confusions = {name: Confusion.empty(len(self.names)) for name in ("confusion", "plain", "oracle")}
        presence, windows, used = Presence.empty(len(self.named)), 0, 0
        for out, masks, number in _one_behind(self.counts(variables, embeddings)):
            out = parallel.fetch(out)
            confusions = {name: confusion.update(out[name]) for name, confusion in confusions.items()}
            presence = presence.update(out["similarity"][: len(masks)], np.stack([self.present(m) for m in masks]))
            windows, used = windows + number, used + out["groups_used"]
            if progress:
                progress.advance(len(masks))
        return confusions["confusion"].compute(self.names) | {
            "images": len(self.folder), "mIoU_plain": confusions["plain"].compute(self.names)["mIoU"],
            "constant": confusions["confusion"].constant(),
            "oracle": confusions["oracle"].compute(self.names)["mIoU"],
            "groups_used": float(used) / windows, "classification": presence.compute()}

    def counts(self, variables, embeddings) -> Iterator[tuple[dict, list[np.ndarray], int]]:
        """Dispatches batch after batch: (counts still being computed, the images' masks, number of windows)."""
        for cuts, masks in self.batches():
            sizes = self.padded._replace(h=cuts[0].windows.shape[1], w=cuts[0].windows.shape[2])
            number = sum(len(part.windows) for part in cuts)
            yield self.count(variables, embeddings, pack(cuts, masks, sizes)), masks, number

    def batches(self) -> Iterator[tuple[list, list]]:
        """Images (as cuts) and masks, as many as go into a batch; a batch's windows are of one size."""
        waiting = {}  # by the size of the windows, nearly always one
        for i in range(len(self.folder)):
            key, image, mask = self.folder[i]
            datasets.check_labels(key, mask, len(self.names))
            part = cut(image, self.geometry)
            cuts, masks = waiting.setdefault(part.windows.shape[1:3], ([], []))
            if sum(len(c.windows) for c in cuts) + len(part.windows) > self.padded.b:
                yield waiting.pop(part.windows.shape[1:3])
                cuts, masks = waiting.setdefault(part.windows.shape[1:3], ([], []))
            cuts.append(part)
            masks.append(mask)
        yield from waiting.values()

    def present(self, mask: np.ndarray) -> np.ndarray:
        """Which of the named classes are in a mask, bool [classes]."""
        labels = np.unique(mask)
        found = np.isin(np.arange(len(self.names)), labels[labels != IGNORED])
        return found[len(self.names) - len(self.named) :]


def _one_behind(items: Iterator) -> Iterator:
    """The same items, each only when the next has been made: reading images and computing overlap."""
    previous = None
    for item in items:
        if previous is not None:
            yield previous
        previous = item
    if previous is not None:
        yield previous


def evaluate(model, variables, tasks: list[str], data_root: str | Path, **settings) -> dict[str, dict]:
    """One evaluation; `settings` are those of `Evaluator`, which says more."""
    return Evaluator(model, tasks, data_root, **settings)(variables)


def table(results: dict[str, dict]) -> str:
    """The scores as text for a terminal: per task a line of summary, then the classes."""
    return "\n\n".join(_task_table(key, scores) for key, scores in results.items())


def _task_table(key: str, scores: dict) -> str:
    def show(value):
        return "  -  " if value is None else f"{value:5.1f}"

    wide = max(len(name) for name in scores["iou"])
    head = [f"{key}: mIoU {show(scores['mIoU'])} %   protocol {scores['protocol']}, {scores['images']} images"]
    head += [f"  {label:32}{show(value)}" for label, value in (
        ("pixel accuracy", scores["accuracy"]), ("without the rule of five", scores["mIoU_plain"]),
        ("best constant class", scores["constant"]), ("oracle names of the same groups", scores["oracle"]),
        ("groups in use per window", scores["groups_used"]),
        ("image classification, top-1", scores["classification"]["top1"]),
        ("image classification, mAP", scores["classification"]["mAP"]))]
    return "\n".join([*head, "  IoU", *(f"    {name:{wide}}  {show(value)}" for name, value in scores["iou"].items())])
