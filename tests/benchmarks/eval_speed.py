"""Images a second and memory of a zero-shot evaluation: groupvit_jax against the same protocol in PyTorch.

Both score the same pictures, of the sizes that VOC and COCO have, with the same weights of the published size, in
float32; once for VOC's 21 classes, once for COCO-Stuff's 171. The peer is peer_evaluation.py. Every measurement is a
fresh process; repeats are interleaved; what is timed is a second pass, after one that compiles and warms up.
Where other programs use the machine, PyTorch's threads wait for each other: the peer takes one or all, as is faster
at the time.

    python tests/benchmarks/eval_speed.py [--images=24] [--repeats=3] [--tasks=voc,coco_stuff]
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np
from PIL import Image

# width x height, as often as in 24 pictures of the sets
SIZES = [(500, 375)] * 6 + [(640, 480)] * 4 + [(375, 500)] * 3 + [(640, 427)] * 3 + [(480, 640)] * 2 + [
    (683, 512), (683, 512), (1024, 768), (1024, 768), (500, 333), (2048, 1024)]
CLASSES = {"voc": 21, "coco_stuff": 171}
FOLDERS = {"voc": ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/SegmentationClass", ""),
           "coco_stuff": ("coco_stuff164k/images/val2017", "coco_stuff164k/annotations/val2017", "_labelTrainIds")}
THRESHOLD = {"voc": 0.95, "coco_stuff": None}


def write_sets(root: pathlib.Path, number: int) -> None:
    """Both sets: the same smooth pictures, with masks of the one's labels and of the other's."""
    order = np.random.default_rng(0).permutation(len(SIZES))
    for task, (images, masks, ending) in FOLDERS.items():
        (root / images).mkdir(parents=True), (root / masks).mkdir(parents=True)
        for i in range(number):
            rng, (w, h) = np.random.default_rng(i), SIZES[order[i % len(SIZES)]]
            picture = sum(cv2.resize(rng.normal(size=(n, n, 3)), (w, h), interpolation=cv2.INTER_CUBIC) * 60 / n**0.3
                          for n in (3, 8, 20, 60))
            Image.fromarray((128 + picture).clip(0, 255).astype(np.uint8)).save(root / images / f"{i:06d}.jpg")
            coarse = np.append(np.arange(CLASSES[task]), 255)[rng.integers(0, CLASSES[task] + 1, (5, 6))]
            mask = cv2.resize(coarse.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST)
            Image.fromarray(mask).save(root / masks / f"{i:06d}{ending}.png")
    listing = root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("".join(f"{i:06d}\n" for i in range(number)))


def named_classes(task: str) -> list[str]:
    from groupvit_jax.evals import classes

    names = classes.names(task, "groupvit")
    return names if THRESHOLD[task] is None else names[1:]


def peer(task: str, root: pathlib.Path, threads: int):
    """A function that scores the set, and one that says where its time went, in ms a window."""
    import peer_evaluation
    import torch

    from groupvit_jax.data.tokenizer import Tokenizer

    tokens = np.asarray(Tokenizer()([f"a photo of a {name}." for name in named_classes(task)]), np.int64)
    loop = peer_evaluation.Peer(peer_evaluation.random_model(), tokens, THRESHOLD[task])
    torch.set_num_threads(threads or peer_evaluation.best_threads(loop))
    images, masks, ending = FOLDERS[task]
    pairs = [(path, root / masks / f"{path.stem}{ending}.png") for path in sorted((root / images).glob("*.jpg"))]
    return (lambda: loop.counts(pairs)), lambda: {
        **{k: 1e3 * s / loop.windows for k, s in loop.seconds.items()}, "threads": torch.get_num_threads()}


def ours(task: str, root: pathlib.Path, threads: int):
    """The same of groupvit_jax, with the peer's weights; the share of the time that goes into the compiled program."""
    import jax
    import peer_evaluation

    from groupvit_jax import parallel

    parallel.cores_as_devices()
    state = {name: x.numpy() for name, x in peer_evaluation.random_model().state_dict().items()}
    evaluator, variables = make_evaluator(task, root, state)
    count, spent = evaluator.count, {}

    def timed(*arguments):
        began = time.perf_counter()
        sums = jax.block_until_ready(count(*arguments))
        spent["compiled"] += time.perf_counter() - began
        return sums

    def evaluate():
        spent.update(compiled=0.0, whole=time.perf_counter())
        evaluator(variables)
        spent["whole"] = time.perf_counter() - spent["whole"]

    evaluator.count = timed
    return evaluate, lambda: {"compiled, %": 100 * spent["compiled"] / spent["whole"]}


