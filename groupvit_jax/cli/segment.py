"""groupvit segment --checkpoint=P --images=GLOB --classes="cat,sofa" --output=DIR: one's own images and words."""

import glob
import pathlib

from absl import flags
from PIL import Image

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS
VIEWS = ("overlay", "labels", "groups")


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "a training run's --workdir")
    flags.DEFINE_string("images", None, "an image, or a quoted glob of images")
    flags.DEFINE_list("classes", None, "what to look for, comma separated")
    flags.DEFINE_string("background", "", "leave pixels that look like none of the classes: true (the protocol's "
                        "threshold) or a threshold between 0 and 1", short_name="b")
    flags.DEFINE_enum("protocol", "groupvit", ["groupvit", "tcl"], "prompt templates")
    flags.DEFINE_list("views", list(VIEWS), "what to write: overlay (labels over the image), labels (a palette PNG "
                      "of class numbers), groups (a picture for each stage)")
    flags.DEFINE_string("output", None, "folder to write PNGs to")


def main(rest: list[str]) -> None:
    if rest or not (FLAGS.checkpoint and FLAGS.images and FLAGS.classes and FLAGS.output):
        raise InputError('usage: groupvit segment --checkpoint=WORKDIR --images="*.jpg" --classes="cat,sofa" '
                         "--output=DIR")
    if unknown := set(FLAGS.views) - set(VIEWS):
        raise InputError(f"--views has {sorted(unknown)[0]!r}: choose among {','.join(VIEWS)}")
    paths = sorted(glob.glob(FLAGS.images, recursive=True))
    if not paths:
        raise InputError(f"--images={FLAGS.images} matches no file: quote the glob and check the folder")
    from groupvit_jax.inference import load
    from groupvit_jax.writer import Progress

    model, background, output = load(FLAGS.checkpoint), parse_background(FLAGS.background), pathlib.Path(FLAGS.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to --output={output} ({error.strerror}): choose another") from None
    with Progress("segment", len(paths), "images") as progress:
        for path in paths:
            image = read(path)
            result = model.segment(image, FLAGS.classes, background, FLAGS.protocol)
            write(image, result, output / pathlib.Path(path).stem)
            progress.advance(1)
    print(f"{len(paths)} image(s) segmented into {output}")


def parse_background(text: str) -> bool | float:
    if text.lower() in ("", "false", "no"):
        return False
    if text.lower() in ("true", "yes"):
        return True
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--background={text} is neither true nor a threshold between 0 and 1") from None


def read(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # PIL's readers raise nearly anything for damaged files
        raise InputError(f"cannot read {path} as an image ({error}): replace it or narrow --images") from None


def write(image: Image.Image, result, stem: pathlib.Path) -> None:
    """STEM.overlay.png, STEM.labels.png, STEM.groups0.png ... for the views asked for."""
    import numpy as np

    from groupvit_jax import viz

    pixels, palette = np.asarray(image), viz.colours(len(result.names))
    if "overlay" in FLAGS.views:
        viz.label_picture(pixels, result.labels, list(result.names), palette).save(f"{stem}.overlay.png")
    if "labels" in FLAGS.views:
        viz.palette_png(result.labels, palette).save(f"{stem}.labels.png")
    if "groups" in FLAGS.views:
        for s, groups in enumerate(result.stages):
            viz.group_picture(pixels, groups, f"stage {s + 1}").save(f"{stem}.groups{s + 1}.png")
