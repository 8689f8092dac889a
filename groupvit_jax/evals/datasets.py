"""Which data sets can be scored, and where they lie: one row each."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from groupvit_jax.errors import InputError
from groupvit_jax.evals.metrics import IGNORED


@dataclass(frozen=True)
class Task:
    """One segmentation data set in VOC's folder layout.

    folders: where it may lie under the data root, tried in order; source: where to get it.
    background: the threshold of label 0 by protocol; empty if every label is a class with a name of its own.
    """

    key: str
    folders: tuple[str, ...]
    source: str
    split: str = "val"
    background: dict[str, float] = field(default_factory=dict)


TASKS = (
    Task("scenes", ("VOCdevkit/scenes", "scenes", "."), "make them with `groupvit data scenes --output=DATA_ROOT`"),
    # Thresholds: GroupViT's for its own protocol, 0.5 for all data sets under TCL's (Cha et al., CVPR 2023).
    Task("voc", ("VOCdevkit/VOC2012", "VOC2012"),
         "unpack VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012 in DATA_ROOT",
         background={"groupvit": 0.95, "tcl": 0.5}),
)


def find_tasks(keys: list[str]) -> list[Task]:
    """The rows of these keys; InputError names those that there are."""
    known = {task.key: task for task in TASKS}
    for key in keys:
        if key not in known:
            raise InputError(f"no task {key!r}: choose among {', '.join(known)}")
    return [known[key] for key in keys]


class VocFolder:
    """Images and masks in VOC's layout: JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/SPLIT.txt.

    `folder[i]` is (key, image uint8 [h w 3], mask uint8 [h w]); `sizes` is int [n 2], each image's height and width,
    read from the headers. Every file of the split is looked for at once: InputError names the first that is missing.
    """

    def __init__(self, root: str | Path, split: str = "val"):
        self.root = Path(root)
        listing = self.root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listing.is_file():
            raise InputError(f"no split {split!r} in {self.root}: {listing} is missing")
        self.keys = [line.strip() for line in listing.read_text().splitlines() if line.strip()]
        if not self.keys:
            raise InputError(f"{listing} is empty: it should name one image a line")
        self.sizes = np.array([self._size(key) for key in self.keys])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> tuple[str, np.ndarray, np.ndarray]:
        image, mask = self._paths(self.keys[i])
        picture = _read(image, "RGB")
        labels = _read(mask, None)  # a palette image's values are its labels; converting it would give colours
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise InputError(f"{mask} is not a mask of 8-bit labels: save it as a grey or palette PNG")
        if labels.shape != picture.shape[:2]:
            raise InputError(f"{mask} is {labels.shape[1]}x{labels.shape[0]} but its image "
                             f"{picture.shape[1]}x{picture.shape[0]}: a mask must be as large as its image")
        return self.keys[i], picture, labels

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self.root / "JPEGImages" / f"{key}.jpg", self.root / "SegmentationClass" / f"{key}.png"

    def _size(self, key: str) -> tuple[int, int]:
        for path in self._paths(key):
            if not path.is_file():
                raise InputError(f"{path} is missing, but the split names {key!r}: complete the data set")
        return _read_size(self._paths(key)[0])


def _read(path: Path, mode: str | None) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode) if mode else image)
    except Exception as error:  # PIL's readers raise nearly anything when the bytes are corrupt
        raise InputError(f"cannot read {path} ({error}): replace it") from error


def _read_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:
        raise InputError(f"cannot read {path} ({error}): replace it") from error


def open_tasks(tasks: list[Task], data_root: str | Path, split: str | None = None) -> list[VocFolder]:
    """Opens the data sets of all tasks, or raises one InputError that says of each what is wrong with it.

    split: in place of the tasks' own. What is wrong: what is missing, where it was looked for, where to get it.
    """
    opened, problems = [], []
    for task in tasks:
        folders = [Path(data_root) / folder for folder in task.folders]
        found = [folder for folder in folders if (folder / "ImageSets" / "Segmentation").is_dir()]
        if not found:
            looked = ", ".join(str(folder) for folder in folders)
            problems.append(f"{task.key}: no ImageSets/Segmentation in {looked}; {task.source}")
            continue
        try:
            opened.append(VocFolder(found[0], split or task.split))
        except InputError as error:
            problems.append(f"{task.key}: {error}; {task.source}")
    if problems:
        raise InputError(" | ".join(problems))
    return opened


def check_labels(key: str, mask: np.ndarray, classes: int):
    """Raises InputError if a mask has a label that is neither a class nor ignored."""
    wrong = np.setdiff1d(mask[mask >= classes], [IGNORED])
    if wrong.size:
        raise InputError(f"the mask of {key} has label {wrong[0]}, but labels are 0 to {classes - 1} and "
                         f"{IGNORED} (ignored): it belongs to another data set, or its class list is incomplete")
