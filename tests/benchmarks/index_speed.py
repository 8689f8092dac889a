"""How fast a tar is indexed: groupvit_jax.data.index against the standard library's tarfile, which does the same
grouping into samples and keeps the offsets in a NumPy file. One process, the tars in memory's file cache.

    python tests/benchmarks/index_speed.py [--samples=20000] [--repeats=5]
"""

import argparse
import io
import os
import pathlib
import statistics
import tarfile
import tempfile
import time

import numpy as np

from groupvit_jax.data import index

FORMATS = {"GNU": tarfile.GNU_FORMAT, "PAX, as img2dataset": tarfile.PAX_FORMAT}


def write(path: pathlib.Path, samples: int, form: int) -> None:
    """Images of about 15 kB, a JSON of about 600 B, a caption; PAX with times in fractions, as WebDataset writes."""
    rng = np.random.default_rng(0)
    noise = rng.bytes(1 << 20)
    with tarfile.open(path, "w", format=form) as tar:
        for i, size in enumerate(rng.lognormal(9.5, 0.5, samples).astype(int).clip(2000, 200000)):
            for kind, data in (("jpg", noise[:size]), ("json", noise[:600]), ("txt", b"a photo of a dog on a beach")):
                member = tarfile.TarInfo(f"{i:09d}.{kind}")
                member.size, member.mtime = len(data), 1.7e9 + (0.25 if form == tarfile.PAX_FORMAT else 0)
                tar.addfile(member, io.BytesIO(data))


def peer(path: pathlib.Path) -> int:
    """tarfile, the grouping of groupvit_jax.data.index, and np.savez."""
    samples = {}
    with tarfile.open(path, "r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # or it keeps them all
            stem, _, kind = member.name.partition(".")
            if member.isfile():
                samples.setdefault(stem, {})[kind] = member.offset_data, member.size
    rows = [(key, *parts["jpg"], *parts["txt"]) for key, parts in samples.items() if "jpg" in parts and "txt" in parts]
    keys, *numbers = zip(*rows)
    np.savez(f"{path}.npz", keys=np.array(keys), numbers=np.array(numbers).T)
    return len(rows)


def ours(path: pathlib.Path) -> int:
    pathlib.Path(f"{path}{index.SUFFIX}").unlink(missing_ok=True)
    return index.ensure([str(path)], workers=1)[0].samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print("| tar | size | tarfile, samples/s | groupvit_jax, samples/s | ratio |\n|---|---|---|---|---|")
    for name, form in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "0.tar")
            write(path, args.samples, form)
            seconds = {peer: [], ours: []}
            for _ in range(args.repeats):
                for way, taken in seconds.items():
                    began = time.perf_counter()
                    assert way(path) == args.samples
                    taken.append(time.perf_counter() - began)
            theirs, own = (args.samples / statistics.median(taken) for taken in seconds.values())
            size = os.path.getsize(path) / 1e6
            print(f"| {name} | {size:.0f} MB | {theirs:,.0f} | {own:,.0f} | {own / theirs:.1f} |", flush=True)


if __name__ == "__main__":
    main()
