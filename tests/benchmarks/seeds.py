"""What text teaches: a recipe with true and with shuffled captions, three seeds, scored on scenes that chose nothing.
Prints the tables of docs/evaluation.md; a run that is there already is not repeated.

    python tests/benchmarks/seeds.py scenes|fashion [--captions=true|shuffled] [--config.train.steps=200 ...]

`fashion` wants the package dataset-fashion-mnist, and adds top-1 on the single test photographs.
"""

import datetime
import json
import pathlib
import statistics
import subprocess
import sys

SEEDS = (0, 1, 2)
ITEMS = 10  # the first classes of fashion: garments, the others are grounds
COMMON = {"mIoU": "mIoU", "oracle names": "oracle", "best constant class": "constant"}
COLUMNS = {"scenes": COMMON | {"groups in use": "groups_used", "top-1": "image_top1"},
           "fashion": COMMON | {"mIoU of garments": "garments", "their oracle": "garments_oracle", "top-1": "top1",
                                "top-5": "top5"}}


def groupvit(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", "from groupvit_jax.cli.main import main; main()", *arguments], check=True)


def train(recipe: str, captions: str, overrides: list[str]) -> list[dict]:
    """The held-out scores of each seed."""
    data, workdir = f"runs/{recipe}-{captions}", pathlib.Path(f"runs/seeds/{recipe}-{captions}")
    groupvit("data", recipe, f"--output={data}", f"--shuffle={captions == 'shuffled'}")
    groupvit("train", f"--config=configs/{recipe}.py", f"--workdir={workdir}", f"--config.seeds={SEEDS}",
             f"--config.data.train[0].path={data}/train-*.tar", f"--config.eval.data_root={data}",
             "--config.eval.every=0", *overrides)
    # Scenes that chose nothing: of scenes another seed's, of fashion the validation set, which nothing looks at.
    held_out = "runs/scenes-test" if recipe == "scenes" else data
    return [evaluate(recipe, workdir / f"seed-{seed}", held_out) for seed in SEEDS]


def evaluate(recipe: str, run: pathlib.Path, held_out: str) -> dict:
    scores = run / "scores.json"
    if not scores.exists():
        groupvit("eval", f"--checkpoint={run}", f"--tasks={recipe}", f"--data_root={held_out}", "--oracle",
                 f"--output={scores}")
    result = json.loads(scores.read_text())[recipe]
    oracle = result.pop("oracle")
    if recipe == "fashion":
        garments = list(result["iou"])[:ITEMS]
        result["garments"] = statistics.mean(result["iou"][name] for name in garments)
        result["garments_oracle"] = statistics.mean(oracle["iou"][name] for name in garments)
    return result | {"oracle": oracle["mIoU"], "minutes": minutes(run)}


def minutes(run: pathlib.Path) -> float:
    """How long it trained, in the starts that ended in order."""
    when = datetime.datetime.fromisoformat
    starts = json.loads((run / "run.json").read_text())["starts"]
    times = [when(start["ended"]["time"]) - when(start["time"]) for start in starts if "ended" in start]
    return sum(times, datetime.timedelta()).total_seconds() / 60


def main() -> None:
    recipe, *overrides = sys.argv[1:]
    kinds = [flag.partition("=")[2] for flag in overrides if flag.startswith("--captions=")] or ["true", "shuffled"]
    overrides = [flag for flag in overrides if not flag.startswith("--captions=")]
    if recipe == "scenes":
        groupvit("data", "scenes", "--output=runs/scenes-test", "--train=0", "--val=500", "--seed=1")
    results = {captions: train(recipe, captions, overrides) for captions in kinds}

    columns = COLUMNS[recipe]
    print("\n| captions | seed | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for captions, runs in results.items():
        values = [[run[key] for key in columns.values()] for run in runs]
        for seed, row in zip(SEEDS, values, strict=True):
            print(f"| {captions} | {seed} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
        means = map(statistics.mean, zip(*values, strict=True))
        print(f"| **{captions}** | **mean** | " + " | ".join(f"**{value:.1f}**" for value in means) + " |")
    spent = [f"{run['minutes']:.1f}" for runs in results.values() for run in runs]
    print(f"\nminutes of training: {' '.join(spent)}")


if __name__ == "__main__":
    main()
