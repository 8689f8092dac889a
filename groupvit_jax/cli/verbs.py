"""What `groupvit` can be told. A verb is a module; its docstring is its help, the first line what --help lists."""

import difflib
from collections.abc import Iterable
from types import ModuleType

from absl import flags

from groupvit_jax.cli import (
    compile,
    completion,
    data_convert,
    data_fashion,
    data_index,
    data_inspect,
    data_scenes,
    demo,
    eval,
    export,
    import_weights,
    segment,
    train,
)
from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS

# In the order of --help, by what they are for. The modules import JAX, NumPy and the like only where they run.
GROUPS = {
    "learn": {"train": train, "compile": compile},
    "score": {"eval": eval},
    "use": {"segment": segment, "demo": demo},
    "weights": {"import": import_weights, "export": export},
    "data": {"data scenes": data_scenes, "data fashion": data_fashion, "data index": data_index,
             "data inspect": data_inspect, "data convert": data_convert},
    "shell": {"completion": completion},
}  # fmt: skip
VERBS = {name: module for group in GROUPS.values() for name, module in group.items()}


def find(name: str) -> ModuleType:
    """The module of a verb, as "train" or "data index"; InputError names the verb that may have been meant."""
    if name in VERBS:
        return VERBS[name]
    if name.startswith("-"):
        raise InputError(f"{name!r} is no command, but comes after one; usage: groupvit VERB --flags, as in "
                         "groupvit train --config=configs/scenes.py --workdir=runs/first; groupvit --help lists the "
                         "commands")
    if name == "data":
        raise InputError(f"unknown command 'data': give one of {'|'.join(GROUPS['data'])}; groupvit data --help says "
                         "what they do")
    known = GROUPS["data"] if name.startswith("data ") else VERBS
    lists = f"groupvit{' data' * (known is not VERBS)} --help lists the commands, groupvit VERB --help the flags of one"
    if near := nearest(name, known):
        raise InputError(f"unknown command {name!r}: did you mean {near}? {lists}")
    raise InputError(f"unknown command {name!r}: there are {', '.join(known)}; {lists}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The verb that is spelled like this, whether or not "data" was said."""
    last = {verb.rpartition(" ")[2]: verb for verb in known}
    near = difflib.get_close_matches(name.rpartition(" ")[2].lower(), last, 1)
    return last[near[0]] if near else None


def flags_of(module: ModuleType) -> list[flags.Flag]:
    """The flags of a verb, in the order it defines them; absl forgets them again, as two verbs share names."""
    known = set(FLAGS)
    try:
        module.define_flags()
        return [FLAGS[name] for name in FLAGS if name not in known]
    finally:
        for name in set(FLAGS) - known:
            delattr(FLAGS, name)
