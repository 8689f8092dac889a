"""What may have been meant by a file, a flag or a field that is not there."""

import difflib
import pathlib
import re
import runpy

from absl import flags
from ml_collections import ConfigDict

PACKAGE = pathlib.Path(__file__).parent.parent
# Where configs/ lies: in the package of a wheel (setup.py), beside that of a checkout.
RECIPES = PACKAGE / "recipes" if (PACKAGE / "recipes").is_dir() else PACKAGE.parent


def other_file(file: pathlib.Path) -> str:
    """What to give in place of a configuration that is not there."""
    there = sorted((RECIPES / "configs").glob("[!_]*.py"))
    if near := difflib.get_close_matches(file.stem, [path.stem for path in there], 1):
        return f"did you mean configs/{near[0]}.py?"
    return f"configs/ has {', '.join(path.name for path in there)}: take one, as configs/scenes.py"


def other_flag(error: flags.UnrecognizedFlagError, verb: str) -> str:
    """What to write in place of a flag that the verb does not have."""
    said = f"{verb} has no flag {error.flagname!r}"
    lists = f"`groupvit {verb} --help` lists the flags"
    if near := re.search(r"Did you mean: (.*?) ?\?", str(error)):
        return f"{said}. Did you mean: {near[1]}? {lists}"
    fields = [name for name in base_fields() if name.rpartition(".")[2] == error.flagname]
    if "config" in flags.FLAGS and fields:
        return f"{said}; a field of the configuration is set by --config.{' or --config.'.join(fields[:3])}"
    return f"{said}; {lists}"


def base_fields() -> list[str]:
    """The dotted names of configs/base.py."""
    return fields_of(runpy.run_path(str(RECIPES / "configs" / "base.py"))["get_config"]())


def fields_of(config: ConfigDict) -> list[str]:
    """The dotted name of every field: data.batch, data.train[0].path."""
    names = []
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            names += [f"{name}.{inner}" for inner in fields_of(value)]
        elif isinstance(value, (list, tuple)) and any(isinstance(part, ConfigDict) for part in value):
            names += [f"{name}[{i}].{inner}" for i, part in enumerate(value) for inner in fields_of(part)]
        else:
            names.append(name)
    return names


def other_field(name: str, config: ConfigDict) -> str:
    """What to give in place of a field that is not there."""
    fields = fields_of(config)
    last = name.rpartition(".")[2]
    near = [field for field in fields if field.rpartition(".")[2] == last] or difflib.get_close_matches(name, fields, 2)
    lists = "configs/base.py lists all"
    return f"did you mean --config.{' or --config.'.join(near[:3])}? {lists}" if near else lists
