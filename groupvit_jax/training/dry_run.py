"""What a training would be, before it is one: `groupvit train --dry_run`. No array is made, nothing is written.

Everything is said of one chip (a JAX device) of the mesh at hand, line by line, in at most 120 columns.
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from groupvit_jax import chips, parallel
from groupvit_jax.data import sources
from groupvit_jax.errors import InputError
from groupvit_jax.training import flops, initial
from groupvit_jax.training import plan as plans
from groupvit_jax.training import program as programs
from groupvit_jax.training.state import State
from groupvit_jax.writer import clock

GIB = 2**30
SHARES = (0.2, 0.4)  # of a chip's peak, for which times are given when no throughput is


def lines(config: ConfigDict, images_per_second: float = 0.0) -> Iterator[str]:
    """The report, the long list of arrays first and the compiler's word last: it may take minutes.

    Raises InputError for a configuration that cannot train; missing data is only said.
    """
    mesh = parallel.create_mesh(config.mesh)
    programs.check(config, mesh)
    pairs, found = count_pairs(config)
    lengths = plans.plan(config, pairs) if pairs or config.train.steps else None
    program = programs.build(config, mesh, *((lengths.warmup, lengths.steps) if lengths else (0, 1)))
    work = {part: n / config.data.batch for part, n in flops.of_parts(program.model, program.batch).items()}
    yield from of_arrays(program.state, program.batch)
    yield from of_model(program.state, work, 1 + config.data.prompts)
    yield from of_memory(program.state, program.batch, mesh)
    yield from ["", "data", *(f"  {line}" for line in found)]
    yield from of_time(config, lengths, 3 * sum(work.values()), mesh, images_per_second)
    yield from of_compiler(program)


def count_pairs(config: ConfigDict) -> tuple[int, list[str]]:
    """How many pairs there are to train on (0: not known), and what to say about them."""
    try:
        opened = sources.open_sources(config.data, make_indexes=False)
    except InputError as error:
        return 0, [f"not counted: {error}"]
    return sum(map(len, opened)), sources.describe(config.data, opened)


def of_arrays(state: State, batch: Any) -> Iterator[str]:
    """Every array: name, shape, dtype, how it is split over the mesh, bytes a chip. A moment of the optimizer that lies
    as its parameter has no line of its own."""
    row = "{:<62} {:<18} {:<9} {:<16} {:>11}".format
    yield row("array", "shape", "dtype", "split over", "bytes/chip")
    leaves = named(state) | named(batch, "batch")
    like = {name: x.sharding for name, x in named(state.params).items()}
    alike = 0
    for name, x in leaves.items():
        same = name.startswith("opt_state") and any(
            name.endswith("/" + parameter) and x.sharding == sharding for parameter, sharding in like.items())
        alike += same
        if not same:
            yield row(name, "x".join(map(str, x.shape)) or "-", str(x.dtype), split(x), f"{bytes_of(x):,}")
    yield f"and {alike} moments of the optimizer, each like its parameter"


def of_model(state: State, work: dict[str, float], texts: int) -> Iterator[str]:
    """Parameters and operations of each part; operations a sample are of an image and its texts."""
    row = "{:<28} {:>14} {:>16} {:>26}".format
    yield ""
    yield row("part", "parameters", "GFLOP forward", "GFLOP forward + backward")
    sizes = dict.fromkeys((*work, "scales"), 0)
    for name, x in named(state.params, "params").items():
        part = initial.part_of(name)
        sizes[part] += x.size
    for part, size in [*sizes.items(), ("in all", sum(sizes.values()))]:
        forward = (sum(work.values()) if part == "in all" else work.get(part, 0)) / 1e9
        yield row(part, f"{size:,}", f"{forward:,.3g}", f"{3 * forward:,.3g}")
    yield f"  of matrix products, for a sample: an image and its {texts} text(s)"


def of_memory(state: State, batch: Any, mesh: jax.sharding.Mesh) -> Iterator[str]:
    parameters, inputs = total(state.params), total(batch)
    rows = {"parameters": parameters, "batch statistics": total(state.batch_stats), "optimizer": total(state.opt_state),
            "gradients": parameters, "batch, and the next one": 2 * inputs}
    kind = mesh.devices.flat[0].device_kind
    yield ""
    yield f"memory a chip, of {mesh.size} x {kind} as " + ", ".join(f"{axis} {n}" for axis, n in mesh.shape.items())
    rows["in all, without activations"] = sum(rows.values())
    if chip := chips.find(kind):
        rows["the chip has"] = chip.hbm_bytes
    yield from (f"  {name:<28} {amount(size):>12}" for name, size in rows.items())


def of_time(config: ConfigDict, lengths: plans.Plan | None, work: float, mesh: jax.sharding.Mesh,
            images_per_second: float) -> Iterator[str]:
    """Steps, images, and the time they take: at the given throughput, or at shares of the peak of this chip, or of
    known chips where this is none. work: operations a sample."""
    yield ""
    images = lengths.steps * config.data.batch if lengths else 0
    if lengths:
        yield f"length: {lengths.steps:,} steps of {config.data.batch:,} = {images:,} images"
    else:
        yield f"length: {config.train.epochs} epochs of unknown length; config.train.steps=N would say"
    if images_per_second:
        yield f"  at {images_per_second:,.10g} images/s: {duration(images / images_per_second)}"
        return
    here = chips.find(mesh.devices.flat[0].device_kind)
    row, n = ("  {:<16}" + "{:>18}{:>16}" * len(SHARES)).format, mesh.size if here else 1
    yield row("chips", *(text for share in SHARES for text in (f"images/s at {share:.0%}", "time")))
    for chip in [here] if here else chips.CHIPS:
        rates = [share * chip.peak_flops * n / work for share in SHARES]
        yield row(f"{n} x {chip.name}", *(text for rate in rates for text in (f"{rate:,.0f}", duration(images / rate))))
    yield "  at such shares of the published peak; --images_per_second=N gives the time at a measured speed"


def of_compiler(program: programs.Program) -> Iterator[str]:
    """What the step takes in the program that this backend's compiler makes of it."""
    kind = program.mesh.devices.flat[0].device_kind
    yield ""
    yield f"compiling the step for {program.mesh.size} x {kind}: minutes for a large model; Ctrl-C does no harm"
    began = time.monotonic()
    try:
        memory = program.trace().lower().compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        yield f"  does not fit: {str(error).splitlines()[0][:100]}"
        return
    yield f"  compiled in {clock(time.monotonic() - began)}; memory a chip:"
    sizes = {"state and batch": memory.argument_size_in_bytes, "temporaries": memory.temp_size_in_bytes}
    if memory.peak_memory_in_bytes > memory.temp_size_in_bytes:  # CPUs' leaves temporaries out
        sizes["at most at once"] = memory.peak_memory_in_bytes
    yield from (f"  {name:<28} {amount(size):>12}" for name, size in sizes.items())
    yield f"  as {kind} compiles it; for a TPU that is not here: groupvit compile"


def named(tree: Any, prefix: str = "") -> dict[str, jax.ShapeDtypeStruct]:
    paths = ((jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in jax.tree.leaves_with_path(tree))
    return {f"{prefix}/{name}" if prefix else name: x for name, x in paths}


def split(x: jax.ShapeDtypeStruct) -> str:
    """The mesh axes of each dimension: "data+fsdp -"; "whole" for an array that every chip has all of."""
    axes = ["+".join(axis) if isinstance(axis, tuple) else axis or "-" for axis in x.sharding.spec]
    return " ".join(axes) if set(axes) - {"-"} else "whole"


def bytes_of(x: jax.ShapeDtypeStruct) -> int:
    """On one chip."""
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def total(tree: Any) -> int:
    return sum(map(bytes_of, jax.tree.leaves(tree)))


def amount(size: float) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.2f} MiB"


def duration(seconds: float) -> str:
    """"5:03:20" hours, or "5.8 days"; "-" for none."""
    return "-" if not seconds else clock(seconds) if seconds < 2 * 86400 else f"{seconds / 86400:,.1f} days"
