"""What it costs to open 26 million pairs (YFCC14M and GCC12M) in 2,600 tars: time, and memory of 4 worker processes.

The tars are holes in the file system and their indexes are simulated: 1 GB of disk in a temporary folder. Each worker
looks up random pairs; the sum of the processes' proportional set sizes counts a page that they share once.

    python tests/benchmarks/index_memory.py [--shards=2600] [--samples=10000] [--workers=4] [--touched=200000]
"""

import argparse
import multiprocessing
import os
import pickle
import random
import tempfile
import time

import numpy as np

from groupvit_jax import files
from groupvit_jax.data import index, storage
from groupvit_jax.data.tar_source import TarSource


def simulate(folder: str, shards: int, samples: int) -> None:
    """Tars of pictures of 15 kB, and their indexes."""
    places = np.arange(samples, dtype=np.int64) * 17408
    sizes = np.full(samples, 15000, np.int32)
    for shard in range(shards):
        path = f"{folder}/{shard:05d}.tar"
        with open(path, "wb") as file:
            file.truncate(samples * 17408)
        keys = [f"{shard:05d}{i:04d}" for i in range(samples)]
        size, tag = storage.fingerprint(path)
        about = {"version": index.VERSION, "size": size, "tag": tag, "problems": {}, "tagger": None}
        columns = [keys, places, sizes, places + 16384, sizes // 250, np.zeros(samples, bool)]
        files.write(path + index.SUFFIX, index._encode(columns, about))


def used() -> tuple[float, float]:
    """(PSS, private memory) of this process in MB."""
    with open("/proc/self/smaps_rollup") as file:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in file if line.endswith("kB\n")}
    return kib["Pss"] / 1024, (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024


def work(source, seed, touched, done, barrier) -> None:
    draw = random.Random(seed)
    began = time.perf_counter()
    for _ in range(touched):
        _, table, row = source._place(draw.randrange(len(source)))
        assert table.places(row)[0][1] == 15000 and len(table.key[row].as_py()) == 9
    taken = time.perf_counter() - began
    barrier.wait()  # all have their pages mapped
    done.put((*used(), touched / taken))
    barrier.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("shards", 2600), ("samples", 10000), ("workers", 4), ("touched", 200000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        simulate(folder, args.shards, args.samples)
        began = time.perf_counter()
        source = TarSource(folder)
        opened = time.perf_counter() - began
        spawn = multiprocessing.get_context("spawn")
        done, barrier = spawn.Queue(), spawn.Barrier(args.workers + 1)
        workers = [spawn.Process(target=work, args=(source, seed, args.touched, done, barrier))
                   for seed in range(args.workers)]
        for worker in workers:
            worker.start()
        barrier.wait()
        rows = [done.get() for _ in workers]
        total = used()[0] + sum(row[0] for row in rows)
        barrier.wait()
        for worker in workers:
            worker.join()
        disk = sum(os.path.getsize(entry) for entry in os.scandir(folder) if entry.name.endswith(index.SUFFIX))
    print("| pairs | shards | index on disk | opened in | pickled | memory, all processes | private, a worker | "
          "looked up |\n|---|---|---|---|---|---|---|---|")
    print(f"| {len(source):,} | {args.shards:,} | {disk / 1e6:,.0f} MB | {opened:.2f} s | "
          f"{len(pickle.dumps(source)) / 1e3:,.0f} kB | {total:,.0f} MB | {max(row[1] for row in rows):,.0f} MB | "
          f"{min(row[2] for row in rows):,.0f} pairs/s |")


if __name__ == "__main__":
    main()
