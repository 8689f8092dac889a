"""Samples a second and memory of a training step: groupvit_jax against the same step in PyTorch (peer_step.py).

One step is loss, gradient, clipping and AdamW of the published model with K = 3 prompts, from images as uint8 and
captions as long as CC3M's (see packing_flops.py). Ours has packed texts, drop-path, flipping and erasing; the peer has
texts padded to 77 tokens. Both in float32 on a CPU; on a GPU in bfloat16, the peer under autocast and `torch.compile`.
Each side is a process of its own, which stays; they take turns, so that other programs on the machine slow down both.

    python tests/benchmarks/step_speed.py [--batch=16] [--repeats=7] [--device=cpu|gpu]
"""

import argparse
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

BATCHES = 4  # different ones, used in turn
NAMES = {"peer": "transformers, PyTorch", "ours": "groupvit_jax"}


def write_batches(path: pathlib.Path, batch: int) -> None:
    """The same pictures and texts for both sides: padded and packed."""
    import packing_flops

    config, rng, arrays = packing_flops.published().data, np.random.default_rng(0), {}
    for i in range(BATCHES):
        tokens = packing_flops.tokens(batch, config, rng)
        padded = np.zeros((batch, 1 + config.prompts, 77), np.int64)
        for row, ids in zip(padded.reshape(-1, 77), sum(tokens, [])):
            row[: len(ids)] = ids
        packed, _ = packing_flops.packed(tokens, config)
        arrays |= {f"padded{i}": padded, f"image{i}": rng.integers(0, 256, (batch, 224, 224, 3), np.uint8)}
        arrays |= {f"{name}{i}": x for name, x in packed._asdict().items()}
    np.savez(path, **arrays)


def configuration(batch: int, device: str):
    sys.path.append(str(pathlib.Path(__file__).parents[2]))  # `configs` lies beside the package and is not installed
    from configs import base

    config = base.get_config()
    config.model.dtype = "bfloat16" if device == "gpu" else "float32"
    config.data.batch = batch
    return config


def peer(args: argparse.Namespace, arrays: dict):
    """A function that makes the i-th step, and one that says the device's peak memory in GiB."""
    import peer_step
    import torch

    step = peer_step.Step(configuration(args.batch, args.device).optim.to_dict(), args.batch, args.device)
    torch.set_num_threads(args.threads or step.best_threads(arrays["image0"], arrays["padded0"]))
    return (lambda i: step(arrays[f"image{i % BATCHES}"], arrays[f"padded{i % BATCHES}"])), step.device_memory


def ours(args: argparse.Namespace, arrays: dict):
    """The same of groupvit_jax."""
    import jax

    jax.config.update("jax_num_cpu_devices", args.devices)
    from groupvit_jax import parallel
    from groupvit_jax.data.packing import Packed
    from groupvit_jax.training import program

    config = configuration(args.batch, args.device)
    mesh = parallel.create_mesh(config.mesh)
    made = program.build(config, mesh, warmup=2, steps=10_000)
    with parallel.use(mesh):
        state = made.create()

    def step(i):
        nonlocal state
        i %= BATCHES
        text = Packed(*(arrays[f"{name}{i}"] for name in Packed._fields))
        with parallel.use(mesh):
            state, metrics = made.step(state, parallel.to_global(mesh, {"image": arrays[f"image{i}"], "text": text}))
        return float(metrics["loss"])

    return step, lambda: (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", math.nan) / 2**30


def serve(args: argparse.Namespace) -> None:
    """A line with a number of steps comes in, a line with their times goes out."""
    arrays = dict(np.load(args.data))
    step, device_memory = {"peer": peer, "ours": ours}[args.side](args, arrays)
    done = 0
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        losses = [step(done + i) for i in range(int(line))]
        done += len(losses)
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        assert np.isfinite(losses).all(), losses
        print(json.dumps(times | {"host": peak_memory(), "device": device_memory()}), flush=True)


def peak_memory() -> float:
    """VmHWM of this process in GiB."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 2**20


class Side:
    """One side's process."""

    def __init__(self, side: str, args: argparse.Namespace, data: str):
        command = [sys.executable, __file__, f"--side={side}", f"--data={data}", f"--batch={args.batch}",
                   f"--device={args.device}", f"--devices={args.devices}", f"--threads={args.threads}"]
        environment = os.environ | ({"JAX_PLATFORMS": "cpu"} if args.device == "cpu" else {})
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)

    def __call__(self, steps: int) -> dict:
        print(steps, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a side has ended with {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(args: argparse.Namespace) -> tuple[dict, dict]:
    """First step's seconds, and repeats, of each side."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(pathlib.Path(folder, "batches.npz"))
        write_batches(pathlib.Path(data), args.batch)
        sides = {side: Side(side, args, data) for side in NAMES}
        try:
            first = {side: run(1)["wall"] for side, run in sides.items()}
            for run in sides.values():
                run(1)
            runs = {side: [] for side in sides}
            for i in range(args.repeats):
                for side in list(sides)[:: 1 if i % 2 else -1]:
                    runs[side].append(sides[side](args.steps))
        finally:
            for run in sides.values():
                run.close()
    return first, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="in a repeat")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--devices", type=int, default=1, help="of JAX on the CPU")
    parser.add_argument("--threads", type=int, default=0, help="of the peer; 0: one or all cores, as is faster")
    parser.add_argument("--side", choices=list(NAMES), help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return serve(args)
    first, runs = measure(args)
    samples = args.batch * args.steps
    print("| side | samples/s | ratio | samples/s of a core | ratio | first step, s | peak memory, GiB |")
    print("|---|---|---|---|---|---|---|")
    for side, name in NAMES.items():
        rates = {key: samples / statistics.median(run[key] for run in runs[side]) for key in ("wall", "cpu")}
        ratio = {key: statistics.median(other[key] / run[key] for run, other in zip(runs[side], runs["peer"]))
                 for key in rates}
        memory = runs[side][-1]["device" if args.device == "gpu" else "host"]
        print(f"| {name} | {rates['wall']:.2f} | {ratio['wall']:.2f} | {rates['cpu']:.2f} | {ratio['cpu']:.2f} "
              f"| {first[side]:.1f} | {memory:.2f} |")
    print(f"\nBatches of {args.batch}, {args.repeats} interleaved repeats of {args.steps} steps, medians. Samples/s of "
          "a core count processor time, so that other programs on the machine matter less.")


if __name__ == "__main__":
    main()
