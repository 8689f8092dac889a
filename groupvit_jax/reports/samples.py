"""A few pictures of the evaluation data and what training makes of them, in WORKDIR/samples: groups and segments at up
to TIMES steps, small JPEGs that a run which goes on finds again."""

import contextlib
import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from groupvit_jax import files
from groupvit_jax.data.segmentation_sets import IGNORED
from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.evals.scoring import Look
from groupvit_jax.palette import apart, palette_of
from groupvit_jax.reports import pictures
from groupvit_jax.reports.page import Markup, element, image_of, joined, jpeg, key

TIMES = 12  # steps that are shown, at most
PICTURES, LOOKED_AT = 4, 16  # shown, and those among which they are chosen
SIDE = 128  # pixels, of a picture's long side
LEGEND = 40  # classes; of more, only those of the pictures' truth are in the legend


class Samples:
    """The samples of a run of `steps` steps; of an evaluator's first task that has masks.

    The program that gives them is compiled when `add` needs it first. Only runs of one process have any: reading a
    picture might fail on one of several hosts, and the others would wait for it.
    """

    def __init__(self, workdir: pathlib.Path, evaluator: Evaluator, task: str, steps: int):
        self.folder, self.evaluator, self.task, self.steps = workdir / "samples", evaluator, task, steps
        self.names = evaluator.names(task)
        self.numbers: list[int] = []  # of the pictures, once they are chosen
        self.present: list[int] = []  # labels in their truth

    @classmethod
    def of_run(cls, workdir: pathlib.Path, evaluator: object, steps: int) -> "Samples | None":
        """None where there is nothing to take them from."""
        if jax.process_count() > 1 or not isinstance(evaluator, Evaluator):
            return None
        tasks = [task.key for task in evaluator.tasks if task.segments]
        return cls(workdir, evaluator, tasks[0], steps) if tasks else None

    def slot(self, n: int) -> int:
        """Which of the TIMES parts of the run step n is in."""
        return -(-n * TIMES // self.steps)

    def kept(self) -> list[int]:
        """The steps that there are samples of."""
        names = [path.name for path in self.folder.iterdir() if path.name.isdigit()] if self.folder.is_dir() else []
        return sorted(map(int, names))

    def add(self, n: int, variables: dict[str, Any]) -> None:
        """Draws the samples of step n if they are to be kept: the first in its part of the run, or the last of all.
        What is there of later steps is of a run that was gone back on, and goes."""
        self._choose()
        slots: set[int] = set()
        for step in self.kept():
            if step >= n or self.slot(step) in slots or n == self.steps and self.slot(step) == self.slot(n):
                shutil.rmtree(self.folder / str(step))
            else:
                slots.add(self.slot(step))
        if self.slot(n) in slots:
            return
        look = self.evaluator.look(variables, self.task)
        with files.new(self.folder / str(n)) as folder:
            for k, number in enumerate(self.numbers):
                self._draw(folder, k, look(number))

    def _draw(self, folder: pathlib.Path, k: int, look: Look) -> None:
        image, truth, labels, groups = (pictures.reduced(x, SIDE) for x in look[1:])
        palette = self._palette()
        drawn = {"groups": pictures.grouped(image, groups), "labels": pictures.coloured(image, labels, palette)}
        for what, picture in drawn.items():
            (folder / f"{k}-{what}.jpg").write_bytes(jpeg(picture))
        stills = {"picture": pictures.Image.fromarray(image), "truth": pictures.coloured(image, truth, palette)}
        for what, picture in stills.items():
            if not (path := self.folder / f"{k}-{what}.jpg").exists():  # a killed run may have left one alone
                files.write(path, jpeg(picture))

    def _choose(self) -> None:
        """Of LOOKED_AT pictures spread over the data those with most labels. Samples of others than these go, and what
        a killed run left half written."""
        if self.numbers:
            return
        masked = self.evaluator.scorers[self.evaluator.place(self.task)][0].masked
        some = sorted({round(k) for k in np.linspace(0, len(masked) - 1, LOOKED_AT)})
        labels = {i: np.setdiff1d(masked[i][2], [IGNORED]) for i in some}
        numbers = sorted(sorted(some, key=lambda i: -len(labels[i]))[:PICTURES])
        about = {"task": self.task, "pictures": [str(masked.names(i)[0]) for i in numbers], "names": self.names}
        path, data = self.folder / "samples.json", json.dumps(about, indent=1).encode()
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() != data:
                shutil.rmtree(self.folder)
        for left in self.folder.glob("*.part"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        files.write(path, data)
        self.numbers, self.present = numbers, sorted({int(label) for i in numbers for label in labels[i]})

    def _palette(self) -> np.ndarray:
        return apart(palette_of(self.names), self.present)

    def markup(self) -> list[Markup]:
        """A strip for each picture: itself and its truth, then groups above segments, step by step."""
        steps, palette = self.kept(), self._palette()
        shown = range(len(self.names)) if len(self.names) <= LEGEND else self.present
        legend = element("div", *(key(palette[i], self.names[i]) for i in shown), class_="keys")
        return [legend, *(self._strip(k, steps) for k in range(len(self.numbers)))]

    def _strip(self, k: int, steps: list[int]) -> Markup:
        def pair(folder: pathlib.Path, names: tuple[str, str], caption: str, class_: str | None = None) -> Markup:
            images = [image_of((folder / f"{k}-{name}.jpg").read_bytes(), f"{caption}: {name}") for name in names]
            return element("figure", *images, element("figcaption", caption), class_=class_)

        return element("div", pair(self.folder, ("picture", "truth"), "picture, truth", "fixed"), joined(
            pair(self.folder / str(step), ("groups", "labels"), f"step {step:,}") for step in steps), class_="strip")
