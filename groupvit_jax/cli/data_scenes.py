"""Draws captioned scenes, the data of the quickstart.

    groupvit data scenes --output=runs/scenes
    groupvit data scenes --output=runs/scenes-test --train=0 --val=500 --seed=1

Training tars with captions, and a validation set with masks. Nothing is
downloaded. Run again, it draws what is missing.
"""

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("output", None, "folder to write to")
    flags.DEFINE_integer("train", 16000, "training scenes, in tars of 1000")
    flags.DEFINE_integer("val", 500, "validation scenes, with masks, in VOC's folder layout")
    flags.DEFINE_integer("seed", 0, "of the stream of scenes; training and validation never share one")
    flags.DEFINE_bool("shuffle", False, "give each training scene another one's caption: a control experiment")
    flags.DEFINE_integer("size", 96, "side of the canvas in pixels")


def main(rest: list[str]) -> None:
    if rest or not FLAGS.output:
        raise InputError("usage: groupvit data scenes --output=DIR [--train=N --val=M --seed=S --size=PIXELS]")
    from groupvit_jax.drawn import scenes

    scenes.write(FLAGS.output, FLAGS.train, FLAGS.val, FLAGS.seed, FLAGS.size, FLAGS.shuffle)
