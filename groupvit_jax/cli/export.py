"""Writes a model for PyTorch, JAX or ONNX, checked.

    groupvit export --checkpoint=runs/quickstart --format=hf --output=out/hf
    groupvit export --checkpoint=runs/quickstart --format=nvlabs \\
        --output=out/weights.pth
    groupvit export --checkpoint=runs/quickstart --format=onnx \\
        --output=out/onnx

Runs what it wrote beside the model, prints the differences, and keeps
nothing if they are too large.
"""

import pathlib
import re
from typing import Any

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "a training run's --workdir, or whatever else `groupvit eval` takes")
    flags.DEFINE_enum("format", None, ["hf", "nvlabs", "stablehlo", "onnx"],
                      "hf: a folder for transformers, with a processor, a card and segment.py; nvlabs: a .pth for the "
                      "original code; stablehlo: programs that need only JAX; onnx: programs for ONNX runtimes")
    flags.DEFINE_string("output", None, "folder to make; for nvlabs a file, as weights.pth")
    flags.DEFINE_string("license", "", "of the weights, for the card of hf, as apache-2.0")
    flags.DEFINE_enum("verify", "on", ["on", "off"], "compare outputs with this code's, if PyTorch is installed")


def main(rest: list[str]) -> None:
    if rest or not (FLAGS.checkpoint and FLAGS.format and FLAGS.output):
        raise InputError("usage: groupvit export --checkpoint=DIR --format=hf|nvlabs|stablehlo|onnx --output=DIR")
    if not re.fullmatch(r"[\w.+-]*", FLAGS.license):
        raise InputError(f"--license={FLAGS.license}: give an identifier, as apache-2.0")
    from groupvit_jax import files
    from groupvit_jax.training import checkpoint

    if FLAGS.format == "nvlabs" and not FLAGS.output.endswith(".pth"):
        raise InputError(f"--output={FLAGS.output}: --format=nvlabs writes one file; name it, as weights.pth")
    with files.new(FLAGS.output, folder=FLAGS.format != "nvlabs") as path:
        found = checkpoint.load(FLAGS.checkpoint)
        print(f"{FLAGS.checkpoint}: step {found.step}; writing {FLAGS.format}", flush=True)
        (write_programs if FLAGS.format in ("stablehlo", "onnx") else write_weights)(found, path)
    print(f"wrote {FLAGS.output}")


def write_programs(found: Any, folder: pathlib.Path) -> None:
    from groupvit_jax.inference import Model
    from groupvit_jax.interop import proof

    module: Any
    if FLAGS.format == "stablehlo":
        from groupvit_jax.exported import stablehlo

        module = stablehlo
    else:
        from groupvit_jax.exported import onnx

        module = onnx
    model = Model(found.config, found.variables)
    module.export(model, folder)
    if FLAGS.verify == "off":
        print("not verified: --verify=off")
        return
    print("running the programs beside the model", flush=True)
    proof.check(module.differences(model, folder), "the export")


def write_weights(found: Any, path: pathlib.Path) -> None:
    from groupvit_jax.interop import proof, proof_port, writing

    if FLAGS.format == "hf":
        writing.write_folder(path, found.config, found.variables, found.step, found.metrics, FLAGS.license)
    else:
        writing.write_checkpoint(path, *found)
    if why := proof.skipped(FLAGS.verify):
        print(why)
        return
    print("running what PyTorch reads of it beside the model", flush=True)
    port = proof_port.port_in(path) if FLAGS.format == "hf" else proof_port.port_in_checkpoint(path, found.config.model)
    proof.check(proof_port.compare(found.config.model, found.variables, port), "the export")
