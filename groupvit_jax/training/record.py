"""WORKDIR/run.json, which says what a run is and how it came to be; and the check that it goes on as what it is.

{"id": "9f3a...", "config": {...}, "starts": [{"time", "step", "command", "code", "versions", ..., "ended": {...}}]}:
the configuration as it was resolved, and an entry for each start. One without "ended" was killed, or still runs.
"""

import datetime
import importlib.metadata
import itertools
import json
import pathlib
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from groupvit_jax import files
from groupvit_jax.errors import InputError
from groupvit_jax.models import two_towers
from groupvit_jax.training import state as states
from groupvit_jax.training.checkpoint import to_json

FILE = "run.json"
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

# Every field of a configuration is in one of these; "model." stands for all below it. A run goes on only with the same
# values of those that say what is computed. The others say how: the results are the same but for rounding, or are not
# of the training. The place of the data is among them: files may move, as their fingerprint tells them.
COMPUTED = (
    "seed", "model.", "augment.", "optim.", "train.epochs", "train.steps", "train.warmup_epochs", "train.warmup_steps",
    "data.train", "data.train.name", "data.train.source", "data.train.weight", "data.batch", "data.group",
    "data.decode", "data.prompts", "data.templates", "data.tagger", "data.packing", "data.pack_length",
    "data.caption_tokens", "data.prompt_tokens",
)  # fmt: skip
HOW = (
    "seeds", "mesh.", "checkpoint.", "eval.", "init_from.", "data.train.path", "data.threads", "data.workers",
    "data.worker_restarts", "data.prefetch", "data.cache", "data.max_bad", "train.microbatches", "train.remat",
    "train.scan", "train.log_every", "train.profile", "train.hang_timeout", "train.skip_limit", "train.collapse",
    "train.wandb",
)  # fmt: skip
Difference = tuple[str, Any, Any]  # dotted name, the run's value, the one here; None where there is no such field


class Run:
    """What is on record of the run in a workdir, for the time of one start. Process 0 writes, all may read.

    `with Run(workdir, data) as run: ...; run.start(config, step)` adds an entry to run.json, and leaving says in it
    when, at which `run.step` and how this start ended: "done", "stopped: MESSAGE", or `run.how` where that is set.

    data: the fingerprint of the data at hand, see sources.fingerprint.
    Raises InputError when the file there cannot be read.
    """

    def __init__(self, workdir: str, data: str = "") -> None:
        self.path, self.data, self.step, self.how = pathlib.Path(workdir) / FILE, data, 0, ""
        self.content = read(workdir) or {"id": secrets.token_hex(6), "starts": []}
        self.entry: dict[str, Any] | None = None  # of this start

    @property
    def id(self) -> str:
        """Names this run and no other, however often it is started."""
        return self.content["id"]

    def data_at(self, step: int) -> str:
        """The fingerprint of the data that the checkpoint of `step` was trained on; "" where none is on record."""
        before = [start for start in self.content["starts"] if start["step"] < step]
        return before[-1]["data"] if before else ""

    def start(self, config: ConfigDict, step: int) -> None:
        """An entry for a start that goes on from `step`."""
        now, before = to_json(config), self.content.get("config")
        changes = {name: values for name, *values in differences(before, now)} if before else {}
        self.step, self.entry = step, about() | {"step": step, "data": self.data} | (
            {"changes": changes} if changes else {})
        self.content = {"id": self.id, "config": now, "starts": [*self.content["starts"], self.entry]}
        self._write()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        if self.entry is None:
            return
        said = " ".join(str(error).split())[:300] or kind and kind.__name__
        how = self.how or (f"stopped: {said}" if error else "done")
        self.entry["ended"] = {"time": now_utc(), "step": self.step, "how": how}
        try:
            self._write()
        except InputError as full:  # what ended the run matters more
            logging.warning("%s", full)

    def _write(self) -> None:
        if jax.process_index() == 0:
            files.write(self.path, (json.dumps(self.content, indent=1) + "\n").encode())


def read(workdir: str) -> dict[str, Any] | None:
    """The content of a workdir's run.json; None where there is none. InputError when it is none."""
    path = pathlib.Path(workdir) / FILE
    try:
        content = json.loads(path.read_text())
        content["id"], [(start["step"], start["data"]) for start in content["starts"]]
        return content
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path} is no record of a run ({type(error).__name__}: {error}): move it away, and the run "
                         "goes on with a new one") from None


def about() -> dict[str, Any]:
    """Of this process: time, command, code, versions, devices. Nothing of its environment, where secrets are."""
    return {"time": now_utc(), "command": sys.argv, "code": code(),
            "versions": {"python": sys.version.split()[0]} | {name: version(name) for name in LIBRARIES},
            "devices": {"kind": jax.devices()[0].device_kind, "number": jax.device_count()},
            "processes": jax.process_count(), "host": socket.gethostname()}


def now_utc() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def code() -> dict[str, Any]:
    """{"commit", "changed": whether files differ from it} where this package lies in a git checkout of its own, else
    {"version"}."""
    root = pathlib.Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        ended = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, timeout=60, check=True)
        return ended.stdout.strip()

    if (root / ".git").exists():  # not that of a project which merely has this package installed below it
        try:
            return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
        except (OSError, subprocess.SubprocessError):  # no git here, or one that does not trust the folder
            pass
    return {"version": version("groupvit_jax")}