def make_evaluator(task: str, root: pathlib.Path, state: dict):
    """The one place that knows the evaluator's interface: an `Evaluator` of the task, and variables of the weights."""
    sys.path.append(str(pathlib.Path(__file__).parents[2]))  # `configs` lies beside the package and is not installed
    from configs import base
    from groupvit_jax.evals.runner import Evaluator
    from groupvit_jax.interop.huggingface import from_state_dict
    from groupvit_jax.models.two_towers import build

    config = base.get_config().model
    config.dtype = "float32"
    model = build(config, multi_label=False)
    return Evaluator(model, [task], root), from_state_dict(state, config)


def measure(side: str, task: str, root: pathlib.Path, threads: int) -> dict:
    """Runs in a process of its own."""
    evaluate, parts = {"peer": peer, "ours": ours}[side](task, root, threads)
    times = []
    for _ in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        evaluate()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return {"first": times[0][0], "wall": times[1][0], "cpu": times[1][1], "parts": parts(),
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def fresh(side: str, task: str, root: str, threads: int) -> dict:
    command = [sys.executable, __file__, f"--side={side}", f"--tasks={task}", f"--root={root}", f"--threads={threads}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def row(name: str, classes: int, images: int, runs: list[dict], peers: list[dict]) -> str:
    """A line of the table: rates by medians, ratios by the median of each repeat's."""
    def middle(key):
        return statistics.median(run[key] for run in runs)

    def ratio(key):
        return statistics.median(other[key] / run[key] for run, other in zip(runs, peers))

    return (f"| {classes} | {name} | {images / middle('wall'):.2f} | {ratio('wall'):.2f} "
            f"| {images / middle('cpu'):.2f} | {ratio('cpu'):.2f} | {middle('first'):.1f} | {middle('memory'):.2f} |")


def memory(images: int) -> None:
    print("| images | classes | peak memory, GiB |\n|---|---|---|")
    for number, task in ((images, "voc"), (4 * images, "voc"), (4 * images, "coco_stuff")):
        with tempfile.TemporaryDirectory() as root:
            write_sets(pathlib.Path(root), number)
            print(f"| {number} | {CLASSES[task]} | {fresh('ours', task, root, 0)['memory']:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", default="voc,coco_stuff")
    parser.add_argument("--threads", type=int, default=0, help="of the peer; 0: one or all cores, as is faster")
    parser.add_argument("--memory", action="store_true", help="only our peak memory, by images and classes")
    parser.add_argument("--side", choices=["ours", "peer"], help=argparse.SUPPRESS)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        return print(json.dumps(measure(args.side, args.tasks, pathlib.Path(args.root), args.threads)))
    if args.memory:
        return memory(args.images)
    print("| classes | side | images/s | ratio | images/s of a core | ratio | first pass, s | peak memory, GiB |")
    print("|---|---|---|---|---|---|---|---|")
    notes = []
    with tempfile.TemporaryDirectory() as root:
        write_sets(pathlib.Path(root), args.images)
        for task in args.tasks.split(","):
            runs = [{side: fresh(side, task, root, args.threads) for side in ("peer", "ours")}
                    for _ in range(args.repeats)]
            for side, name in (("peer", "transformers, PyTorch"), ("ours", "groupvit_jax")):
                print(row(name, CLASSES[task], args.images, [run[side] for run in runs], [run["peer"] for run in runs]),
                      flush=True)
            parts = {part: statistics.median(run["peer"]["parts"][part] for run in runs)
                     for part in runs[0]["peer"]["parts"]}
            share = statistics.median(run["ours"]["parts"]["compiled, %"] for run in runs)
            notes.append(f"{task}: the peer's ms a window: " + ", ".join(f"{k} {v:.1f}" for k, v in parts.items())
                         + f"; ours is in the compiled program {share:.0f} % of the time")
    print("", *notes, f"{args.images} pictures, {args.repeats} interleaved repeats in fresh processes, medians. "
          "Images/s of a core count processor time, so that other programs on the machine matter less.", sep="\n")


if __name__ == "__main__":
    main()
