"""Composes captioned scenes from Fashion-MNIST.

    groupvit data fashion --output=runs/fashion
    groupvit data fashion --output=runs/fashion --source=fashion-mnist

Training tars, a validation set from the test photographs, and every test
photograph alone. The files come by `apt install dataset-fashion-mnist`.
"""

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("source", "/usr/share/datasets/fashion-mnist", "folder of Fashion-MNIST's four IDX files, .gz "
                        "or not; this is where `apt install dataset-fashion-mnist` puts them")
    flags.DEFINE_string("output", None, "folder to write to")
    flags.DEFINE_integer("train", 24000, "training scenes, in tars of 1000")
    flags.DEFINE_integer("val", 500, "validation scenes, with masks, in VOC's folder layout")
    flags.DEFINE_integer("seed", 0, "of the stream of scenes; training and validation never share a photograph")
    flags.DEFINE_bool("shuffle", False, "give each training scene another one's caption: a control experiment")
    flags.DEFINE_integer("size", 96, "side of the canvas in pixels")


def main(rest: list[str]) -> None:
    if rest or not FLAGS.output:
        raise InputError("usage: groupvit data fashion --output=DIR [--source=DIR --train=N --val=M --seed=S "
                         "--size=PIXELS]")
    from groupvit_jax.drawn import fashion

    fashion.write(FLAGS.output, FLAGS.source, FLAGS.train, FLAGS.val, FLAGS.seed, FLAGS.size, FLAGS.shuffle)
