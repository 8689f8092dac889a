"""What a pickle holds, as data: names, objects that were never made, and containers that are safe to have.

Whoever wrote a pickle chose everything in it: keys that take for ever to compare, lists that hold themselves. Such
are refused here.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

_LONGEST_KEY, _DEEPEST = 4, 200  # parts of a tuple that is a key; containers in containers
_PLAIN = (str, bytes, bool, type(None))

_OBJECTS_OWN: Any = object.__hash__  # by identity


class Refused(Exception):
    """A pickle that is not taken; says what is wrong with it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or function; what it names is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:80]


@dataclasses.dataclass(eq=False, slots=True, repr=False)
class Inert:
    """What the pickle wanted to be called or made, as data. It may hold itself: walk it with care."""

    what: "Global | Inert"
    args: tuple
    kwargs: dict | None = None
    state: Any = None  # what it was to be filled with (`__setstate__`), often its attributes
    items: list = dataclasses.field(default_factory=list)  # of a kind of list
    entries: dict = dataclasses.field(default_factory=dict)  # of a kind of dict

    def __repr__(self) -> str:
        return f"Inert({self.what if type(self.what) is Global else '...'})"


def is_key(x: Any) -> bool:
    """Whether `x`, as a key or in a set, is hashed and compared in no time, whoever chose it.

    Thousands of numbers can be chosen that have one hash all, if they may be large, or two together in a tuple.
    """
    if type(x) is tuple:
        return len(x) <= _LONGEST_KEY and all(type(part) in _PLAIN or _fits(part, 32) for part in x)
    return type(x) in _PLAIN or type(x) in (float, Global) or _fits(x, 64) or type(x).__hash__ is _OBJECTS_OWN


def _fits(x: Any, bits: int) -> bool:
    return type(x) is int and -(1 << bits - 1) <= x < 1 << bits


def _check_keys(items: Iterable) -> None:
    for x in items:
        if not is_key(x):
            raise Refused(f"has a {type(x).__name__} as a key that is none")


def fill(entries: dict, items: list) -> dict:
    """Adds the keys and values that follow each other in `items`."""
    if len(items) % 2:
        raise Refused("has a key without a value")
    _check_keys(items[::2])
    entries.update(zip(items[::2], items[1::2]))
    return entries


def make_set(members: list, kind: type = set) -> set | frozenset:
    _check_keys(members)
    return kind(members)


def check_depth(value: Any) -> None:
    """Walks what is in containers, once however often they are shared. In one that holds itself the way has no end:
    it is too deep."""
    heights, path = {}, [[value, _children(value), 1]]  # of finished containers; to the present one
    while path:
        container, children, height = path[-1]
        child = next((x for x in children if type(x) in (list, tuple, dict)), None)
        if child is None:
            heights[id(container)] = height
            path.pop()
        elif id(child) not in heights:
            path.append([child, _children(child), 1])
            height = 0
        else:
            height = heights[id(child)]
        if len(path) + height > _DEEPEST:
            raise Refused("holds itself or is too deep")
        if path:
            path[-1][2] = max(path[-1][2], height + 1)


def _children(value: Any) -> Iterator:
    return iter(value.values() if type(value) is dict else value if type(value) in (list, tuple) else ())