# ---------------------------------------------------------------- the check


def check(ours: ConfigDict, theirs: dict[str, Any], workdir: str, force: bool = False, data: str = "",
          data_then: str = "") -> None:
    """Whether the run in `workdir`, of configuration `theirs`, may go on with `ours`; logs what changes.

    force: also with another computation, as long as the state fits. data, data_then: fingerprints; "" is not known.
    Raises InputError that shows the differences.
    """
    here = to_json(ours)
    computed: list[Difference] = []
    how: list[Difference] = []
    if data and data_then and data != data_then:
        computed.append(("the data: fingerprint", data_then, data))
    for difference in differences(theirs, here):
        (computed if is_computed(difference, ours, theirs) else how).append(difference)
    if computed and not force:
        raise InputError(refusal(computed, workdir))
    if any(re.match(r"config\.(model|data\.prompts)\b", name) for name, *_ in computed):
        check_fits(ours, theirs, workdir)
    for name, old, new in computed:
        logging.warning("--resume=force: %s was %s in this run so far and is %s from here on", name, old, new)
    for name, old, new in how:
        logging.warning("%s was %s in this run so far and is %s from here on", name, old, new)


def differences(old: Any, new: Any, name: str = "config") -> Iterator[Difference]:
    """Leaves that differ, those of the items of lists of dicts, too: "config.data.train[0].path"."""
    dicts = lambda x: isinstance(x, list) and x and all(isinstance(item, dict) for item in x)  # noqa: E731
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}")
    elif dicts(old) and dicts(new) and len(old) != len(new):
        yield name, [item.get("name") for item in old], [item.get("name") for item in new]
    elif dicts(old) and dicts(new):
        for i, (a, b) in enumerate(zip(old, new)):
            yield from differences(a, b, f"{name}[{i}]")
    elif old != new:
        yield name, old, new


def is_computed(difference: Difference, ours: ConfigDict, theirs: dict[str, Any]) -> bool:
    """Whether it changes what is computed. A field that one side lacks, being of another version, does not, unless the
    model becomes another."""
    name, old, new = difference
    if name == "config.data.group":  # versions without it drew samples in another order
        return True
    if old is None or new is None:
        return name.startswith("config.model") and not same_model(ours, theirs)
    return kinds(name) != ["how"]


def kinds(name: str) -> list[str]:
    """In which of the two tables the field of a dotted name is; a recipe's own fields are in none."""
    plain = re.sub(r"\[\d+\]", "", name.removeprefix("config."))
    fits = lambda entry: plain.startswith(entry) if entry.endswith(".") else plain == entry  # noqa: E731
    return [kind for kind, table in (("computed", COMPUTED), ("how", HOW)) if any(map(fits, table))]


def built(config: ConfigDict) -> two_towers.TwoTowers:
    return two_towers.build(config.model, config.data.prompts > 0)


def same_model(ours: ConfigDict, theirs: dict[str, Any]) -> bool:
    """Whether they build equal models, each field that is missing being this version's default."""
    try:
        return built(ours) == built(ConfigDict(theirs))
    except (InputError, LookupError, TypeError, AttributeError):  # of a version that this one does not understand
        return False


def check_fits(ours: ConfigDict, theirs: dict[str, Any], workdir: str) -> None:
    """Raises InputError naming the first array of the state that has another shape, or is on one side only."""
    def shapes(config: ConfigDict) -> Any:
        leaves = jax.tree.leaves_with_path(states.abstract_variables(built(config)))
        return {jax.tree_util.keystr(path, simple=True, separator="/"): x.shape for path, x in leaves}

    remedy = "choose another --workdir (--config.init_from takes weights that fit)"
    prompts = theirs["data"]["prompts"]
    if bool(prompts) != bool(ours.data.prompts):
        raise InputError(f"--workdir={workdir}: --resume=force cannot make config.data.prompts {ours.data.prompts} of "
                         f"{prompts}, which the state does not fit: {remedy}")
    try:
        here, there = shapes(ours), shapes(ConfigDict(theirs))
    except (LookupError, TypeError, AttributeError) as error:
        raise InputError(f"--workdir={workdir} holds a model that this version cannot build ({error}): {remedy}"
                         ) from None
    for name in itertools.chain(there, here):
        if here.get(name) != there.get(name):
            raise InputError(f"--workdir={workdir}: --resume=force cannot change the state's shapes, {name} is "
                             f"{there.get(name)} in the run and would be {here.get(name)}: {remedy}")


def refusal(computed: list[Difference], workdir: str) -> str:
    """One line of less than 500 characters with as many of the differences as there is room for, one at least."""
    shown = [f"{name} {short(new)} here, {short(old)} in the run" for name, old, new in computed]
    head = f"--workdir={workdir} holds a run that computes something else ("
    tail = "): choose another --workdir, give the run's own configuration, or go on with this one by --resume=force"
    room = 470 - len(head) - len(tail)
    number = max(1, sum(n <= room for n in itertools.accumulate(len(text) + 2 for text in shown)))
    more = f"; and {len(shown) - number} more" if number < len(shown) else ""
    return head + "; ".join(shown[:number]) + more + tail


def short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
