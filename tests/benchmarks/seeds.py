"""What text teaches: a recipe with true and with shuffled captions, three seeds, scored on scenes that chose nothing.
Prints a markdown table; a run that is there already is not repeated.

    python tests/benchmarks/seeds.py scenes|fashion [--captions=true|shuffled] [--config.train.steps=200 ...]

`fashion` wants the package dataset-fashion-mnist, and adds top-1 on the single test photographs.
"""

import io
import json
import pathlib
import subprocess
import sys
import tarfile
import time

import numpy as np
from PIL import Image

ITEMS = 10  # the first classes of fashion: garments, the others are grounds
COLUMNS = {"mIoU": "mIoU", "without the rule of five": "mIoU_plain", "oracle names": "oracle",
           "best constant class": "constant", "groups in use": "groups_used"}
OWN = {"scenes": {}, "fashion": {"mIoU of garments": "garments", "top-1, single photographs": "top1"}}


def groupvit(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", "from groupvit_jax.cli.main import main; main()", *arguments], check=True)


def singles(workdir: pathlib.Path, folder: pathlib.Path) -> float:
    """Zero-shot top-1 in percent on the single photographs in a folder of tars, with the protocol's prompt."""
    import groupvit_jax
    from groupvit_jax.evals import classes

    model, right = groupvit_jax.load(workdir), []
    texts = model.encode_text([f"a photo of a {name}." for name in classes.names("fashion")[:ITEMS]])  # [10 d]
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found = {member.name: tar.extractfile(member).read() for member in tar}
        labels = [int(data) for name, data in found.items() if name.endswith(".cls")]
        images = [Image.open(io.BytesIO(data)) for name, data in found.items() if name.endswith(".png")]
        embeddings = model.encode_image(np.stack(images))  # [b d]
        right += (np.asarray(embeddings @ texts.T).argmax(axis=1) == labels).tolist()
    return 100 * float(np.mean(right))


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
        groupvit("eval", f"--checkpoint={workdir}", f"--tasks={recipe}", f"--data_root={test}", f"--output={scores}")
    result = json.loads(scores.read_text())[recipe] | {"minutes": float(minutes.read_text())}
    if recipe == "fashion":
        result["garments"] = float(np.mean(list(result["iou"].values())[:ITEMS]))
        result["top1"] = singles(workdir, test / "singles")
    return result


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
