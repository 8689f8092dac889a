"""Makes a TFDS data set from tars or folders.

    groupvit data convert --data="data/gcc3m/*.tar" --output=tfds
    groupvit data convert --dataset=voc --data=data --output=tfds

It goes to DIR/NAME/1.0.0, ArrayRecord files that TFDS opens without this
package; TensorFlow is not needed.
"""

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("dataset", "pairs", "pairs (captioned pictures in tars), or a segmentation set: voc, voc20, "
                        "context, context59, coco_object, coco_stuff, cityscapes, ade20k, scenes")
    flags.DEFINE_string("data", None, "the tars: a file, folder, quoted glob or braces, local or a URL; or the folder "
                        "in which the segmentation set was unpacked")
    flags.DEFINE_string("output", None, "folder for TFDS data sets")
    flags.DEFINE_string("name", "", "of the new data set; default: as --dataset")
    flags.DEFINE_string("split", "", "of the new data set, default train; of a segmentation set the one to take, "
                        "default the one that is scored")
    flags.DEFINE_bool("beam", False, "convert on Apache Beam, one shard a piece of work")
    flags.DEFINE_string("beam_options", "", 'for Beam, in its own form: "--runner=DirectRunner --direct_num_workers=4"')


def main(rest: list[str]) -> None:
    if rest or not (FLAGS.data and FLAGS.output):
        raise InputError("usage: groupvit data convert --dataset=pairs|voc|... --data=TARS_OR_ROOT --output=DIR "
                         "[--name=NAME --split=SPLIT --beam --beam_options=OPTIONS]")
    if FLAGS.beam_options and not FLAGS.beam:
        raise InputError("--beam_options without --beam: give both, or neither")
    from groupvit_jax.data.convert import PAIRS, convert

    made = convert(FLAGS.dataset, FLAGS.data, FLAGS.output, FLAGS.name, FLAGS.split, FLAGS.beam, FLAGS.beam_options)
    print(f"{made.samples} samples in {made.folder}, split {made.split}")
    for kind, count in made.left_out.items():
        print(f"left out: {count} x {kind}")
    if FLAGS.dataset == PAIRS:
        split = "" if made.split == "train" else f":{made.split}"
        print(f"train on it: --config.data.train[0].source=tfds --config.data.train[0].path={made.folder}{split}")
    else:
        print(f"open it: tfds.builder_from_directory({str(made.folder)!r}).as_data_source({made.split!r})")
