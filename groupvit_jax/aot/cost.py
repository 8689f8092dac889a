"""What the TPU compiler's static cost model says that a scheduled program costs.

Its numbers come from no measurement, and differ between versions of libtpu: they compare two programs under one
version. It gives no cycles to communication, asynchronous copies, custom calls and some fusions (gathers, scatters);
these are counted beside the cycles, so that a program which hides its work there does not look cheap.
"""

import collections
import re
from collections.abc import Iterator
from typing import NamedTuple

from groupvit_jax.aot.hlo import Instruction, Module, elements, size

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
               "collective-broadcast")
ASYNC = tuple(kind + "-start" for kind in COLLECTIVES)
CALLS = ("call", "call-start", "async-start")  # the latter beside other work, as what SparseCores take over
# Done by the surroundings of an instruction, or in the time of others: a missing number of cycles says nothing.
FREE = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "copy-start", "copy-done", "slice-start",
        "slice-done", "while", "conditional", *CALLS, "partition-id", "replica-id", "after-all", "opt-barrier")
# Custom calls that the compiler makes itself and that only say something of an array.
MARKS = ("AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast", "GatherScatterIndicesBitpacked",
         "PrepareAsyncCallStart", "PrepareAsyncCallDone", "Sharding")
SMALL = 4096  # bytes: a number, or a vector of them, is no work


class Run(NamedTuple):
    """An instruction and how often a run of the program runs it."""

    instruction: Instruction
    times: int
    bytes: int  # of its operands and outputs, each time

    @property
    def cycles(self) -> int:
        return self.times * (self.instruction.cycles or 0)


class Moved(NamedTuple):
    """A collective: its output's bytes on one device, all of its runs together."""

    kind: str
    bytes: int
    times: int
    op_name: str


class Cost(NamedTuple):
    runs: list[Run]  # what runs, in order; of a conditional the costliest branch
    collectives: list[Moved]  # each channel once
    marks: dict[str, int]  # custom calls that do nothing, by target
    endless: int  # loops with an unknown number of trips: counted as one trip

    @property
    def cycles(self) -> int:
        return sum(run.cycles for run in self.runs)

    @property
    def uncosted_fusions(self) -> list[Run]:
        return [run for run in self.runs if run.instruction.opcode == "fusion" and run.instruction.cycles is None]

    @property
    def uncosted_others(self) -> list[Run]:
        """Neither fusions nor custom calls nor collectives, nor small."""
        known = FREE + COLLECTIVES + ASYNC + ("fusion", "custom-call")
        return [run for run in self.runs if run.instruction.cycles is None and run.bytes > SMALL
                and run.instruction.opcode not in known and not run.instruction.opcode.endswith("-done")]

    @property
    def custom_calls(self) -> list[Run]:
        return [run for run in self.runs if run.instruction.opcode == "custom-call"
                and run.instruction.target not in MARKS]

    @property
    def collective_bytes(self) -> dict[str, int]:
        """By kind."""
        total: collections.Counter[str] = collections.Counter()
        for moved in self.collectives:
            total[moved.kind] += moved.bytes
        return dict(total)


def measure(module: Module) -> Cost:
    """Walks the program from its entry: a loop counts as often as it runs, a fusion with its own number only."""
    runs, endless = walk(module, module.entry, 1)
    marks: collections.Counter[str] = collections.Counter()
    for run in runs:
        for found in (run.instruction, *inside(module, run)):
            if found.opcode == "custom-call" and found.target in MARKS:
                marks[found.target] += run.times
    return Cost(runs, communication(module, runs), dict(marks), endless)


def walk(module: Module, name: str, times: int) -> tuple[list[Run], int]:
    """What a computation runs, and how many loops of unknown length are in it."""
    around, runs, endless = module.computations[name], [], 0
    for instruction in around.values():
        moved = size(instruction.shape) + sum(size(around[i].shape) for i in instruction.inputs if i in around)
        runs.append(Run(instruction, times, moved))
        inner: list[tuple[list[Run], int]] = [([], 0)]
        if instruction.opcode == "while":
            trips = module.trips(instruction)
            endless += trips is None
            inner = [walk(module, instruction.called["body"][0], times * (1 if trips is None else trips))]
        elif instruction.opcode == "conditional":
            inner = [walk(module, branch, times) for names in instruction.called.values() for branch in names]
        elif instruction.opcode in CALLS and instruction.cycles is None:
            inner = [walk(module, name, times) for names in instruction.called.values() for name in names]
        costliest = max(inner, key=lambda found: sum(run.cycles for run in found[0]))
        runs.extend(costliest[0])
        endless += costliest[1]
    return runs, endless


def communication(module: Module, runs: list[Run]) -> list[Moved]:
    """The collectives, also those inside fusions. An asynchronous one is repeated, with its channel, in each fusion
    that it overlaps with: a channel counts once, with the most that any of them moves."""
    channels: dict[str, Moved] = {}
    for run in runs:
        for found in (run.instruction, *inside(module, run)):
            kind = found.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                key = found.channel or f"{run.instruction.name} {found.name}"
                moved = Moved(kind, run.times * output(found), run.times, found.op_name or run.instruction.op_name)
                channels[key] = max(channels.get(key, moved), moved, key=lambda moved: moved.bytes)
    return list(channels.values())


def inside(module: Module, run: Run) -> Iterator[Instruction]:
    """What a fusion, or whatever else counts as one piece, is made of."""
    whole = run.instruction.opcode == "fusion" or run.instruction.cycles is not None
    return module.within(run.instruction) if whole else iter(())


def output(collective: Instruction) -> int:
    """Bytes of what it gives: the asynchronous form of some has input, output and marks of the transfer in a tuple."""
    if collective.opcode in ("all-gather-start", "collective-permute-start"):
        return size(elements(collective.shape)[1])
    return size(collective.shape)


def by_target(calls: list[Run]) -> dict[str, dict[str, float]]:
    """Custom calls by target: how many, their bytes and the operations they claim (Pallas: `pl.CostEstimate`)."""
    table: dict[str, dict[str, float]] = {}
    for run in calls:
        row = table.setdefault(run.instruction.target, {"count": 0, "bytes": 0, "claimed_flops": 0})
        claimed = re.search(r'"flops":\s*"?(\d+)', run.instruction.rest)
        for key, value in (("count", 1), ("bytes", run.bytes), ("claimed_flops", int(claimed[1]) if claimed else 0)):
            row[key] += run.times * value
    return table
