"""Reads the flags of a verb, and says in one line what is wrong with them."""

import os
import pathlib
import re
import runpy
import sys
import traceback

from absl import flags

from groupvit_jax.cli import suggestions
from groupvit_jax.cli.suggestions import RECIPES
from groupvit_jax.errors import InputError


def define_checkpoint() -> None:
    """The flag of what `inference.load` takes."""
    flags.DEFINE_string("checkpoint", None, "a training run's --workdir, one WORKDIR/checkpoints/STEP, an imported "
                        "model, a Hugging Face folder, a .safetensors or a .pth")


def parse(argv: list[str]) -> list[str]:
    """Reads `VERB --flags` into absl's FLAGS -> the arguments that are no flags.

    Raises InputError for unknown flags, wrong values, and a --config that cannot be had or overridden so.
    """
    argv = [re.sub(r"^--?config\.init_from(?==|$)", "--config.init_from.path", arg) for arg in argv]  # the short form
    recipe = config_flag(argv) if "config" in flags.FLAGS else None
    if recipe is not None:
        given, recipe = recipe, locate(recipe)
        argv = [arg.replace(given, recipe) if arg in (given, f"--config={given}", f"-config={given}") else arg
                for arg in argv]
        # Where its `from configs import base` is looked for: beside its folder, here, and with the package.
        sys.path[:0] = [str(pathlib.Path(recipe.partition(":")[0]).absolute().parent.parent), os.getcwd()]
        sys.path.append(str(RECIPES))
    sys.argv = ["groupvit", *argv]  # where ml_collections looks for overrides
    try:
        rest = flags.FLAGS(["groupvit " + argv[0], *argv[1:]])[1:]
        complete = recipe is None or hasattr(flags.FLAGS.config, "model")
    except Exception as error:  # a configuration is a Python file, and ml_collections runs it while flags are read
        raise InputError(mistake(error, argv, recipe)) from None
    if not complete:
        raise InputError(f"--config={recipe}: its get_config() returns no whole configuration; begin with "
                         "base.get_config(), as configs/scenes.py does")
    return rest


def config_flag(argv: list[str]) -> str | None:
    """FILE or FILE:VARIANT of --config."""
    for arg, following in zip(argv, [*argv[1:], ""]):
        name, equals, value = arg.partition("=")
        if name in ("--config", "-config"):
            return value if equals else following
    return None


def locate(recipe: str) -> str:
    """FILE[:VARIANT] of a recipe -> the same, where there is such a file: here, or else among those of the package."""
    for place in (recipe, str(RECIPES / recipe)):
        file = pathlib.Path(place.partition(":")[0])
        if file.is_file() and file.suffix != ".py":
            raise InputError(f"--config={recipe}: a configuration is a file of Python, as configs/scenes.py; copy that "
                             "one and set its fields")
        if file.is_file():
            return place
    raise InputError(f"--config={recipe}: no such file; {suggestions.other_file(file)}")


def mistake(error: BaseException, argv: list[str], recipe: str | None) -> str:
    """What an exception from reading the flags says to a person."""
    chain = [error]  # absl and ml_collections wrap what they catch; the last is what happened
    while (inner := chain[-1].__context__) is not None:
        chain.append(inner)
    root, file = chain[-1], (recipe or "").partition(":")[0]
    if isinstance(root, InputError):
        return str(root)
    if isinstance(root, SyntaxError):
        return f"--config={recipe}: {root.filename}, line {root.lineno}, is no Python: {root.msg}"
    for raised in reversed(chain):
        own = [frame.lineno for frame in traceback.extract_tb(raised.__traceback__)
               if recipe and os.path.abspath(frame.filename) == os.path.abspath(file)]
        if own:
            return f"--config={recipe}, line {own[-1]}: {type(raised).__name__}: {said(raised)}; mend the file"
    if "is not supported for overriding" in str(error):
        return (f"{unsupported(argv, str(error))}: a list of sections is not given as a whole; set its parts, as "
                "--config.data.train[0].path=P, or write a configuration file")
    if after := re.match(r"Flag (--\S+) is provided after (--\S+)", str(error)):  # a section after its fields
        return f"{after[1]} is a section, not given as a whole: set its fields, as {after[2]}=VALUE"
    if "--config." in str(error):  # a value that cannot become the field's type
        return f"{wrong_value(str(error))}; configs/base.py shows what kind of value each field has"
    if "whilst parsing config file" in str(error):  # quotes a traceback
        return f"--config={recipe}: {said(root)}; mend the file"
    if isinstance(error, flags.UnrecognizedFlagError):
        return suggestions.other_flag(error, argv[0])
    if isinstance(error, flags.Error):
        return f"{wrong_value(str(error))}; `groupvit {argv[0]} --help` lists the flags"
    if unknown := recipe and unknown_override(argv, recipe):
        return unknown
    return f"--config={recipe}: {said(error)}; mend the file or the overrides"


def wrong_value(message: str) -> str:
    """absl's message about a flag's value, with what would be one."""
    if given := re.fullmatch(r"Missing value for flag (--\S+)", message):
        return f"{given[1]} has no value: write {given[1]}=VALUE"
    message = message.removeprefix("flag ").rstrip(".")
    kinds = {"invalid literal for int": "give a whole number", "convert string to float": "give a number",
             "Non-boolean argument": "give True or False", "is not a positive": "give 1 or more"}
    for words, wanted in kinds.items():
        message = re.sub(rf"(?<=: ).*{words}.*", wanted, message)
    return re.sub(r"value should be one of <(.*)>", r"choose one of \1", message)


def unknown_override(argv: list[str], recipe: str) -> str | None:
    """About the first override whose field the configuration does not have."""
    from ml_collections.config_flags import config_path

    file, _, variant = recipe.partition(":")
    for arg in argv:
        name = arg.partition("=")[0].lstrip("-").removeprefix("config.")
        if not arg.lstrip("-").startswith("config."):
            continue
        config = runpy.run_path(file)["get_config"](*[variant] if variant else [])
        try:
            config_path.get_value(name, config)
        except Exception:  # a wrong path raises whatever the object on its way does
            return f"{arg}: the configuration has no such field; {suggestions.other_field(name, config)}"
    return None


def unsupported(argv: list[str], error: str) -> str:
    """The override that absl's message is about."""
    fields = {arg.partition("=")[0].lstrip("-"): arg for arg in argv}
    return next((arg for name, arg in fields.items() if name and f" {name} " in error), "--config")


def said(error: BaseException) -> str:
    """An exception's text; that of a KeyError is in quotes of its own."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
