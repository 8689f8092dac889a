"""Of which types the matrix products of a program are, and where they come from."""

import collections
import re
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

FLOAT32 = ("float32", "float32")
PARTS = ("loss", "grouping", "projectors", "towers")


def float32_products(jaxpr: Any) -> dict[str, dict[str, int]]:
    """Products of two float32 arrays in a training step: how many there are in the program, by part and place in it."""
    found: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in PARTS}
    for types, where in products(jaxpr):
        if types == FLOAT32:
            found[part(where)][place(where)] += 1
    return {name: dict(places) for name, places in found.items()}


def products(jaxpr: Any, around: str = "") -> Iterator[tuple[tuple[str, str], str]]:
    """Of each product or convolution the types of its two inputs and its name stack, outermost name first."""
    for equation in jaxpr.eqns:
        where = f"{around}/{equation.source_info.name_stack}"
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            first, second = (str(jnp.dtype(x.aval.dtype)) for x in equation.invars[:2])
            yield (first, second), where
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner, where)


def part(where: str) -> str:
    """Modules put their names on the stack: what comes from none of them is the loss."""
    if "TwoTowers" not in where:
        return "loss"
    if re.search(r"/stage\d+_grouping\b", where):
        return "grouping"
    return "projectors" if re.search(r"/(image|text)_projector\b", where) else "towers"


def place(where: str) -> str:
    """A name stack without what tells the blocks apart: "transpose image/stage*_block*/attention/qkv"."""
    names = [name for name in where.split("/") if name]
    backward = "transpose " if any("transpose(" in name for name in names) else ""
    names = [name for name in names if "(" not in name and not name.startswith("TwoTowers")]
    return backward + (re.sub(r"(block|stage)\d+", r"\1*", "/".join(names)) or "outside the model")
