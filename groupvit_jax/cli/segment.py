"""Labels your own pictures with your own words.

    groupvit segment --checkpoint=runs/quickstart --images="photos/*.jpg" \\
        --classes="zebra,grass,night sky" --output=out
    groupvit segment --checkpoint=runs/quickstart --images=photo.jpg \\
        --classes="zebra; horse,grass" --background --output=out

Commas divide classes, semicolons several names for one. Writes for each
picture its segments with their names over it, the label map as a PNG, and
every class's area as JSON.
"""

import glob
import io
import json
import os
import pathlib

from absl import flags

from groupvit_jax.cli import arguments
from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


class BackgroundParser(flags.ArgumentParser):
    def parse(self, text: str | bool) -> bool | float | str:
        if str(text).lower() in ("true", "false"):
            return str(text).lower() == "true"
        try:
            threshold = float(text)
        except ValueError:
            return text
        if not 0 <= threshold <= 1:
            raise ValueError("give a threshold between 0 and 1, or none for the protocol's, or words")
        return threshold


def define_flags() -> None:
    from groupvit_jax import viz  # here, so that other verbs do not wait for OpenCV

    arguments.define_checkpoint()
    flags.DEFINE_string("images", None, "an image, or a quoted glob of images")
    flags.DEFINE_list("classes", None, "what to look for, comma separated; several names for one as 'cat; kitten'")
    flags.DEFINE(BackgroundParser(), "background", False, "leave pixels that look like none of the classes; alone "
                 "with the protocol's threshold, --background=T with T between 0 and 1, or --background='sky; wall' "
                 "with words for it", boolean=True)
    flags.DEFINE_enum("protocol", "groupvit", ["groupvit", "tcl"], "prompt templates and threshold")
    flags.DEFINE_list("views", ["input_pred_label", "labels", "areas"],
                      "what to write, of " + "; ".join(f"{view} ({what})" for view, what in viz.VIEWS.items()))
    flags.DEFINE_string("output", None, "folder to write NAME.VIEW.png and NAME.areas.json to")


def check_classes(classes: list[str], background: bool) -> None:
    """InputError for what can hardly have been meant, and for empty names."""
    from groupvit_jax import inference

    one = classes[0] if len(classes) == 1 else ""
    if one and pathlib.Path(one).is_file():
        raise InputError(f"--classes={one} is a file: give the words, as --classes=\"cat,sofa\"; of a file with one a "
                         f"line they are --classes=\"$(paste -sd, {one})\"")
    if " " in one and ";" not in one and not background:
        raise InputError(f"--classes={one!r} is one class, and every pixel would be it: divide several by commas, as "
                         f"{','.join(one.split())!r}, or add --background")
    inference.class_words(classes)


def main(rest: list[str]) -> None:
    if rest and FLAGS.images:  # what the shell made of a glob
        raise InputError(f"segment takes no argument {rest[0]!r}: quote the glob, as --images=\"photos/*.jpg\"")
    if rest or not (FLAGS.checkpoint and FLAGS.images and FLAGS.classes and FLAGS.output):
        raise InputError('usage: groupvit segment --checkpoint=DIR --images="*.jpg" --classes="cat,sofa" --output=DIR')
    from groupvit_jax import viz

    if unknown := set(FLAGS.views or [""]) - set(viz.VIEWS):
        raise InputError(f"--views has {sorted(unknown)[0]!r}: choose among {','.join(viz.VIEWS)}")
    if pathlib.Path(FLAGS.images).is_dir():
        raise InputError(f"--images={FLAGS.images} is a folder, which matches no file: say which of its pictures, in "
                         f"quotes, as --images=\"{FLAGS.images.rstrip('/')}/*.jpg\"")
    if pathlib.Path(FLAGS.output).is_file():
        raise InputError(f"--output={FLAGS.output} is a file: choose another place, a folder to write pictures to")
    paths = sorted(filter(os.path.isfile, glob.glob(FLAGS.images, recursive=True)))
    if not paths:
        raise InputError(f"--images={FLAGS.images} matches no file: quote the glob and check the folder")
    from groupvit_jax import files, inference
    from groupvit_jax.cli.own_images import output_names, read
    from groupvit_jax.writer import Progress

    check_classes(FLAGS.classes, bool(FLAGS.background))
    model = inference.load(FLAGS.checkpoint)
    with Progress("segment", len(paths), "images") as progress:
        for path, name in zip(paths, output_names(paths)):
            image = read(path)
            try:
                result = model.segment(image, FLAGS.classes, FLAGS.background, FLAGS.protocol)
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
            for view, picture in viz.pictures(image, result, FLAGS.views):
                encoded = io.BytesIO()
                picture.save(encoded, "PNG")
                files.write(pathlib.Path(FLAGS.output, f"{name}.{view}.png"), encoded.getvalue())
            if "areas" in FLAGS.views:
                rows = json.dumps(viz.areas(path, result), indent=1)
                files.write(pathlib.Path(FLAGS.output, f"{name}.areas.json"), rows.encode())
            progress.advance(1)
    print(f"{len(paths)} image(s) segmented into {FLAGS.output}")
