"""The evaluator: data sets and a model to scores, as the command line, training and tests want them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from groupvit_jax import parallel
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classification, counting, datasets
from groupvit_jax.evals.prompts import Queries, TextEncoder, make_queries
from groupvit_jax.evals.protocol import Protocol
from groupvit_jax.evals.scoring import Look, Segments, Wholes
from groupvit_jax.evals.tiles import LABELS
from groupvit_jax.evals.windows import SIDES, Geometry
from groupvit_jax.models.two_towers import TwoTowers

BATCH = {"cpu": 1}  # one window's attention already fills a core's caches
MOST = 1 << 12  # windows of a device
PUBLISHED, WHOLE = Protocol(), Geometry()


class Evaluator:
    """Scores a model on some tasks: `evaluator(variables)` as often as one likes; only the first call compiles.

    One program encodes texts, one counts the segments of all data sets, whatever the sizes of their images and the
    number of their classes, and one classifies whole pictures. (Images more than long/size times as long as they are
    high have lower windows, and need one more for each such height; so does a set with a picture above 6 megapixels.)

    Arguments:
      model: a `TwoTowers`.
      tasks: keys of `datasets.TASKS`.
      data_root: the folder they lie in; problems of any of them raise one InputError here, before an image is read.
      mesh: the devices to use; all if None.
      batch: windows or pictures of a device that the towers see together, 0 for what suits it.
      text_batch: texts that they see together.
      split: of every segmentation set, in place of its own.
      skip_bad: whether pictures that cannot be used are left out and reported; else they raise InputError.
      progress: whether to print it.
      each: whether a call keeps in `evaluator.each` the mIoU of each picture, float32 [pictures] by task, NaN for those
        left out. The program that tells pictures apart is another, a little slower; `look` needs it, too.
    """

    def __init__(self, model: TwoTowers, tasks: list[str], data_root: str | Path, *,
                 mesh: jax.sharding.Mesh | None = None, protocol: Protocol = PUBLISHED,
                 geometry: Geometry = WHOLE, batch: int = 0, text_batch: int = 64,
                 split: str | None = None, skip_bad: bool = False, progress: bool = False, each: bool = False) -> None:
        if not 0 <= batch <= MOST:
            raise InputError(f"batch={batch}: give how many windows a device takes at a time, up to {MOST}, or 0 for "
                             "what suits it")
        self.tasks = datasets.find_tasks(tasks)
        self.protocol, self.geometry, self.progress = protocol, geometry, progress
        if protocol.class_file and len(self.tasks) > 1:
            raise InputError(f"{protocol.class_file} names the classes of one data set: score one task with it")
        if protocol.background and not any(task.background for task in self.tasks):
            raise InputError(f"no background in {', '.join(tasks)}: leave out the words for it")
        self.mesh = mesh or parallel.create_mesh()
        batch = batch or BATCH.get(self.mesh.devices.flat[0].platform, 16)
        self.lists = [protocol.class_list(task) for task in self.tasks]
        for task, (names, *_) in zip(self.tasks, self.lists):
            if task.segments and len(names) >= LABELS:
                raise InputError(f"{task.key}: {len(names)} labels, but masks can hold {LABELS - 1}: give fewer")
        opened = datasets.open_all([partial(datasets.open_task, task, data_root, split, len(names))
                                    for task, (names, *_) in zip(self.tasks, self.lists)])
        for task, (_, labelled), (names, *_) in zip(self.tasks, opened, self.lists):
            if labelled and (len(names) < labelled.classes or not task.segments and len(names) > labelled.classes):
                raise InputError(f"{task.key}: {len(names)} labels for {labelled.classes} classes: give one line each")
        self.scorers = [
            (masked and Segments(masked, names, geometry, batch, model.image.patch_size, self.mesh, skip_bad),
             labelled and Wholes(labelled, model.image.image_size, batch, self.mesh, skip_bad))
            for (masked, labelled), (names, *_) in zip(opened, self.lists)]
        parallel.check_agreement([scorer.described() for pair in self.scorers for scorer in pair if scorer])
        ways = parallel.ways(self.mesh)
        self.text = TextEncoder(model, -(-text_batch // ways) * ways, self.mesh)
        self.slots = max(sum(map(len, words)) for _, words, _ in self.lists)
        make = partial(counting.make_counter, model, self.mesh, batch, geometry.flip, protocol.pamr, protocol.oracle)
        self.count, self.count_apart = make(), make(apart=True)  # compiled when first called
        self.each: dict[str, np.ndarray] | None = {} if each else None
        self.classify = classification.make_counter(model, self.mesh)

    @classmethod
    def from_config(cls, model: TwoTowers, config: ConfigDict, **more: Any) -> "Evaluator":
        """From `config.eval`; `more` replaces its fields, or is further arguments. `every` is the training loop's."""
        settings = {**config, **more}
        settings.pop("every", None)
        geometry = {name: settings.pop(name) for name in SIDES}
        geometry |= {name: settings.pop(name) for name in ("scales", "flip") if name in settings}
        tasks, data_root = list(settings.pop("tasks")), settings.pop("data_root")
        return cls(model, tasks, data_root, geometry=Geometry(**geometry), **settings)

    def __call__(self, variables: dict[str, Any]) -> dict[str, dict]:
        """Scores by task, in percent; the JSON of `groupvit eval`, with each confusion matrix as int64 [truth label].

        variables: the model's, on the host or on devices; those on this mesh stay where they are, sharded or not.
        """
        with parallel.use(self.mesh):
            variables = parallel.place(variables, self.mesh)
            return {task.key: self.score(variables, task, *row)
                    for task, *row in zip(self.tasks, self.lists, self.scorers)}

    def queries(self, variables: dict[str, Any], task: datasets.Task, class_list: tuple) -> Queries:
        _, words, threshold = class_list
        return make_queries(lambda texts: self.text(variables, texts), words, self.protocol.prompts(task), threshold,
                            self.protocol.top, self.slots)

    def names(self, key: str) -> list[str]:
        """Of a task's labels."""
        return self.lists[self.place(key)][0]

    def place(self, key: str) -> int:
        """Of a task, in `tasks`, `lists` and `scorers`."""
        return [task.key for task in self.tasks].index(key)

    def look(self, variables: dict[str, Any], key: str) -> Callable[[int], Look]:
        """What gives a picture of a segmentation task, by its number, with the labels that were counted of it and the
        groups. All processes call both."""
        i = self.place(key)
        segments, oracle = self.scorers[i][0], self.protocol.oracle
        with parallel.use(self.mesh):
            variables = parallel.place(variables, self.mesh)
            queries = self.queries(variables, self.tasks[i], self.lists[i])

        def look(picture: int) -> Look:
            with parallel.use(self.mesh):
                return segments.look(partial(self.count_apart, variables, queries), oracle, picture)

        return look

    def score(self, variables: dict[str, Any], task: datasets.Task, class_list: tuple, scorers: tuple) -> dict:
        queries = self.queries(variables, task, class_list)
        changes = self.protocol.changes(task) + (self.geometry.changes() if task.segments else [])
        scores = {"protocol": self.protocol.name} | ({"changes": changes} if changes else {})
        segments, wholes = scorers
        title = task.key if self.progress else None
        if segments and self.each is not None:
            self.each[task.key] = each = np.full(len(segments.masked), np.nan, np.float32)
            scores |= segments(partial(self.count_apart, variables, queries), self.protocol.oracle, title, each)
        elif segments:
            scores |= segments(partial(self.count, variables, queries), self.protocol.oracle, title)
        if wholes:
            scores |= wholes(partial(self.classify, variables, queries.first(wholes.labelled.classes)), title)
        return scores | ({"published": task.published} if task.published else {})
