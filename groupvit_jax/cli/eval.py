"""groupvit eval --checkpoint=P --tasks=scenes,voc --data_root=DIR [--output=F.json]: zero-shot scores in percent."""

import json
import pathlib

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("checkpoint", None, "a training run's --workdir")
    flags.DEFINE_list("tasks", None, "data sets to score, comma separated; default: those of the run's configuration")
    flags.DEFINE_string("data_root", None, "folder the data sets lie in; default: that of the run's configuration")
    flags.DEFINE_enum("protocol", "groupvit", ["groupvit", "tcl"], "templates, class names and background threshold")
    flags.DEFINE_string("output", None, "JSON file to write the scores to")


def main(rest: list[str]) -> None:
    if rest or not FLAGS.checkpoint:
        raise InputError("usage: groupvit eval --checkpoint=WORKDIR [--tasks=scenes --data_root=DIR --output=F.json]")
    check_output(FLAGS.output)
    from groupvit_jax import files
    from groupvit_jax.evals import runner
    from groupvit_jax.inference import load

    model = load(FLAGS.checkpoint)
    chosen = {"tasks": FLAGS.tasks, "data_root": FLAGS.data_root}
    evaluator = runner.Evaluator.from_config(model.module, model.config.eval, protocol=FLAGS.protocol, progress=True,
                                             **{name: value for name, value in chosen.items() if value})
    results = evaluator(model.variables)
    print(runner.table(results))
    if FLAGS.output:
        files.write(FLAGS.output, (json.dumps(results, indent=1) + "\n").encode())


def check_output(output: str | None) -> None:
    """Before hours of scoring, whether the scores can be written."""
    if output and not pathlib.Path(output).absolute().parent.is_dir():
        raise InputError(f"--output={output}: its folder does not exist; make it first")
    if output and pathlib.Path(output).is_dir():
        raise InputError(f"--output={output} is a folder; name a file, as {output.rstrip('/')}/scores.json")
