"""Scores for people and for files: a table for a terminal, JSON with the confusion matrices beside it."""

import io
import json
from pathlib import Path

import numpy as np

from groupvit_jax import files

LINES = {"accuracy": "pixel accuracy", "constant": "best constant class", "groups_used": "groups in use per window",
         "image_top1": "images whose nearest class is in them", "top1": "top-1 of whole pictures",
         "top5": "top-5 of whole pictures"}


def write(path: str | Path, results: dict[str, dict]) -> list[Path]:
    """Writes F.json, and beside it F.TASK.npy: each confusion matrix, int64 [truth label]; returns their paths."""
    path, paths, plain = Path(path), [], {}
    for key, scores in results.items():
        plain[key] = dict(scores)
        if "confusion" in scores:
            beside, data = path.with_name(f"{path.stem}.{key}.npy"), io.BytesIO()
            np.save(data, scores["confusion"], allow_pickle=False)
            files.write(beside, data.getvalue())
            paths.append(beside)
            plain[key]["confusion"] = beside.name
    files.write(path, (json.dumps(plain, indent=1) + "\n").encode())
    return [path, *paths]


def text(results: dict[str, dict]) -> str:
    """The scores as text: per task a line of summary, then the classes."""
    return "\n\n".join(_task_table(key, scores) for key, scores in results.items())


def _task_table(key: str, scores: dict) -> str:
    how = ", ".join([f"protocol {scores['protocol']}", *scores.get("changes", []),
                     f"{scores.get('images', scores.get('pictures'))} images"])
    name, title = ("mIoU", "mIoU") if "mIoU" in scores else ("top1", "top-1")
    head = [f"{key}: {title} {_show(scores[name])} %   {how}"]
    rows = [(label, _show(scores[name])) for name, label in LINES.items() if name in scores]
    if "oracle" in scores:
        rows.append(("oracle names of the same groups", _show(scores["oracle"]["mIoU"])))
    rows += [(f"published: {model}", _show(value)) for model, value in scores.get("published", {}).items()]
    head += [f"  {label:48}{value}" for label, value in rows]
    if "skipped" in scores:
        head.append(f"  left out: {len(scores['skipped'])} that cannot be used")
    if "iou" not in scores:
        return "\n".join(head)
    wide, oracle = max(len(name) for name in scores["iou"]), scores.get("oracle", {}).get("iou")
    head.append(f"  IoU{'':{wide}}" + "        oracle" * bool(oracle))
    return "\n".join([*head, *(f"    {name:{wide}}  {_show(value)}" + (f"   {_show(oracle[name])}" if oracle else "")
                               for name, value in scores["iou"].items())])


def _show(value: float | None) -> str:
    return "  -  " if value is None else f"{value:5.1f}"
