"""Shows what a run would train on, before it does.

    groupvit data inspect --config=configs/scenes.py
    groupvit data inspect --config=configs/scenes.py --samples=200 --output=out

Reads the first samples as training would: what is left out, how large the
pictures are, how long captions are, and what to set for it.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    config_flags.DEFINE_config_file("config", None, "configuration file; override a field by --config.a.b=value",
                                    lock_config=True)
    flags.DEFINE_integer("samples", 1000, "how many of the first samples of the run to look at")
    flags.DEFINE_string("output", None, "folder for histograms.png and samples.png, a sheet of augmented pictures with "
                        "their prompts; none: only the text")


def main(rest: list[str]) -> None:
    if rest or FLAGS.config is None or FLAGS.samples < 1:
        raise InputError("usage: groupvit data inspect --config=FILE [--samples=1000 --output=DIR]")
    from groupvit_jax import files
    from groupvit_jax.data import inspection

    found = inspection.inspect(FLAGS.config, FLAGS.samples)
    print(inspection.report(found))
    for name, picture in inspection.pictures(found).items() if FLAGS.output else ():
        path = pathlib.Path(FLAGS.output) / name
        files.write(path, inspection.png(picture))
        print(f"wrote {path}")
