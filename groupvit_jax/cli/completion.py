"""Prints a script for the shell: Tab completes commands.

    eval "$(groupvit completion bash)"
"""

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    pass


def main(rest: list[str]) -> None:
    raise InputError("usage: groupvit completion bash|zsh|fish")
