"""Scores a model on data sets it has not seen, in percent.

    groupvit eval --checkpoint=runs/quickstart
    groupvit eval --checkpoint=runs/gcc_yfcc --tasks=voc,context,imagenet \\
        --data_root=data --output=scores.json

Zero-shot: mIoU of segmentation, top-1 and top-5 of classification. Without
flags the data sets are those of the run's configuration.
"""

import pathlib
from typing import Any

from absl import flags

from groupvit_jax.cli import arguments, hosts
from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    arguments.define_checkpoint()
    flags.DEFINE_list("tasks", None, "data sets to score, comma separated: voc, voc20, context, context59, "
                      "coco_object, coco_stuff, cityscapes, ade20k, imagenet, scenes, fashion; default: those of the "
                      "run's configuration")
    flags.DEFINE_string("data_root", None, "folder the data sets lie in; default: that of the run's configuration")
    flags.DEFINE_enum("protocol", "groupvit", ["groupvit", "tcl"], "templates, class names and background threshold")
    flags.DEFINE_string("output", None, "JSON file to write the scores to; confusion matrices go beside it as .npy")
    flags.DEFINE_string("report", None, "folder that gets report.html: the scores as a page, each class, what is taken "
                        "for what, the best and the worst pictures")
    flags.DEFINE_bool("oracle", False, "score the groups too, each named by its own best class")
    flags.DEFINE_bool("skip_bad", False, "leave out and report pictures that cannot be used, instead of ending")
    flags.DEFINE_integer("batch", None, "windows that each device takes together; default: what suits it", 1)
    flags.DEFINE_bool("pamr", False, "not of the protocol: refine maps along the picture's edges")
    flags.DEFINE_bool("flip", False, "not of the protocol: average with the mirrored picture")
    flags.DEFINE_list("scales", ["1"], "not of the protocol: average over these sizes, factors from 1 up")
    flags.DEFINE_string("templates", "", "not of the protocol: photo (1), subset (7), full (80), or a file of prompts")
    flags.DEFINE_string("class_file", "", 'not of the protocol: a label a line, with synonyms "cat; kitten; tabby"')
    hosts.define_flags()
    flags.DEFINE_string("background", "", 'not of the protocol: words for the background, "sky; wall", no threshold')
    flags.DEFINE_integer("top", 5, "how many classes a window may have; 0, not of the protocol: all", 0)


def main(rest: list[str]) -> None:
    if rest or not FLAGS.checkpoint:
        raise InputError("usage: groupvit eval --checkpoint=WORKDIR [--tasks=voc --data_root=DIR --output=F.json]")
    try:
        scales = tuple(float(scale) for scale in FLAGS.scales)
    except ValueError:
        raise InputError(f"--scales={','.join(FLAGS.scales)}: give factors from 1 up, as 1,1.25,1.5") from None
    from groupvit_jax import parallel
    from groupvit_jax.evals import runner, table
    from groupvit_jax.evals.protocol import Protocol
    from groupvit_jax.inference import load
    from groupvit_jax.reports import evaluation

    changes: dict[str, Any] = {name: FLAGS[name].value for name in (
        "templates", "class_file", "background", "top", "pamr", "oracle")}
    protocol = Protocol(FLAGS.protocol, **changes)
    parallel.cores_as_devices()
    hosts.join()
    import jax

    speaks = jax.process_index() == 0  # for all
    if speaks:
        check_output(FLAGS.output)
        if FLAGS.report is not None:
            evaluation.check(FLAGS.report)
    mesh = parallel.create_mesh()
    model = load(FLAGS.checkpoint, parallel.replicated(mesh))
    chosen = {"tasks": FLAGS.tasks, "data_root": FLAGS.data_root, "batch": FLAGS.batch}
    evaluator = runner.Evaluator.from_config(
        model.module, model.config.eval, protocol=protocol, scales=scales, flip=FLAGS.flip, skip_bad=FLAGS.skip_bad,
        mesh=mesh, progress=speaks, each=FLAGS.report is not None,
        **{name: value for name, value in chosen.items() if value})
    results = evaluator(model.variables)
    written = table.write(FLAGS.output, results) if FLAGS.output and speaks else []
    if speaks:
        print(table.text(results), flush=True)  # before anything can go wrong
    if FLAGS.report is not None:
        page = evaluation.write(FLAGS.report, evaluator, model.variables, results, FLAGS.checkpoint)
        written += [page] if page else []
    for path in written:
        print(f"wrote {path}")


def check_output(output: str | None) -> None:
    """Before hours of scoring, whether the scores can be written."""
    if output and not pathlib.Path(output).absolute().parent.is_dir():
        raise InputError(f"--output={output}: its folder does not exist; make it first")
    if output and pathlib.Path(output).is_dir():
        raise InputError(f"--output={output} is a folder; name a file, as {output.rstrip('/')}/scores.json")
