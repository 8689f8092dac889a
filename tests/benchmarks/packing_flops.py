"""What packing saves: the text tower's operations, forward and backward, on captions as long as CC3M's, against 4 x 77
padded positions an image. XLA counts them in the compiled program of the published tower.

CC3M's captions have 10.3 words on average with deviation 4.5 (Sharma et al., ACL 2018, table 1): here words of CLIP's
vocabulary drawn to such lengths, half of them content words, and prompts in CLIP's 80 templates.

    python tests/benchmarks/packing_flops.py [--batch=256]
"""

import argparse
import pathlib
import sys

import jax
import numpy as np

from groupvit_jax import parallel
from groupvit_jax.data.captions import prompts
from groupvit_jax.data.examples import join
from groupvit_jax.data.packing import Packed, pack, rows_of
from groupvit_jax.data.tokenizer import Tokenizer, vocabulary
from groupvit_jax.models import two_towers


def published():
    """The base configuration, whose room for texts is CC3M's."""
    sys.path.append(str(pathlib.Path(__file__).parents[2]))  # `configs` lies beside the package and is not installed
    from configs import base

    return base.get_config()


def captions(number: int, rng: np.random.Generator) -> list[list[str]]:
    """Captions as lists of words: English ones are one or two tokens, as in CC3M."""
    spelled = [s.decode("ascii", "ignore") for s in vocabulary().spelling[2000:20000]]
    words = [s.strip() for s in spelled if s.endswith(" ") and s.strip().isalpha() and len(s) > 3]
    compounds = [a + b for a, b in zip(words, words[1:])]
    lengths = np.maximum(3, rng.gamma((10.3 / 4.5) ** 2, 4.5**2 / 10.3, number)).round().astype(int)
    return [[str(rng.choice(words if rng.random() < 0.85 else compounds)) for _ in range(n)] for n in lengths]


def tokens(number: int, config, rng: np.random.Generator) -> list[list[list[int]]]:
    """Of so many pictures the caption and its prompts, as token ids."""
    encode = Tokenizer().encode
    return [[encode(text, 77) for text in (" ".join(words), *prompts(" ".join(words), config.prompts, rng, words[::2]))]
            for words in captions(number, rng)]


def packed(tokens: list[list[list[int]]], config) -> tuple[Packed, int]:
    """Groups in rows of `config.data`'s room, and how many texts were cut."""
    groups, cut = zip(*(pack(tokens[i : i + config.group], rows_of(config, config.group), config.pack_length)
                        for i in range(0, len(tokens), config.group)))
    return join(groups), sum(cut)


def flops(text) -> float:
    """Operations of one forward and backward pass of the published text tower."""
    model = two_towers.build(published().model, multi_label=True)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), text)
    variables = parallel.unbox(jax.eval_shape(
        lambda key: model.init(key, np.zeros((1, 1, 77), np.int32), method="encode_text"), jax.random.key(0)))
    gradient = jax.grad(lambda variables, text: model.apply(variables, text, method="encode_text").sum())
    return jax.jit(gradient).lower(variables, shapes).compile().cost_analysis()["flops"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    batch = parser.parse_args().batch
    config = published().data
    ids = tokens(batch, config, np.random.default_rng(0))
    rows, cut = packed(ids, config)
    padded = np.zeros((batch, 1 + config.prompts, 77), np.int32)
    counts = {"padded": flops(padded), "packed": flops(rows)}
    places = {"padded": padded.size, "packed": rows.tokens.size}
    used = (rows.segments > 0).sum()
    means = np.mean([len(t[0]) for t in ids]), np.mean([len(text) for t in ids for text in t[1:]])
    print(f"{batch} images, captions of {means[0]:.1f} tokens, prompts of {means[1]:.1f}; "
          f"{used / places['packed']:.0%} of the packed rows filled, {cut} of {padded[..., 0].size} texts cut\n")
    print("| texts | positions an image | text tower, GFLOP an image | ratio |\n|---|---|---|---|")
    for name, count in counts.items():
        print(f"| {name} | {places[name] / batch:.0f} | {count / batch / 1e9:.2f} | {counts['padded'] / count:.1f} |")


if __name__ == "__main__":
    main()
