"""Compiles the training step for TPUs that are not here.

    groupvit compile --config=configs/base.py --topology=v5e:8x8
    groupvit compile --config=configs/base.py --topology=v4:2x2x4 \\
        --output=step.json

Says whether it fits, what it moves and what the compiler thinks it costs.
With --output also writes the numbers as JSON and, beside them, the exported
step: F.stablehlo, which `jax.export.deserialize` reads. Takes minutes.
"""

import json
import pathlib

from absl import flags
from ml_collections import config_flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "configuration file; override a field by --config.a.b=value",
                                    lock_config=True)
    flags.DEFINE_string("topology", None, "TPU generation and chips along each side of the slice, as v5e:8x8 or "
                        "v4:2x2x4")
    flags.DEFINE_string("output", "", "JSON file to write; the exported step goes beside it, as .stablehlo")


def main(rest: list[str]) -> None:
    if rest or FLAGS.config is None or FLAGS.topology is None:
        raise InputError("usage: groupvit compile --config=FILE --topology=v5e:8x8 [--output=F.json]")
    if FLAGS.output and (not FLAGS.output.endswith(".json") or pathlib.Path(FLAGS.output).is_dir()):
        raise InputError(f"--output={FLAGS.output}: name a file that ends in .json")
    import jax

    jax.config.update("jax_platforms", "cpu")  # a TPU or GPU that is there is left to others
    from groupvit_jax import files, parallel, writer
    from groupvit_jax.aot import export, report, topology
    from groupvit_jax.training import program as programs

    target = topology.find(FLAGS.topology)
    # Without data the length of the run is unknown: a constant of the schedule, which costs the same whatever it is.
    program = programs.build(FLAGS.config, parallel.create_mesh(FLAGS.config.mesh, target.devices), warmup=1, steps=2)
    if FLAGS.output:
        files.write(pathlib.Path(FLAGS.output).with_suffix(".stablehlo"), export.exported(program))
    with writer.waiting(f"compiling for {target.name}, which takes minutes"):
        result = report.compile(program, target)
    print(report.text(result, target.chip))
    if FLAGS.output:
        files.write(FLAGS.output, (json.dumps(result, indent=2) + "\n").encode())
        print(f"wrote {FLAGS.output}")
