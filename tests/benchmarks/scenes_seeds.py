"""What text teaches: the scenes recipe with true and with shuffled captions, three seeds, scored on scenes that chose
nothing. Prints the README's table; a run that is there already is not repeated.

    python tests/benchmarks/scenes_seeds.py [--config.train.steps=200 ...]
"""

import json
import pathlib
import subprocess
import sys
import time

OUT = pathlib.Path("runs/seeds")
COLUMNS = (("mIoU", "mIoU"), ("without the rule of five", "mIoU_plain"), ("oracle names", "oracle"),
           ("best constant class", "constant"), ("groups in use", "groups_used"))


def groupvit(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", "from groupvit_jax.cli.main import main; main()", *arguments], check=True)


def run(captions: str, seed: int, overrides: list[str]) -> dict:
    workdir = OUT / f"{captions}-{seed}"
    scores = workdir / "scores.json"
    began = time.time()
    if not scores.exists():
        groupvit("train", "--config=configs/scenes.py", f"--workdir={workdir}", f"--config.seed={seed}",
                 f"--config.data.train[0].path=runs/scenes-{captions}/train-*.tar",
                 f"--config.eval.data_root=runs/scenes-{captions}", *overrides)
        (workdir / "minutes").write_text(f"{(time.time() - began) / 60:.1f}")
        groupvit("eval", f"--checkpoint={workdir}", "--data_root=runs/scenes-test", f"--output={scores}")
    result = json.loads(scores.read_text())["scenes"]
    return result | {"minutes": float((workdir / "minutes").read_text())}


def main() -> None:
    for captions in ("true", "shuffled"):
        groupvit("data", "scenes", f"--output=runs/scenes-{captions}", f"--shuffle={captions == 'shuffled'}")
    groupvit("data", "scenes", "--output=runs/scenes-test", "--train=0", "--val=500", "--seed=1")
    rows = {captions: [run(captions, seed, sys.argv[1:]) for seed in range(3)] for captions in ("true", "shuffled")}

    print("\n| captions | seed | " + " | ".join(title for title, _ in COLUMNS) + " | top-1 | mAP | minutes |")
    print("|---" * (len(COLUMNS) + 5) + "|")
    for captions, results in rows.items():
        values = [[result[key] for _, key in COLUMNS] + [result["classification"]["top1"],
                  result["classification"]["mAP"], result["minutes"]] for result in results]
        for seed, row in enumerate(values):
            print(f"| {captions} | {seed} | " + " | ".join(f"{value:.1f}" for value in row) + " |")
        means = [sum(column) / len(column) for column in zip(*values, strict=True)]
        print(f"| **{captions}** | **mean** | " + " | ".join(f"**{value:.1f}**" for value in means) + " |")


if __name__ == "__main__":
    main()
