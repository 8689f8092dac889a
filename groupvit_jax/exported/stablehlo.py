"""The model as StableHLO, by `jax.export`: programs that run with JAX alone, on CPUs, GPUs and TPUs.

A folder of them holds

    image_encoder.bin, text_encoder.bin, segmenter.bin   the programs, serialized
    weights.npz                                          what all three take as their first argument
    manifest.json                                        what each takes and gives, and what goes with the model
    load.py                                              a loader of a few lines

The weights are arguments and not constants: the programs share them, and compilers would try to fold 200 MB.
JAX promises that a program it has exported can be loaded by versions up to six months newer.
"""

import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from groupvit_jax.exported import programs, stablehlo_load
from groupvit_jax.exported.proof_programs import compare
from groupvit_jax.inference import Model
from groupvit_jax.interop import huggingface
from groupvit_jax.interop.proof import Difference

PLATFORMS = ("cpu", "cuda", "tpu")
WEIGHTS = "weights.npz"


def export(model: Model, folder: pathlib.Path) -> None:
    """Writes the files named above into `folder`, which exists."""
    model = programs.in_float32(model)
    made = programs.make(model)
    weights: dict[str, Any] = huggingface.flat(model.variables)
    exported = {name: lower(program, weights) for name, program in made.items()}
    for name, program in exported.items():
        (folder / f"{name}.bin").write_bytes(program.serialize())
    np.savez(folder / WEIGHTS, **weights)
    (version,) = {program.calling_convention_version for program in exported.values()}
    manifest = programs.manifest(model, made, ".bin") | {
        "weights": WEIGHTS, "platforms": PLATFORMS, "jax": jax.__version__, "calling_convention_version": version}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(stablehlo_load.__file__, folder / "load.py")


def lower(program: programs.Program, weights: dict[str, np.ndarray]) -> jax_export.Exported:
    """One program for all platforms, its symbolic sizes left open."""
    scope = jax_export.SymbolicScope()
    takes = [jax_export.symbolic_shape(", ".join(map(str, value.shape)), scope=scope) for value in program.takes]
    inputs = [jax.ShapeDtypeStruct(shape, value.dtype) for shape, value in zip(takes, program.takes)]
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}
    with programs.exact():
        return jax_export.export(jax.jit(program.call), platforms=PLATFORMS)(shapes, *inputs)


def differences(model: Model, folder: pathlib.Path) -> list[Difference]:
    """The programs in `folder`, on this process's device, against the model computing in float32."""
    with programs.exact():
        return compare(programs.in_float32(model), stablehlo_load.load(folder))
