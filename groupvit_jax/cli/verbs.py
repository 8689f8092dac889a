"""What `groupvit` can be told. A verb is a module; its docstring is its help, the first line what --help lists."""

import difflib
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
    "use": {"segment": segment},
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
        raise InputError(f"{name!r} comes after a command; usage: groupvit VERB --flags, as in groupvit train "
                         "--config=configs/scenes.py --workdir=runs/first; groupvit --help lists the commands")
    if name == "data":
        raise InputError(f"unknown command 'data': give one of {'|'.join(GROUPS['data'])}; groupvit data --help says "
                         "what they do")
    if name.startswith("data "):
        raise InputError(f"unknown command {name!r}{meant(name, GROUPS['data'])}; there are "
                         f"{', '.join(GROUPS['data'])}")
    raise InputError(f"unknown command {name!r}{meant(name, VERBS)}; groupvit --help lists the commands, "
                     "groupvit VERB --help the flags of one")


def meant(name: str, names) -> str:
    """": did you mean ...?" for what is like one of the names, or else nothing."""
    tails = {known.rpartition(" ")[2]: known for known in names}  # scenes: data scenes
    near = difflib.get_close_matches(name, names, 1) or difflib.get_close_matches(name.rpartition(" ")[2], tails, 1)
    return f": did you mean {tails.get(near[0], near[0])}?" if near else ""


def flags_of(module: ModuleType) -> list[flags.Flag]:
    """The flags of a verb, in the order it defines them; absl forgets them again, as two verbs share names."""
    known = set(FLAGS)
    try:
        module.define_flags()
        return [FLAGS[name] for name in FLAGS if name not in known]
    finally:
        for name in set(FLAGS) - known:
            delattr(FLAGS, name)
