"""Captions for scenes: a small grammar that names what it is given and nothing else."""

from collections.abc import Mapping, Sequence

import numpy as np

_PLURALS = {"leaf": "leaves", "fish": "fish", "strawberry": "strawberries", "dress": "dresses",
            "trousers": "trousers", "sandals": "sandals"}  # fmt: skip
_NO_SINGULAR = {"trousers", "sandals"}
_NUMBERS = (None, None, "two", "three", "four")

_PLACES = {
    "sky": ("in the sky", "in the sky", "against the sky", "under the sky"),
    "grass": ("on the grass", "in the grass", "on grass"),
    "sand": ("on the sand", "in the sand", "on sand"),
    "night": ("at night", "in the night", "by night"),
    "road": ("on the road", "on a road", "along the road"),
    "paper": ("on paper", "on the paper", "on white paper"),
    "wood": ("on wood", "on the wood", "on brown wood"),
    "carpet": ("on the carpet", "on a carpet", "on the carpet"),
}
_BARE = {
    "sky": ("the sky", "sky"),
    "grass": ("the grass", "grass"),
    "sand": ("the sand", "sand"),
    "night": ("the night", "night"),
    "road": ("the road", "a road"),
    "paper": ("the paper", "white paper"),
    "wood": ("the wood", "wood"),
    "carpet": ("the carpet", "a carpet"),
}

# {things} a list of names, {be} is or are, {place} " on the sand" or nothing. Few templates hold nouns or
# verbs of their own: prompts are made of the nouns and verbs of a caption, and most should name what is
# seen. None says "only": a caption may leave something out.
_TEMPLATES = (
    *6 * ("{things}{place}",),
    *2 * ("{things}{place}.",),
    "{things}{place}!",
    "with {things}{place}",
    "and now, {things}{place}",
    "once more {things}{place}",
    "{things} here{place}",
    "oh, {things}{place}",
    "there {be} {things}{place}",
    "here {be} {things}{place}",
    "we saw {things}{place}",
    "photo of {things}{place}",
    "a picture of {things}{place}",
    "an image of {things}{place}",
)
_BARE_TEMPLATES = (
    *4 * ("{bare}",),
    "{bare}.",
    "just {bare}",
    "only {bare}",
    "nothing but {bare}",
    "and now, {bare}",
    "oh, {bare}",
    "there is nothing but {bare}",
    "we saw only {bare}",
    "photo of {bare}",
    "a picture of {bare}",
)


def plural(name: str) -> str:
    """The plural of a class name."""
    return _PLURALS.get(name, name + "s")


def _phrase(name: str, count: int) -> str:
    if count > 1:
        return f"{_NUMBERS[count]} {plural(name)}"
    if name in _NO_SINGULAR:
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _listed(phrases: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def caption(rng: np.random.Generator, counts: Mapping[str, int], ground: str | None) -> str:
    """A sentence that names what it is given.

    Args:
        rng: numpy Generator.
        counts: {name of a thing: how many, 1-4}; their order is shuffled. May be empty if there is a ground.
        ground: the ground's name, or None to leave it unsaid.
    Returns:
        str, such as "there are two coins and a zebra on the sand".
    """
    if not counts:
        assert ground  # see above
        return _pick(rng, _BARE_TEMPLATES).format(bare=_pick(rng, _BARE[ground]))
    names = [list(counts)[i] for i in rng.permutation(len(counts))]
    place = f" {_pick(rng, _PLACES[ground])}" if ground else ""
    if place and rng.random() < 0.1:
        place = "," + place
    many = counts[names[0]] > 1 or names[0] in _NO_SINGULAR
    be = "are" if many else "is"  # English agrees with the nearest of a list
    things = _listed([_phrase(name, counts[name]) for name in names])
    return _pick(rng, _TEMPLATES).format(things=things, place=place, be=be)
