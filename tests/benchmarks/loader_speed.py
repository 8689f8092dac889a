"""Images a second of one core, tar to training example, full recipe: groupvit_jax against webdataset and PIL.

Both read a WebDataset tar of 512x767 JPEGs of about 80 kB with captions, draw a random resized crop of 224 pixels,
apply RandAugment m9-mstd0.5-inc1, tag the caption, and tokenize it and three prompts. The peer (peer_loader.py) also
flips, normalises to float32 and erases, which groupvit_jax leaves to the device: see training/augment.py. Batches of
groupvit_jax are those that training gets: shuffled, packed, in order.

    python -m pip install webdataset==1.0.2
    python -m pip install --no-deps --target /tmp/peer open-clip-torch==3.3.0    # for its tokenizer
    python tests/benchmarks/loader_speed.py --peer=/tmp/peer [--images=256] [--repeats=7]
"""

import argparse
import gc
import io
import itertools
import os
import pathlib
import random
import statistics
import sys
import tarfile
import tempfile
import time

import cv2
import numpy as np
import peer_loader
from PIL import Image
from tokenizer_speed import captions as made_captions
from tokenizer_speed import peer_tokenizer

from groupvit_jax.data import captions, images
from groupvit_jax.data.decoding import open_picture
from groupvit_jax.data.examples import MakeExample
from groupvit_jax.data.pipeline import Batches
from groupvit_jax.data.randaugment import randaugment
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.data.tokenizer import LENGTH, Tokenizer

SIZE = 224
BATCH = 64
tokenize = Tokenizer()


def photo(seed: int, height: int = 512, width: int = 767) -> Image.Image:
    """Noise whose strength falls with its frequency, as in photographs, and a little grain: 80 kB at quality 90."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 128, np.float32)
    for octave in range(1, 9):
        coarse = rng.standard_normal((max(2, 2**octave * height // width + 1), 2**octave, 3)).astype(np.float32)
        layer = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        pixels += (0.4 * layer + 1.2 * layer.mean(-1, keepdims=True)) * 90 / 1.6**octave
    pixels += rng.normal(0, 3.2, (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_tar(path: pathlib.Path, number: int) -> float:
    """A WebDataset tar of `number` samples; returns the mean size of its images in bytes."""
    total = 0
    with tarfile.open(path, "w") as tar:
        for i, caption in enumerate(made_captions(number)):
            photo(i).save(buffer := io.BytesIO(), "JPEG", quality=90)
            total += len(buffer.getvalue())
            for kind, data in (("jpg", buffer.getvalue()), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{i:06d}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return total / number


def loader(source: TarSource, decode: str) -> Batches:
    """That of training, with the published recipe."""
    sys.path.append(str(pathlib.Path(__file__).parents[2]))  # `configs` lies beside the package and is not installed
    from configs import base

    config = base.get_config()
    config.data.update(dict(batch=BATCH, tagger="pattern", decode=decode))
    return Batches([source], config.data, MakeExample(config.data, config.augment, SIZE, LENGTH), config.seed)


def ours(batches: Batches, number: int):
    """Batches one after the other; an item for each example."""
    for n in range(number // BATCH):
        yield from batches[n]["image"]


def batched(examples):
    """Batches of BATCH, the form in which the peer hands on too."""
    examples = iter(examples)
    while len(batch := list(itertools.islice(examples, BATCH))) == BATCH:
        yield from [np.stack(column) for column in zip(*batch)][0]


def seconds(examples) -> float:
    """Seconds of processor time an example, so that other programs on the machine count less."""
    begun = time.process_time()
    number = sum(1 for _ in examples)
    return (time.process_time() - begun) / number


def parts(tar: str, source: TarSource, peer_tokens) -> list[tuple[str, float, float]]:
    """(name, our seconds, the peer's) of each step of the way; the mean over all samples."""
    rng, tagger = np.random.default_rng(0), captions.tagger("pattern")
    encoded, spoken = zip(*peer_loader.read(tar))
    plain = [peer_loader.decode(data) for data in encoded]
    crops = [peer_loader.random_resized_crop(image, SIZE) for image in plain]
    texts = [peer_loader.texts(caption, rng) for caption in spoken]

    def cut(decode):
        return (images.train_transform(data, SIZE, rng, randaugment=0, decode=decode) for data in encoded)

    def tagged():
        for caption in spoken:
            yield captions.prompts(caption, 3, rng, captions.content_words(caption, tagger))

    peer_cut = seconds(peer_loader.random_resized_crop(image, SIZE) for image in plain)
    peer_decode = seconds(map(peer_loader.decode, encoded))
    tag = seconds(tagged())
    return [
        ("read", seconds(source[i] for i in range(len(source))), seconds(peer_loader.read(tar))),
        ("decode alone", seconds(open_picture(data).read(1) for data in encoded), peer_decode),
        ("decode, crop, resize", seconds(cut("scaled")), peer_decode + peer_cut),
        ("flip (peer), RandAugment", seconds(randaugment(np.asarray(c), rng) for c in crops),
         seconds(map(peer_loader.augment, crops))),
        ("normalise, erase", 0.0, seconds(peer_loader.erase(peer_loader.normalise(c), rng) for c in crops)),
        ("tag, prompts", tag, tag),
        ("tokenize", seconds(map(tokenize, texts)), seconds(map(peer_tokens, texts))),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="folder of the unpacked open-clip-torch wheel")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(0)
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        tar = str(pathlib.Path(folder, "0.tar"))
        size = write_tar(pathlib.Path(tar), args.images)
        source, peer_tokens = TarSource(tar), peer_tokenizer(args.peer)
        loaders = [loader(source, decode) for decode in ("scaled", "full")]
        ways = (lambda: ours(loaders[0], len(source)), lambda: ours(loaders[1], len(source)),
                lambda: batched(peer_loader.examples(tar, peer_tokens, SIZE)))
        for way in ways:
            seconds(way())  # caches warm, modules imported
        gc.collect()
        gc.freeze()  # as in a worker process: torch's objects are no part of either loader
        times = [[seconds(way()) for way in ways] for _ in range(args.repeats)]
        table = [parts(tar, source, peer_tokens) for _ in range(3)]
    scaled, full, peer = map(statistics.median, zip(*times))
    print("| loader, one core | images/s | ratio |\n|---|---|---|")
    print(f"| webdataset, PIL, float32, SimpleTokenizer | {1 / peer:.0f} | 1 |")
    for name, column, mine in (("scaled", 0, scaled), ("full", 1, full)):
        ratio = statistics.median(row[2] / row[column] for row in times)
        print(f"| groupvit_jax, decode {name} | {1 / mine:.0f} | {ratio:.2f} |")
    print("\n| part | groupvit_jax, ms | peer, ms |\n|---|---|---|")
    for rows in zip(*table):
        mine, theirs = (1e3 * statistics.median(row[i] for row in rows) for i in (1, 2))
        print(f"| {rows[0][0]} | {mine:.3f} | {theirs:.3f} |")
    print(f"\n{args.images} JPEGs of {size / 1e3:.0f} kB; {args.repeats} interleaved repeats, median")


if __name__ == "__main__":
    main()
