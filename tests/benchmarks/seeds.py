"""What text teaches: a recipe with true and with shuffled captions, three seeds, scored on scenes that chose nothing.
Prints a markdown table; a run that is there already is not repeated.

    python tests/benchmarks/seeds.py scenes|fashion [--captions=true|shuffled] [--config.train.steps=200 ...]

`fashion` wants the package dataset-fashion-mnist, and adds top-1 on the single test photographs.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

ITEMS = 10  # the first classes of fashion: garments, the others are grounds
COLUMNS = {"mIoU": "mIoU", "oracle names": "oracle", "best constant class": "constant", "groups in use": "groups_used",
           "top-1": "image_top1"}
OWN = {"scenes": {}, "fashion": {"mIoU of garments": "garments", "oracle names of garments": "garments_oracle",
                                 "top-1, single photographs": "top1"}}


def groupvit(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", "from groupvit_jax.cli.main import main; main()", *arguments], check=True)


def held_out(recipe: str, captions: str) -> pathlib.Path:
    """Scenes that chose nothing: of scenes another seed's, of fashion the validation set, which nothing looks at."""
    return pathlib.Path("runs/scenes-test" if recipe == "scenes" else f"runs/fashion-{captions}")


def run(recipe: str, captions: str, seed: int, overrides: list[str]) -> dict:
    workdir, test = pathlib.Path(f"runs/seeds/{recipe}-{captions}-{seed}"), held_out(recipe, captions)
    scores, minutes = workdir / "scores.json", workdir / "minutes"
    if not scores.exists():
        began = time.time()
        groupvit("train", f"--config=configs/{recipe}.py", f"--workdir={workdir}", f"--config.seed={seed}",
                 f"--config.data.train[0].path=runs/{recipe}-{captions}/train-*.tar",
                 f"--config.eval.data_root=runs/{recipe}-{captions}", "--config.eval.every=0", *overrides)
        minutes.write_text(f"{(time.time() - began) / 60:.1f}")
        groupvit("eval", f"--checkpoint={workdir}", f"--tasks={recipe}", f"--data_root={test}", "--oracle",
                 f"--output={scores}")
    result = json.loads(scores.read_text())[recipe] | {"minutes": float(minutes.read_text())}
    oracle = result.pop("oracle")
    if recipe == "fashion":
        garments = list(result["iou"])[:ITEMS]
        result["garments"] = statistics.mean(result["iou"][name] for name in garments)
        result["garments_oracle"] = statistics.mean(oracle["iou"][name] for name in garments)
    return result | {"oracle": oracle["mIoU"]}


def main() -> None:
    recipe, *overrides = sys.argv[1:]
    kinds = [flag.partition("=")[2] for flag in overrides if flag.startswith("--captions=")] or ["true", "shuffled"]
    overrides = [flag for flag in overrides if not flag.startswith("--captions=")]
    for captions in kinds:
        groupvit("data", recipe, f"--output=runs/{recipe}-{captions}", f"--shuffle={captions == 'shuffled'}")
    if recipe == "scenes":
        groupvit("data", "scenes", f"--output={held_out(recipe, '')}", "--train=0", "--val=500", "--seed=1")
    rows = {captions: [run(recipe, captions, seed, overrides) for seed in range(3)] for captions in kinds}

    columns = COLUMNS | OWN[recipe] | {"minutes": "minutes"}
    print("\n| captions | seed | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for captions, results in rows.items():
        values = [[result[key] for key in columns.values()] for result in results]
        for seed, row in enumerate(values):
            print(f"| {captions} | {seed} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
        means = [sum(column) / len(column) for column in zip(*values, strict=True)]
        print(f"| **{captions}** | **mean** | " + " | ".join(f"**{value:.1f}**" for value in means) + " |")


if __name__ == "__main__":
    main()
