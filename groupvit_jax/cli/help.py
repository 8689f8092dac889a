"""What `groupvit --help`, `groupvit VERB --help` and `groupvit --version` print, in 80 columns and without JAX."""

import importlib.metadata
import platform
import textwrap

from absl import flags

import groupvit_jax
from groupvit_jax.cli import verbs

WIDTH = 79  # columns: a terminal of 80 breaks no line
INDENT = 24  # where the text of a flag begins
PATHS = ("checkpoint", "class_file", "data", "data_root", "images", "output", "report", "source", "workdir")
WORDS = ("help", "--help", "-help", "-h")


def overview() -> str:
    """All verbs, a line each: a screen of 80x24."""
    lines = ["usage: groupvit VERB --flags", ""]
    for group, names in verbs.GROUPS.items():
        lines += [f"{title:9}{line}" for title, line in zip([group] + [""] * len(names), summaries(names))]
    return "\n".join([*lines, "",
                      "groupvit VERB --help has a verb's flags and examples, README.md all of it;",
                      "launch/quickstart.sh goes from nothing to segmented pictures in minutes.",
                      "groupvit --version says what is installed."])


def data() -> str:
    """The verbs that begin with "data"."""
    return "\n".join(["usage: groupvit data VERB --flags", "", *summaries(verbs.GROUPS["data"]), "",
                      "groupvit data VERB --help has a verb's flags and examples."])


def summaries(names: dict) -> list[str]:
    """A line for each verb: its name, and the first line of its module."""
    return [f"{name:14}{module.__doc__.splitlines()[0].rstrip('.')}" for name, module in names.items()]


def of(name: str) -> str:
    """One verb: its module's docstring, then its flags."""
    module = verbs.find(name)
    known = verbs.flags_of(module)
    doc = (module.__doc__ or "").strip()
    lines = [f"groupvit {name}: {doc[0].lower()}{doc[1:]}"]
    if known:
        lines += ["", "flags:", *(line for flag in known for line in described(flag))]
    return "\n".join(lines)


def described(flag: flags.Flag) -> list[str]:
    """A flag's lines: its form at the left, what it means and its default beside it."""
    text = meaning(flag)
    if flag.default not in (None, "") and flag.default is not False:
        text += f" (default: {(flag.default_as_str or '').strip(chr(39))})"
    form = f"  {spelled(flag)}"
    lines = textwrap.wrap(text, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False)
    lines = [" " * INDENT + line for line in lines]
    if len(form) >= INDENT - 1:
        return [form, *lines]
    return [form.ljust(INDENT) + lines[0].lstrip(), *lines[1:]]


def meaning(flag: flags.Flag) -> str:
    """Its help without what absl adds for enumerations and flags that may be repeated."""
    text = flag.help.removeprefix(f"<{'|'.join(choices(flag))}>: ")
    return text.removesuffix(";\n    repeat this option to specify a list of values")


def spelled(flag: flags.Flag) -> str:
    """As it is typed: --train=N, --[no]shuffle, --verify=on|off."""
    if flag.boolean:
        return f"--[no]{flag.name}" if isinstance(flag.parser, flags.BooleanParser) else f"--{flag.name}[=TEXT]"
    if choices(flag):
        return f"--{flag.name}={'|'.join(choices(flag))}"
    kinds = {"int": "N", "float": "X", "comma separated list of strings": "A,B", "config object": "FILE"}
    return f"--{flag.name}={kinds.get(flag.flag_type(), 'PATH' if flag.name in PATHS else 'TEXT')}"


def choices(flag: flags.Flag) -> list[str]:
    """The values of an enumeration."""
    return getattr(flag.parser, "enum_values", [])


def version() -> str:
    """groupvit_jax, and what its results depend on."""
    jax = importlib.metadata.version("jax")
    return f"groupvit_jax {groupvit_jax.__version__} (jax {jax}, Python {platform.python_version()})"
