"""Makes a model of PyTorch weights, checked by comparing.

    groupvit import --source=weights/gcc-yfcc --output=runs/released
    groupvit import --source=group_vit_gcc_yfcc_30e-879422e0.pth \\
        --output=runs/released

--checkpoint takes such weights as they are, too; what is imported has been
held to PyTorch's outputs, names what it leaves out, and loads faster.
"""

import re

from absl import flags

from groupvit_jax.errors import InputError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("source", None, "a Hugging Face folder or one of its files, a training checkpoint (.pth), or a "
                        "state dict (.safetensors, .bin, .pth)")
    flags.DEFINE_string("output", None, "folder to make; --checkpoint takes it")
    flags.DEFINE_integer("image_size", None, "resize the position embedding to images of so many pixels", 1)
    flags.DEFINE_list("heads", None, "IMAGE,TEXT: attention heads of the towers, for files that do not say; default: "
                      "one to 64 channels")
    flags.DEFINE_enum("verify", "on", ["on", "off"], "compare outputs with PyTorch's, if it is installed")


def main(rest: list[str]) -> None:
    if rest or not (FLAGS.source and FLAGS.output):
        raise InputError("usage: groupvit import --source=FILE_OR_FOLDER --output=DIR")
    heads: tuple[int | None, int | None] = (None, None)
    if FLAGS.heads:
        if len(FLAGS.heads) != 2 or not all(re.fullmatch("[1-9][0-9]*", number) for number in FLAGS.heads):
            raise InputError(f"--heads={','.join(FLAGS.heads)}: give two numbers, of the image and of the text tower, "
                             "as 6,4")
        heads = int(FLAGS.heads[0]), int(FLAGS.heads[1])
    from groupvit_jax import files
    from groupvit_jax.interop import proof, proof_port, reading
    from groupvit_jax.training import checkpoint

    with files.new(FLAGS.output) as folder:
        weights = reading.read(FLAGS.source, heads)
        image, text = weights.config.model.image, weights.config.model.text
        print(f"{FLAGS.source}: {weights.form}, {len(weights.state)} tensors; image tower of width {image.width} with "
              f"{image.heads} heads, text tower of {text.width} with {text.heads}", flush=True)
        if weights.ignored:
            print("ignored:", ", ".join(weights.ignored))
        if why := proof.skipped(FLAGS.verify):
            print(why)
        else:
            print("running it in PyTorch and here", flush=True)
            port = proof_port.port_of(weights.state, weights.config.model, weights.port)
            proof.check(proof_port.compare(weights.config.model, weights.variables, port), FLAGS.source)
        weights = reading.resized(weights, FLAGS.image_size) if FLAGS.image_size else weights
        checkpoint.save_weights(folder, weights)
    print(f"wrote {FLAGS.output}; --checkpoint={FLAGS.output} or --config.init_from={FLAGS.output} takes it")
