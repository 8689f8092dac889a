"""WORKDIR/report.html: the curves of a training run, and samples of what it makes of some pictures."""

import fnmatch
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from absl import logging

from groupvit_jax import files
from groupvit_jax.reports.charts import line_chart
from groupvit_jax.reports.history import History
from groupvit_jax.reports.page import Markup, document, element, joined, section
from groupvit_jax.reports.samples import Samples

FILE = "report.html"
# Sections of charts: title, patterns of the names of its curves, what their unit is. What no chart has is in "Other".
CHARTS: dict[str, list[tuple[str, tuple[str, ...], str]]] = {
    "Losses": [("Loss", ("loss", "caption_loss", "multi_label_loss"), ""),
               ("Images that find their caption in the batch", ("accuracy",), "share")],
    "Groups": [("Groups in use per image", ("groups_used*",), "number"),
               ("Largest group", ("largest_group*",), "share of the tokens"),
               ("How undecided tokens are", ("assignment_entropy*",), "0: sure, 1: any group"),
               ("Groups in use per window, evaluation", ("*/groups_used",), "number")],
    "Embeddings and steps": [
        ("Spread of the embeddings", ("image_spread", "text_spread"), "0: all alike, 1: everywhere"),
        ("Scale of the logits", ("logit_scale", "multi_label_scale"), ""),
        ("Learning rate", ("learning_rate",), ""),
        ("Norm of the gradient", ("gradient_norm", "gradient_norm_*"), ""),
        ("Norm of the update over that of the weights", ("update_ratio*",), "")],
    "Speed": [("Images a second", ("images_per_second",), ""), ("Waiting for data", ("input_wait",), "% of the time"),
              ("Operations of a chip", ("tflops_per_chip",), "1e12 a second"),
              ("Share of the chip's peak", ("peak_share",), "%"),
              ("Memory", ("host_memory_gib", "device_memory_gib", "device_memory_peak_gib"), "GiB"),
              ("Wait for a checkpoint", ("checkpoint_stall",), "seconds")],
    "Data": [("Samples left out, texts cut", ("bad_samples", "cut_texts"), "share"),
             ("Steps skipped", ("skipped_steps",), "number")],
}
UNSEEN = ("images_per_second_per_chip", "skipped", "compilations")  # said by others, or nearly always the same
Curves = Mapping[str, Mapping[int, float | None]]


class Report:
    """The report of a run of `steps` steps. evaluator: the loop's, None if it has none."""

    def __init__(self, workdir: str, evaluator: object, steps: int):
        self.workdir, self.steps, self.warned = pathlib.Path(workdir).absolute(), steps, False
        self.history = History(self.workdir / "metrics.jsonl")
        self.samples = Samples.of_run(self.workdir, evaluator, steps)

    def write(self, n: int, variables: dict[str, Any]) -> None:
        """Writes it anew, with samples of the variables of step n, on process 0; others do nothing. It never raises,
        as training does not end for its report; what fails is said once, and samples that failed are left out."""
        if jax.process_index() > 0:
            return
        strips = []
        if self.samples:
            try:
                self.samples.add(n, variables)
                strips = self.samples.markup()
            except Exception as error:
                self.samples = None
                self._warn(n, "its samples", error)
        try:
            for left in self.workdir.glob(f"{FILE}.*.part"):  # of a killed run
                left.unlink()
            self.history.read()
            files.write(self.workdir / FILE, report(self.workdir.name, n, self.steps, self.history.curves(), strips))
        except Exception as error:
            self._warn(n, FILE, error)

    def _warn(self, n: int, what: str, error: Exception) -> None:
        if not self.warned:
            said = " ".join(str(error).split())[:300]
            logging.warning("step %d: no report, %s failed (%s: %s); training goes on", n, what, type(error).__name__,
                            said)
        self.warned = True


def report(name: str, n: int, steps: int, curves: Curves, strips: list[Markup]) -> bytes:
    """The page of a run that has done n of so many steps. strips: markup of the samples."""
    parts = [("Scores", score_charts(curves))]
    left = [key for key in curves if key not in UNSEEN]
    for title, charts in CHARTS.items():
        found = [(what, matching(left, patterns), unit) for what, patterns, unit in charts]
        left = [key for key in left if not any(key in names for _, names, _ in found)]
        parts.append((title, [chart(what, curves, names, unit) for what, names, unit in found if names]))
    left = [key for key in left if "/" not in key]
    parts.append(("Other", [chart(key, curves, [key], "") for key in left]))
    sections = [section(title.split()[0].lower(), title, element("div", *charts, class_="charts"))
                for title, charts in parts if any(charts)]
    contents = [(title.split()[0].lower(), title.lower()) for title, charts in parts if any(charts)]
    if strips:
        said = "Pictures of the evaluation data: groups above, the classes given to them below."
        sections.insert(1, section("samples", "Samples", element("p", said, class_="note"), *strips))
        contents.insert(1, ("samples", "samples"))
    lead = joined([f"Step {n:,} of {steps:,}", ". Written by groupvit train at each checkpoint."])
    return document(f"Training: {name}", lead, contents, cards(curves), *sections)


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that match, in the order of the patterns."""
    names = list(names)
    found = [name for pattern in patterns for name in names if fnmatch.fnmatchcase(name, pattern)
             and ("/" in name) == ("/" in pattern)]
    return list(dict.fromkeys(found))


def chart(title: str, curves: Curves, names: list[str], unit: str) -> Markup:
    """Some curves over all steps that any of them has."""
    steps = sorted({step for name in names for step in curves[name]})
    return line_chart(title, steps, {name: [curves[name].get(step) for step in steps] for name in names}, unit)


def score_charts(curves: Curves) -> list[Markup]:
    """For each task one chart of what is in percent."""
    tasks = dict.fromkeys(name.partition("/")[0] for name in curves if "/" in name)
    found = []
    for task in tasks:
        names = [name for name in curves if name.startswith(f"{task}/") and not name.endswith("/groups_used")]
        steps = sorted({step for name in names for step in curves[name]})
        found.append(line_chart(task, steps, {name.partition("/")[2]: [curves[name].get(step) for step in steps]
                                              for name in names}, "%"))
    return found


def cards(curves: Curves) -> Markup:
    """The newest of the numbers one looks for first, and the best scores."""
    names = ["loss", "accuracy", "images_per_second"]
    rows = [(f"{list(curves[name].values())[-1]:.4g}", name.replace("_", " ")) for name in names
            if name in curves and list(curves[name].values())[-1] is not None]
    for name, values in curves.items():
        known = {step: value for step, value in values.items() if value is not None}
        if name.endswith(("/mIoU", "/top1")) and known:
            best = max(known, key=lambda step: known[step])
            rows.append((f"{known[max(known)]:.1f}", f"{name}, best {known[best]:.1f} at step {best:,}"))
    return element("div", *(element("div", element("b", value), element("span", what), class_="card")
                            for value, what in rows), class_="cards")
