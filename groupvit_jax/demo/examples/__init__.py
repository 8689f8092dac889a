"""Photographs to begin with, free to use: see LICENSES beside them."""

import pathlib
from typing import NamedTuple

HERE = pathlib.Path(__file__).parent


class Example(NamedTuple):
    """A photograph's file, words for it, and what is said of its licence."""

    file: str
    words: str
    licence: str

    @property
    def path(self) -> str:
        return str(HERE / self.file)


EXAMPLES = (
    Example("chelsea.jpg", "cat; kitten, blanket, wall", "Chelsea the cat: Stefan van der Walt, CC0"),
    Example("coffee.jpg", "cup; coffee cup, saucer, spoon, wooden table; table", "Coffee: Rachel Michetti, CC0"),
    Example("rocket.jpg", "rocket, sky, fire; flame, tower, grass", "Rocket: SpaceX, public domain"),
    Example("astronaut.jpg", "woman; astronaut, flag, space shuttle, wall", "Eileen Collins: NASA, public domain"),
)
