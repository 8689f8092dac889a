"""What a compilation says about the training step, as fields for JSON and as text."""

import importlib.metadata
import re
import time
from typing import Any

import jax

from groupvit_jax import chips
from groupvit_jax.aot import cost, hlo
from groupvit_jax.aot.products import float32_products
from groupvit_jax.aot.topology import Slice
from groupvit_jax.training import flops
from groupvit_jax.training.program import Program

CAVEATS = """\
These are numbers of the compiler's static cost model, and no TPU ran: they compare programs under one libtpu and
predict no time. It gives no cycles to collectives, asynchronous copies, custom calls and the fusions listed as without
cycles (their roofline: bytes at the memory's peak rate). Bytes of collectives are those of their results on one chip,
loops multiplied by their trips, each channel once; what of them overlaps with computing is not said."""
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def compile(program: Program, target: Slice) -> dict[str, Any]:
    """Compiles the step and reads the result. `fits` is False, with the compiler's words in `why`, when it finds no
    room on a chip; what is only known of a compiled program is then None."""
    traced = program.trace()
    found = float32_products(traced.jaxpr.jaxpr)
    report = {
        "topology": target.name, "chips": target.chips, "devices": len(target.devices),
        "mesh": dict(program.mesh.shape), "fits": True, "why": "",
        "peak_bytes": None, "hbm_bytes": target.chip.hbm_bytes, "argument_bytes": None, "temp_bytes": None,
        "estimated_cycles": None, "uncosted_fusions": None, "uncosted": None, "custom_calls": None,
        "collective_bytes": None,
        "model_flops_per_chip": 3 * flops.forward_flops(program.model, program.batch) / target.chips,
        # Outside the loss and the grouping blocks, which are float32 by design.
        "f32_matmuls": sum(n for part in ("projectors", "towers") for n in found[part].values()),
        "f32_matmuls_by_place": found, "jax": jax.__version__, "libtpu": version("libtpu"),
    }  # fmt: skip
    lowered, began = traced.lower(), time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        why = str(error).splitlines()[0]
        asked, room = sizes(why)
        return report | {"fits": False, "why": why, "peak_bytes": asked, "hbm_bytes": room or report["hbm_bytes"],
                         "compile_seconds": time.monotonic() - began}
    memory = compiled.memory_analysis()
    return report | {"peak_bytes": memory.peak_memory_in_bytes, "argument_bytes": memory.argument_size_in_bytes,
                     "temp_bytes": memory.temp_size_in_bytes, "compile_seconds": time.monotonic() - began,
                     **costs(cost.measure(hlo.parse(compiled.as_text())), target.chip)}


def sizes(why: str) -> tuple[int | None, int | None]:
    """Of a message that memory is short: the bytes that are needed and that there are."""
    found = [int(float(n) * UNITS[unit]) for n, unit in re.findall(r"\b(\d+(?:\.\d+)?)([KMGT])\b", why)]
    needed, there, *_ = *found, None, None
    return needed, there


def costs(found: cost.Cost, chip: chips.Chip) -> dict[str, Any]:
    """The fields of the report that the cost model gives."""

    def roofline(bytes: float, flops: float = 0.0) -> int:
        return int(max(bytes * chip.clock / chip.hbm_bytes_per_second, flops / chip.flops_per_cycle))

    uncosted = [{"what": run.instruction.opcode, "op_name": run.instruction.op_name, "times": run.times,
                 "bytes": run.times * run.bytes, "roofline_cycles": roofline(run.times * run.bytes)}
                for run in found.uncosted_fusions + found.uncosted_others]
    calls = {target: row | {"roofline_cycles": roofline(row["bytes"], row["claimed_flops"])}
             for target, row in cost.by_target(found.custom_calls).items()}
    return {"estimated_cycles": found.cycles,
            "uncosted_fusions": sum(run.times for run in found.uncosted_fusions), "uncosted": uncosted,
            "custom_calls": calls, "collective_bytes": found.collective_bytes, "loops_of_unknown_length": found.endless}


def text(report: dict[str, Any], chip: chips.Chip) -> str:
    """The report for people."""
    lines = [f"{report['topology']}: {report['chips']} chips as {report['mesh']}; jax {report['jax']}, libtpu "
             f"{report['libtpu']}, compiled in {report['compile_seconds']:.0f} s"]
    if not report["fits"]:
        return "\n".join([*lines, f"DOES NOT FIT: {report['why']}",
                          "What helps: config.train.microbatches, more chips, config.mesh.fsdp above 1."])
    uncosted, calls = report["uncosted"], report["custom_calls"]
    least = report["model_flops_per_chip"] * report["chips"] / report["devices"] / chip.flops_per_cycle
    moved, products = report["collective_bytes"], report["f32_matmuls_by_place"]
    lines += [
        f"memory a chip      {report['peak_bytes'] / 2**30:.2f} GiB at the peak, of {report['hbm_bytes'] / 2**30:.0f}; "
        f"arguments {report['argument_bytes'] / 2**30:.2f}, temporaries {report['temp_bytes'] / 2**30:.2f}",
        f"estimated cycles   {report['estimated_cycles']:.4g}",
        f"model FLOPs a chip {report['model_flops_per_chip']:.4g}, which take {least:.4g} cycles at the peak",
        f"without cycles     {report['uncosted_fusions']} fusions, "
        f"{len(uncosted) - sum(row['what'] == 'fusion' for row in uncosted)} others; roofline "
        f"{sum(row['roofline_cycles'] for row in uncosted):.4g} cycles",
        *(f"    {row['times']} x {row['bytes'] / 1e6:.1f} MB {row['what']} {row['op_name']}" for row in
          sorted(uncosted, key=lambda row: -row["bytes"])[:10]),
        "custom calls       " + ("none" if not calls else "; ".join(
            f"{row['count']} {name}, roofline {row['roofline_cycles']:.4g} cycles" for name, row in calls.items())),
        f"collectives        {sum(moved.values()) / 1e6:.1f} MB"
        + "".join(f", {kind} {n / 1e6:.1f}" for kind, n in sorted(moved.items())),
        "float32 products   " + ", ".join(f"{sum(n.values())} in the {part}" for part, n in products.items()),
        *(f"    {n} x {place}" for place, n in products["towers"].items()),  # where there should be none
    ]
    if report["loops_of_unknown_length"]:
        lines.append(f"loops              {report['loops_of_unknown_length']} of unknown length, counted as one trip")
    return "\n".join([*lines, "", CAVEATS])


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of TPU_LIBRARY_PATH"
