"""`groupvit eval --report=D`: the scores as a page, with the pictures that went best and worst."""

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from groupvit_jax import files
from groupvit_jax.data.segmentation_sets import IGNORED
from groupvit_jax.errors import InputError
from groupvit_jax.evals.datasets import MODEL_A, MODEL_B, THIRD_PARTY
from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.evals.scoring import Look
from groupvit_jax.evals.table import LINES
from groupvit_jax.reports import charts, pictures
from groupvit_jax.reports.page import Markup, document, element, joined, key, number, picture, section, table

FILE = "report.html"
SHOWN = 10  # best and as many worst pictures
SIDE = 320  # pixels, of a picture's long side
MIXED = 12  # pairs of classes that are listed as taken for each other
PUBLISHED = (MODEL_A, MODEL_B, THIRD_PARTY)
ABOUT = """mIoU of a picture: the mean IoU over the classes that occur in its truth or in its prediction, in percent; of
equal ones the first in the data set's order. Pixels without truth do not count. Below a picture is each class's IoU in
it; or "missed", where no pixel got that class, or "not there", where pixels got it and the truth has none."""


def check(folder: str) -> None:
    """Before hours of scoring, whether a report can be written there; makes the folder."""
    path = pathlib.Path(folder)
    if not folder:
        raise InputError(f"--report= names no folder: give one, which gets {FILE}")
    if "://" in folder:
        raise InputError(f"--report={folder}: remote folders are not written to; give a local or mounted one")
    if path.exists() and not path.is_dir():
        raise InputError(f"--report={folder} is a file: name a folder, which gets {FILE}")
    if (path / FILE).is_dir():
        raise InputError(f"--report={folder}: there is a folder {path / FILE}; remove it, or name another")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):  # leaves nothing
            pass
    except OSError as error:
        raise InputError(f"cannot write to --report={folder} ({error.strerror}): choose another") from None


def write(folder: str, evaluator: Evaluator, variables: dict[str, Any], results: Mapping[str, dict],
          name: str) -> pathlib.Path | None:
    """Writes FOLDER/report.html on process 0, and returns its path there; all processes call it, as pictures are looked
    at again by the program that counted them.

    evaluator: one with `each` that has just given `results` for `variables`. name: of what was scored.
    """
    each, shown = evaluator.each, {}
    assert each is not None  # of such an evaluator
    for task, scores in each.items():
        look, (best, worst) = evaluator.look(variables, task), extremes(scores)
        names = evaluator.names(task)
        shown[task] = [[panel(look(i), scores[i], names) for i in some] for some in (best, worst)]
    if jax.process_index() > 0:
        return None
    classes = {task.key: len(evaluator.names(task.key)) for task in evaluator.tasks}
    path = pathlib.Path(folder) / FILE
    files.write(path, report(results, classes, each, shown, name))
    return path


