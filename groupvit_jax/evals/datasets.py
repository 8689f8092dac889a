"""What can be scored: the tasks, one row each, and a task's pictures with their truth."""

import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from groupvit_jax.data import classification_sets, segmentation_sets, tfds_sets
from groupvit_jax.data.classification_sets import Labelled
from groupvit_jax.data.decoding import stored_rgb, stored_size
from groupvit_jax.data.segmentation_sets import IGNORED
from groupvit_jax.errors import InputError

MODEL_A, MODEL_B = "GroupViT, GCC + YFCC", "GroupViT, GCC + RedCaps"
THIRD_PARTY = f"{MODEL_B}, by third parties"


@dataclass(frozen=True)
class Task:
    """One data set. Segments are scored if it is a row of `segmentation_sets`, whole pictures if it is one of
    `classification_sets`, or both.

    background: by protocol, the threshold of label 0; empty if every label is a class with a name of its own.
    published: by model, the figure that others have published, mIoU or top-1 in percent.
    """

    key: str
    background: dict[str, float] = field(default_factory=dict)
    published: dict[str, float] = field(default_factory=dict)

    @property
    def segments(self) -> bool:
        return any(layout.key == self.key for layout in segmentation_sets.LAYOUTS)

    @property
    def classifies(self) -> bool:
        return self.key in classification_sets.LAYOUTS


# Thresholds: GroupViT's for its own protocol, 0.5 for all data sets under TCL's (Cha et al., CVPR 2023). Published: the
# paper's page for models A and B; re-evaluations of B under TCL's protocol. (Another table has 11.1 for coco_stuff.)
TASKS = (
    Task("voc", {"groupvit": 0.95, "tcl": 0.5}, {MODEL_A: 52.3, MODEL_B: 50.8}),
    Task("voc20", published={THIRD_PARTY: 79.7}),
    Task("context", {"groupvit": 0.35, "tcl": 0.5}, {MODEL_A: 22.4, MODEL_B: 23.7}),
    Task("context59", published={THIRD_PARTY: 23.4}),
    Task("coco_object", {"groupvit": 0.95, "tcl": 0.5}, {MODEL_A: 24.3, MODEL_B: 27.5, THIRD_PARTY: 27.5}),
    Task("coco_stuff", published={THIRD_PARTY: 15.3}),
    Task("cityscapes", published={THIRD_PARTY: 11.1}),
    Task("ade20k", published={THIRD_PARTY: 9.2}),
    Task("imagenet", published={MODEL_A: 43.7, MODEL_B: 51.6}),
    Task("scenes"),
    Task("fashion"),
)


def find_tasks(keys: list[str]) -> list[Task]:
    """The rows of these keys; InputError names those that there are."""
    known = {task.key: task for task in TASKS}
    for key in keys:
        if key not in [*known]:  # a configuration may give what has no hash
            raise InputError(f"no task {key!r}: choose among {', '.join(known)}")
    if not keys or len(set(keys)) < len(keys):
        raise InputError(f"tasks {','.join(keys) or 'none'}: name each data set once, as voc,context")
    return [known[key] for key in keys]


class Masked:
    """n pictures with their masks: `masked[i]` is (key, image uint8 [h w 3], label ids uint8 [h w], 255 ignored).

    key(i): its name; image(i): a file or its path; mask(i): label ids; names(i): of the two, for messages; labels: how
    many there are.
    Raises InputError that names the file for what cannot be read, a mask of another size than its picture, or a label
    that there is not.
    """

    def __init__(self, n: int, key: Callable[[int], str], image: Callable, mask: Callable[[int], np.ndarray],
                 names: Callable[[int], tuple[str | Path, str | Path]], labels: int) -> None:
        self._n, self._key, self._image, self._mask, self.names, self._labels = n, key, image, mask, names, labels

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> tuple[str, np.ndarray, np.ndarray]:
        image = self._open(i, stored_rgb)
        mask, name = self._mask(i), self.names(i)[1]
        if mask.shape != image.shape[:2]:
            raise InputError(f"{name} is {mask.shape[1]}x{mask.shape[0]} but its image {image.shape[1]}x"
                             f"{image.shape[0]}: a mask must be as large as its image")
        wrong = np.setdiff1d(mask[mask >= self._labels], [IGNORED])
        if wrong.size:
            raise InputError(f"{name} has label {wrong[0]}, but labels are 0 to {self._labels - 1} and {IGNORED} "
                             "(ignored): it belongs to another data set, or the class list is incomplete")
        return self._key(i), image, mask

    def size(self, i: int) -> tuple[int, int]:
        """Height and width, from the picture's header."""
        return self._open(i, stored_size)

    def _open(self, i: int, use: Callable) -> Any:
        try:
            return use(self._image(i))
        except Exception as error:  # PIL's readers raise nearly anything when the bytes are corrupt
            reason = str(error) or type(error).__name__
            raise InputError(f"cannot read {self.names(i)[0]} ({reason}): replace it") from error


def open_masked(key: str, root: str | Path, split: str | None, labels: int) -> Masked:
    """A segmentation set from its usual folders, or from its TFDS copy in ROOT/KEY as `groupvit data convert` makes."""
    try:
        pairs = segmentation_sets.pairs(key, root, split)
    except InputError as error:
        if (folder := tfds_sets.find(Path(root) / key)) is None:
            raise InputError(f"{error}, or a TFDS copy in DATA_ROOT/{key}") from None
        split = split or segmentation_sets.find_layout(key).split
        records = tfds_sets.Records(folder, split, "image", "mask", "key")
        return Masked(len(records), lambda i: records[i]["key"].decode(), lambda i: io.BytesIO(records[i]["image"]),
                      lambda i: segmentation_sets.read_mask(io.BytesIO(records[i]["mask"]), f"{folder} record {i}"),
                      lambda i: (f"image {i} of {folder}", f"mask {i} of {folder}"), labels)
    return Masked(len(pairs), lambda i: pairs[i][0], lambda i: pairs[i][1],
                  lambda i: segmentation_sets.read_labels(key, pairs[i][2]), lambda i: pairs[i][1:], labels)


def open_task(task: Task, root: str | Path, split: str | None, labels: int) -> tuple[Masked | None, Labelled | None]:
    """A task's pictures with masks and those with one class each; None where it has none."""
    masked = open_masked(task.key, root, split, labels) if task.segments else None
    return masked, classification_sets.open_set(task.key, root) if task.classifies else None


def open_all(openers: list[Callable]) -> list:
    """What each opener gives; or one InputError with what is wrong with any of them."""
    opened, problems = [], []
    for opener in openers:
        try:
            opened.append(opener())
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(" | ".join(problems))
    return opened


def sizes(masked: Masked, skipped: list[str] | None) -> list[tuple[int, int] | None]:
    """Height and width of each picture; None and a line in `skipped`, if that is a list, for what cannot be read."""
    def size(i: int) -> tuple[int, int] | None:
        with skipping(skipped is not None, skipped):
            return masked.size(i)

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(size, range(len(masked))))


@contextlib.contextmanager
def skipping(skip_bad: bool, skipped: list[str] | None) -> Iterator[None]:
    """With `skip_bad`, an InputError inside becomes a warning and a line in `skipped`."""
    try:
        yield
    except InputError as error:
        if not skip_bad or skipped is None:
            raise InputError(f"{error}, or go on without it by --skip_bad") from error
        skipped.append(str(error))
        logging.warning("left out: %s", error)
