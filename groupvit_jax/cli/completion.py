"""Prints a script for the shell: Tab completes commands.

    eval "$(groupvit completion bash)"        # or zsh; in ~/.bashrc, ~/.zshrc
    groupvit completion fish > ~/.config/fish/completions/groupvit.fish

Tab then completes commands, flags, their values, file names, and the fields of
configs/base.py after --config. Nothing of Python runs for it; print the script
again after an update.
"""

import shlex
from typing import NamedTuple

from absl import flags

from groupvit_jax.cli.completion_scripts import BASH, FISH, ZSH
from groupvit_jax.errors import InputError

# What some flags take that is not an enumeration: one of these words, or several with commas.
TASKS = ("voc", "voc20", "context", "context59", "coco_object", "coco_stuff", "cityscapes", "ade20k", "imagenet",
         "scenes", "fashion")
WORDS = {"tasks": TASKS, "dataset": ("pairs", *(task for task in TASKS if task != "imagenet")),
         "topology": ("v5e:8x8", "v5e:16x16", "v4:2x2x4", "v5p:2x2x4", "v6e:4x8"),
         "templates": ("photo", "subset", "full")}


class Option(NamedTuple):
    """A flag. takes: "nothing", "one" or "some" of `words`, a "file", a configuration ("config"), or what cannot be
    guessed ("text")."""

    name: str  # --workdir
    takes: str
    words: tuple[str, ...] = ()
    help: str = ""


def define_flags() -> None:
    pass


def main(rest: list[str]) -> None:
    scripts = {"bash": bash, "zsh": zsh, "fish": fish}
    if len(rest) != 1 or rest[0] not in scripts:
        raise InputError('usage: groupvit completion bash|zsh|fish, as in eval "$(groupvit completion bash)"')
    print(scripts[rest[0]](table()), end="")


def table() -> dict[str, list[Option]]:
    """The options of every verb."""
    from groupvit_jax.cli import suggestions, verbs

    fields = [Option(f"--config.{name}", "file") for name in suggestions.base_fields()]
    made = {}
    for verb, module in verbs.VERBS.items():
        options = [option for flag in verbs.flags_of(module) for option in options_of(flag)]
        made[verb] = options + (fields if any(option.takes == "config" for option in options) else [])
    return made


def options_of(flag: flags.Flag) -> list[Option]:
    """What a flag is typed as: a switch also with "no"."""
    from groupvit_jax.cli import help

    name, meaning = f"--{flag.name}", help.meaning(flag)
    if flag.boolean:
        return [Option(name, "nothing", help=meaning), Option(f"--no{flag.name}", "nothing", help=f"not {name}")]
    if help.choices(flag):
        return [Option(name, "one", tuple(help.choices(flag)), meaning)]
    if flag.name == "views":
        from groupvit_jax import viz

        return [Option(name, "some", tuple(viz.VIEWS), meaning)]
    if flag.name in WORDS:
        return [Option(name, "some" if flag.name == "tasks" else "one", WORDS[flag.name], meaning)]
    if flag.flag_type() == "config object":
        return [Option(name, "config", (), meaning)]
    return [Option(name, "file" if flag.name in help.PATHS else "text", (), meaning)]


def summary(verb: str) -> str:
    from groupvit_jax.cli import verbs

    return (verbs.find(verb).__doc__ or "").partition("\n")[0].rstrip(".")


def firsts(made: dict[str, list[Option]]) -> tuple[list[str], list[str]]:
    """The first words of a command, and the second ones after "data"."""
    return [*dict.fromkeys(verb.split()[0] for verb in made)], [verb[5:] for verb in made if verb.startswith("data ")]


def filled(script: str, made: dict[str, list[Option]]) -> str:
    """A script for bash or zsh with the verbs, their flags, and what these take, as lines of `case`."""
    first, data = firsts(made)
    names = {verb: " ".join(option.name + "=" * (option.takes != "nothing") for option in options)
             for verb, options in made.items()}
    lines = [f"    {shlex.quote(verb)}) flags={shlex.quote(names[verb] + ' --help')} ;;" for verb in made if made[verb]]
    kinds = {f"{verb} {option.name}": (option.takes, " ".join(option.words)) for verb, options in made.items()
             for option in options if option.takes not in ("nothing", "file")}
    takes = [f"    {shlex.quote(flag)}) takes={kind} some={shlex.quote(words)} ;;" for flag, (kind, words) in
             kinds.items()]
    return (script.replace("@FIRST@", " ".join([*first, "help", "--help", "--version"]))
            .replace("@DATA@", " ".join([*data, "--help"])).replace("@FLAGS@", "\n".join(lines))
            .replace("@TAKES@", "\n".join(takes)))


def bash(made: dict[str, list[Option]]) -> str:
    return filled(BASH, made)


def zsh(made: dict[str, list[Option]]) -> str:
    """With a line about each verb."""
    first, _ = firsts(made)
    told = [f"{verb}:{'Prepares and examines data' if verb == 'data' else summary(verb)}" for verb in first]
    return filled(ZSH, made).replace("@TOLD@", " ".join(map(shlex.quote, told)))


def fish(made: dict[str, list[Option]]) -> str:
    """A line for every verb and flag; fish shows what they mean beside them."""
    first, data = firsts(made)
    lines = [f"complete -c groupvit -n '__groupvit_says' -a {verb} -d " +
             quoted("Prepares and examines data" if verb == "data" else summary(verb)) for verb in first]
    lines += [f"complete -c groupvit -n '__groupvit_says data' -a {verb} -d {quoted(summary(f'data {verb}'))}"
              for verb in data]
    lines += ["complete -c groupvit -n '__groupvit_says completion' -a 'bash zsh fish'",
              "complete -c groupvit -l help -d 'Flags and examples'",
              "complete -c groupvit -n '__groupvit_says' -l version -d 'What is installed'"]
    forms = {"nothing": "", "file": "-r -F", "text": "-x", "config": "-x -a '(__groupvit_configs)'"}
    for verb, options in made.items():
        for option in options:
            words = " ".join(option.words)
            form = {"one": f"-x -a '{words}'", "some": f"-x -a '(__fish_append , {words})'"} | forms
            lines.append(f"complete -c groupvit -n '__groupvit_for {verb}' -l {quoted(option.name[2:])} "
                         f"{form[option.takes]} -d {quoted(option.help[:60])}")
    return FISH + "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """For fish, where a backslash escapes in single quotes, too."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
