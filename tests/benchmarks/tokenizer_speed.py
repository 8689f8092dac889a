"""How fast captions become token ids: our Tokenizer against the pure-Python SimpleTokenizer of open_clip, on clean
captions as long as CC3M's, one core, one caption a call; both are warm, and must give the same ids.

    python -m pip install --no-deps --target /tmp/peer open-clip-torch==3.3.0    # MIT; needs only torch, ftfy, regex
    python tests/benchmarks/tokenizer_speed.py --peer=/tmp/peer [--captions=20000] [--repeats=5]
"""

import argparse
import importlib.util
import os
import pathlib
import statistics
import time

import numpy as np

from groupvit_jax.data.tokenizer import Tokenizer, vocabulary

SENTENCES = ("a {} {} with a {} in the {}", "{} {} on the {}, {} and {}", "the {} of a {} {} near {} {} at {}",
             "portrait of a {} {}", "{} {} for {} by {}", "actor attends the {} of {} {} at {} {}",
             "{} in front of a {} {} during the {} - stock photo", "a close up of the {} {}'s {}.")
ODD = (" & ", " &amp; ", " – ", "’s ", " café ", " “new” ", "… ")  # in one caption of ten


def captions(number: int, seed: int = 0) -> list[str]:
    """Clean captions of 4 to 14 words out of 13,000, few often and most rarely, as words are (Zipf's law)."""
    rng = np.random.default_rng(seed)
    spelled = (s.decode("ascii", "ignore") for s in vocabulary().spelling[512:])
    words = [s.strip() for s in spelled if s.endswith(" ") and s.strip().isalpha() and len(s) > 3]
    words += [a + b for a, b in zip(words[::2], words[1::3])]  # in no vocabulary: several tokens each
    words = list(rng.permutation(words)[:13000])
    chances = 1 / np.arange(10, 10 + len(words))
    drawn = iter(rng.choice(words, size=(number, 8), p=chances / chances.sum()).tolist())
    made = []
    for sentence, odd in zip(rng.choice(SENTENCES, number).tolist(), rng.random(number) < 0.1):
        text = sentence.format(*next(drawn))
        made.append(text.replace(" ", str(rng.choice(ODD)), 1) if odd else text)
    return made


def peer_tokenizer(folder: str):
    """The SimpleTokenizer of the unpacked wheel, without importing the package around it, which needs torchvision."""
    path = pathlib.Path(folder, "open_clip", "tokenizer.py")
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


def seconds(tokenize, texts: list[str]) -> float:
    begun = time.perf_counter()
    for text in texts:
        tokenize(text)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="folder of the unpacked open-clip-torch wheel")
    parser.add_argument("--captions", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = captions(args.captions)
    ours, peer = Tokenizer(), peer_tokenizer(args.peer)
    assert np.array_equal(ours(texts), peer(texts).numpy()), "the ids differ"
    times = [(seconds(ours, texts), seconds(peer, texts)) for _ in range(args.repeats)]
    mine, theirs = (len(texts) / statistics.median(column) for column in zip(*times))
    ratio = statistics.median(b / a for a, b in times)
    print("| tokenizer | captions/s | ratio |\n|---|---|---|")
    print(f"| open_clip's SimpleTokenizer | {theirs:,.0f} | 1 |\n| groupvit_jax | {mine:,.0f} | {ratio:.1f} |")
    print(f"\n{len(texts)} captions such as {texts[0]!r}, {sum(not t.isascii() or '&' in t for t in texts)} of them "
          f"with & or beyond ASCII; {args.repeats} interleaved repeats, median; the same ids")


if __name__ == "__main__":
    main()
