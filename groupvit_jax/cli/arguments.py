"""Reads the flags of a verb, and says in one line what is wrong with them."""

import os
import pathlib
import re
import runpy
import sys
import traceback

from absl import flags

from groupvit_jax.errors import InputError


def parse(argv: list[str]) -> list[str]:
    """Reads `VERB --flags` into absl's FLAGS -> the arguments that are no flags.

    Raises InputError for unknown flags, wrong values, and a --config that cannot be had or overridden so.
    """
    argv = [re.sub(r"^--?config\.init_from(?==|$)", "--config.init_from.path", arg) for arg in argv]  # the short form
    sys.argv = ["groupvit", *argv]  # where ml_collections looks for overrides
    recipe = config_flag(argv) if "config" in flags.FLAGS else None
    if recipe is not None:
        file = pathlib.Path(recipe.partition(":")[0])
        if not file.is_file():
            raise InputError(f"--config={recipe}: no such file; configs/ has some, as configs/scenes.py")
        # Where its `from configs import base` is looked for: beside its folder, and here.
        sys.path[:0] = [str(file.absolute().parent.parent), os.getcwd()]
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
    if "--config." in str(error):  # a value that cannot become the field's type
        return f"{error}; configs/base.py shows what kind of value each field has"
    if "whilst parsing config file" in str(error):  # quotes a traceback
        return f"--config={recipe}: {said(root)}; mend the file"
    if isinstance(error, flags.Error):
        return str(error).replace(" ?", "?").rstrip(".") + f"; `groupvit {argv[0]} --help` lists the flags"
    if unknown := recipe and unknown_override(argv, recipe):
        return f"{unknown}: the configuration has no such field; configs/base.py lists all"
    return f"--config={recipe}: {said(error)}; mend the file or the overrides"


def unknown_override(argv: list[str], recipe: str) -> str | None:
    """The first override whose field the configuration does not have."""
    from ml_collections.config_flags import config_path

    file, _, variant = recipe.partition(":")
    for arg in argv:
        name = arg.partition("=")[0].lstrip("-")
        try:
            if arg.startswith("-") and name.startswith("config."):
                config = runpy.run_path(file)["get_config"](*[variant] if variant else [])
                config_path.get_value(name.removeprefix("config."), config)
        except Exception:  # a wrong path raises whatever the object on its way does
            return arg
    return None


def unsupported(argv: list[str], error: str) -> str:
    """The override that absl's message is about."""
    fields = {arg.partition("=")[0].lstrip("-"): arg for arg in argv}
    return next((arg for name, arg in fields.items() if name and f" {name} " in error), "--config")


def said(error: BaseException) -> str:
    """An exception's text; that of a KeyError is in quotes of its own."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