def extremes(scores: np.ndarray, most: int = SHOWN) -> tuple[list[int], list[int]]:
    """The numbers of the best pictures, the best first, and of the worst, the worst first: up to `most` of each, of a
    few pictures half of them; those whose score is NaN have none."""
    order = np.argsort(-scores, kind="stable")
    order = order[: np.isfinite(scores).sum()].tolist()
    n = min(most, -(-len(order) // 2))
    return order[:n], sorted(order[n:], key=lambda i: (scores[i], i))[:n]


# ---------------------------------------------------------------- the page


def report(results: Mapping[str, dict], classes: Mapping[str, int], each: Mapping[str, np.ndarray],
           shown: Mapping[str, list], name: str) -> bytes:
    """The page. results: of `Evaluator`; classes: how many each task has; each: mIoU of its pictures; shown: markup of
    the best and of the worst."""
    parts = {task: task_parts(scores, each.get(task), *shown.get(task, ([], []))) for task, scores in results.items()}
    tasks = [section(task, task, *(element("div", *content, id=said and f"{task}-{said}") for said, *content in found))
             for task, found in parts.items()]
    contents = [("scores", "scores"), *((task, task) for task in results)]
    if len(results) == 1:  # its parts
        contents += [(f"{task}-{said}", said) for task, found in parts.items() for said, *_ in found if said]
    lead = joined(["Zero-shot scores in percent of ", element("b", name), ". Written by groupvit eval."])
    return document(f"Evaluation: {', '.join(results)}", lead, contents,
                    section("scores", "Scores", overview(results, classes)), *tasks)


def overview(results: Mapping[str, dict], classes: Mapping[str, int]) -> Markup:
    """A row a task: ours, what to compare it with, and what others have published."""
    published = [model for model in PUBLISHED if any(model in s.get("published", {}) for s in results.values())]
    head = ["", "ours", "protocol", "pictures", "classes", "pixel accuracy", "oracle of the groups", "best constant",
            *(joined([model, element("small", "published, not ours")]) for model in published)]
    rows = []
    for task, scores in results.items():
        main = "mIoU" if "mIoU" in scores else "top1"
        rows.append([
            joined([task, element("small", {"mIoU": "mIoU", "top1": "top-1"}[main])]), number(scores[main]),
            joined([scores["protocol"], *(element("small", change) for change in scores.get("changes", []))]),
            f"{scores.get('images', scores.get('pictures')):,}", f"{classes[task]:,}", number(scores.get("accuracy")),
            number(scores.get("oracle", {}).get("mIoU")), number(scores.get("constant")),
            *(number(scores.get("published", {}).get(model)) for model in published)])
    empty = {i for i in range(5, len(head)) if all(row[i] == "–" for row in rows)}
    keep = [i for i in range(len(head)) if i not in empty]
    note = "Published figures are those of the models named, by their authors or by third parties, not ours; a model " \
           "trained otherwise, or scored with another protocol, is not to be compared with them." if published else None
    return joined([table([head[i] for i in keep], [[row[i] for i in keep] for row in rows], class_="strong"),
                   note and element("p", note, class_="note")])


def task_parts(scores: dict, each: np.ndarray | None, best: list, worst: list) -> list[list]:
    """What is said of a task, part by part: the name of each, None for the first, and its content."""
    left_out = element("p", f"Left out: {len(scores.get('skipped', []))} that cannot be used.", class_="note")
    parts: list[list] = [[None, cards(scores), left_out if "skipped" in scores else None]]
    if "iou" in scores:
        parts.append(["classes", element("h3", "IoU of each class"), *class_bars(scores)])
        parts.append(["confusion", element("h3", "What is called what"),
                      *confusion(list(scores["iou"]), scores["confusion"])])
    if each is not None and np.isfinite(each).any():
        parts.append(["pictures", element("h3", "Pictures"), element("p", ABOUT, class_="note"), spread(each)])
        for name, panels in (("best", best), ("worst", worst)):
            title = element("h3", f"The {name} {len(panels)} of {np.isfinite(each).sum():,}")
            parts += [[name, title, element("div", *panels, class_="looks")]] if panels else []
    return parts


def cards(scores: dict) -> Markup:
    """The task's numbers, large."""
    rows = [(label, scores[name]) for name, label in ({"mIoU": "mIoU"} | LINES).items() if name in scores]
    rows += [("oracle names of the same groups", scores["oracle"]["mIoU"])] if "oracle" in scores else []
    return element("div", *(element("div", element("b", number(value)), element("span", label), class_="card")
                            for label, value in rows), class_="cards")


def class_bars(scores: dict) -> list[Markup]:
    """The classes' IoU, the highest first; those that nowhere occur come last."""
    oracle, truth = scores.get("oracle", {}).get("iou", {}), scores["confusion"].sum(axis=1)
    share = dict(zip(scores["iou"], (100 * truth / max(truth.sum(), 1)).tolist()))
    rows = sorted(scores["iou"].items(), key=lambda row: -1.0 if row[1] is None else row[1], reverse=True)
    said = "IoU in percent, the highest first."
    said += " The mark is the IoU that the same groups have when each is named by its own majority." if oracle else ""

    def title(name: str, value: float | None) -> str:
        beside = f", oracle {number(oracle[name])}" if oracle else ""
        return f"{name}: IoU {number(value)}{beside}, {share[name]:.1f} % of all pixels"

    return [element("p", said, class_="note"),
            charts.bars([(name, value, oracle.get(name), title(name, value)) for name, value in rows])]


def confusion(names: list[str], counts: np.ndarray) -> list[Markup]:
    """A map of who is called what, and the largest of what is wrong in it."""
    few = "" if len(names) <= charts.ALL_CELLS else " Cells below 0.5 % are left out."
    said = f"A row is a class in the truth: the share of its pixels, in percent, that each class, a column, got.{few}"
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = counts * ~np.eye(len(names), dtype=bool)
    order = [divmod(int(k), len(names)) for k in np.argsort(-wrong.ravel(), kind="stable")[:MIXED]]
    rows = [(f"{names[i]} called {names[j]}", f"{100 * shares[i, j]:.1f} %",
             f"{100 * wrong[i, j] / counts.sum():.2f} %") for i, j in order if wrong[i, j]]
    listed = [element("p", "The commonest mistakes:", class_="note"),
              table(["", "of its pixels", "of all"], rows)] if rows else []
    return [element("p", said, class_="note"), charts.heat_map(names, counts), *listed]


def spread(each: np.ndarray) -> Markup:
    """How the pictures' scores are distributed."""
    known = each[np.isfinite(each)]
    quarters = np.percentile(known, [0, 25, 50, 75, 100])
    return table(["mIoU of a picture", "lowest", "a quarter below", "median", "a quarter above", "highest", "mean"],
                 [[f"of {len(known):,}", *map(number, quarters), number(float(known.mean()))]])


def panel(look: Look, score: float, names: list[str]) -> Markup:
    """A picture, its truth, prediction and groups, with a legend of the classes and their IoU in it."""
    occur, palette = pictures.colours_of(names, look.truth, look.labels)
    image, truth, labels, groups = (pictures.reduced(x, SIDE) for x in look[1:])
    images = {"picture": pictures.Image.fromarray(image), "truth": pictures.coloured(image, truth, palette),
              "prediction": pictures.coloured(image, labels, palette), "groups": pictures.grouped(image, groups)}
    n = len(np.unique(look.groups))
    said = {"groups": f"{n} group{'' if n == 1 else 's'}"}
    row = [element("figure", picture(made, f"{look.name}: {what}"), element("figcaption", said.get(what, what)))
           for what, made in images.items()]
    valid = look.truth != IGNORED
    legend = []
    for label in occur:
        true, said = (look.truth == label) & valid, (look.labels == label) & valid
        iou = 100 * (true & said).sum() / (true | said).sum()
        what = number(iou, 0) if true.any() and said.any() else "missed" if true.any() else "not there"
        legend.append(key(palette[label], f"{names[label]} ", element("b", what)))
    if not valid.all():
        legend.append(element("span", "pale: no truth", class_="key"))
    return element("div", element("h4", look.name, f"  {number(float(score))}"), element("div", *row, class_="row"),
                   element("div", *legend, class_="keys"), class_="look", data_name=look.name)
