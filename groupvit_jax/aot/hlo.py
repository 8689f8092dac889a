"""Reading XLA's text of a compiled program: computations of instructions. Only what counting its cost needs."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

HEADER = re.compile(r"(ENTRY )?%?([^\s(]+) (?:\(.*\) -> .* )?\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?(\S+) = (.*)")
ARRAY = re.compile(r"\b(?:pred|[a-z]+(\d+)\w*)\[([\d,<=]*)\]")
CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation|branch_computations)="
                    r"(\{[^}]*\}|%?[^\s,]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    shape: str  # with layout, as "bf16[64,384]{1,0:T(8,128)(2,1)}"; a tuple in parentheses
    operands: str  # between the parentheses, as "%a, %b"; a constant's value
    rest: str  # attributes, metadata and backend_config

    @functools.cached_property
    def inputs(self) -> list[str]:
        return re.findall(r"%([^\s,()]+)", self.operands)

    @functools.cached_property
    def called(self) -> dict[str, list[str]]:
        """Attribute -> names of computations: {"body": ["loop"], "condition": ["test"]}."""
        return {key: re.findall(r"[^\s{},%]+", names) for key, names in CALLED.findall(self.rest)}

    @property
    def cycles(self) -> int | None:
        """The compiler's estimate of one run of it; None where it gives none."""
        found = self.attribute(r'"estimated_cycles":"(\d+)"')
        return None if found is None else int(found)

    @property
    def channel(self) -> str | None:
        return self.attribute(r"\bchannel_id=(\d+)")

    @property
    def target(self) -> str:
        return self.attribute(r'custom_call_target="([^"]*)"') or ""

    @property
    def op_name(self) -> str:
        """Where in the JAX program it comes from, "jit(step)/jvp(TwoTowers)/..."; "" where the compiler made it."""
        return self.attribute(r'op_name="((?:[^"\\]|\\.)*)"') or ""

    def attribute(self, pattern: str) -> str | None:
        """The pattern's group, where it is found in `rest`."""
        found = re.search(pattern, self.rest)
        return found and found[1]


@dataclasses.dataclass(frozen=True)
class Module:
    entry: str
    computations: dict[str, dict[str, Instruction]]  # name -> its instructions by name, in the order they run

    def within(self, instruction: Instruction) -> Iterator[Instruction]:
        """All instructions of the computations it calls, and those these call."""
        for names in instruction.called.values():
            for name in names:
                for inner in self.computations[name].values():
                    yield inner
                    yield from self.within(inner)

    def trips(self, loop: Instruction) -> int | None:
        """How often a while loop runs its body: as the compiler found, or from a condition `i < constant` on a counter,
        which the compiler lets count from 0 by 1; None when it is neither, as where data end the loop."""
        found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest)
        if found:
            return int(found[1])
        condition = self.computations[loop.called["condition"][0]]
        for test in condition.values():
            if test.opcode == "fusion":  # the comparison is inside, its constant may come from outside
                (inside,) = test.called["calls"]
                given = [condition[name] for name in test.inputs]
                bounds = [bound_of(inner, self.computations[inside], given) for inner in self.within(test)]
            else:
                bounds = [bound_of(test, condition, [])]
            for bound in bounds:
                if bound is not None:
                    return bound
        return None


def bound_of(test: Instruction, around: dict[str, Instruction], given: list[Instruction]) -> int | None:
    """The constant n of a comparison `i < n` or `n > i` of a counter, which the loop carries, with an integer; None for
    other instructions. `given`: what its computation's parameters stand for."""
    order = {"LT": 1, "GT": -1}.get(test.attribute(r"direction=(\w+)") or "")
    if test.opcode != "compare" or order is None:
        return None
    sides = [around[name] for name in test.inputs]
    counter, bound = [given[int(side.operands)] if side.opcode == "parameter" and given else side
                      for side in sides][::order]
    carried = counter.opcode in ("get-tuple-element", "parameter")
    return int(bound.operands) if carried and bound.opcode == "constant" and bound.shape[0] in "su" else None


def parse(text: str) -> Module:
    """Reads what `jax.stages.Compiled.as_text()` gives."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry = ""
    current: dict[str, Instruction] | None = None
    for line in text.splitlines():
        if line[:1].isspace():
            if current is not None and (found := INSTRUCTION.match(line)):
                current[found[1]] = read(found[1], found[2])
        elif found := HEADER.match(line):
            current = computations.setdefault(found[2], {})
            entry = found[2] if found[1] else entry
    return Module(entry, computations)


def read(name: str, text: str) -> Instruction:
    """One instruction, "shape opcode(operands), attributes"."""
    end = closing(text, 0) if text.startswith("(") else text.index(" ")
    shape, text = text[:end], text[end:].lstrip()
    opcode, start = text[: text.index("(")], text.index("(")
    end = closing(text, start)
    return Instruction(name, opcode, shape, text[start + 1 : end - 1], text[end:])


def closing(text: str, start: int) -> int:
    """The place after the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, start):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.end()
    raise ValueError(f"no closing parenthesis in {text[:80]!r}")


def elements(shape: str) -> list[str]:
    """The shapes in a tuple; of an array itself."""
    if not shape.startswith("("):
        return [shape]
    parts, depth, start = [], 0, 1
    for place, letter in enumerate(shape):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 1 or depth == 0:
            parts.append(re.sub(r"/\*.*?\*/", "", shape[start:place]).strip())
            start = place + 1
    return parts


def size(shape: str) -> int:
    """Bytes of an array, or of all in a tuple; without what tiles add."""
    bits = (int(bits or 8) * math.prod(int(n.strip("<=")) for n in dims.split(",") if n)
            for bits, dims in ARRAY.findall(shape))
    return sum(-(-n // 8) for n in bits)
