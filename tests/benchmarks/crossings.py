"""What crossing to PyTorch and back costs at the published size, and how far segment.py agrees with us.

    python tests/benchmarks/crossings.py
    python tests/benchmarks/crossings.py --checkpoint=runs/quickstart --images="runs/scenes-test/**/val_0000??.jpg" \\
        --classes=sky,grass,sand,night,road,zebra,brick,coin,leaf,banana,plum,fish,strawberry,flower,kite

The first form makes an original training checkpoint with random weights, imports it and exports it in every format,
each with its proof, in processes of their own. The second exports a model and counts the pixels that the exported
segment.py labels otherwise than `Model.segment`: without background, with the protocol's, and with words by TCL's
protocol.
"""

import argparse
import glob
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
FORMATS = {"hf": "hf", "nvlabs": "weights.pth", "stablehlo": "stablehlo", "onnx": "onnx"}


def groupvit(*arguments: str) -> tuple[float, float]:
    """Runs a command -> its seconds and the most memory it had, in GB."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", "from groupvit_jax.cli.main import main; main()", *arguments],
                               env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, arguments
    return time.perf_counter() - began, usage.ru_maxrss / 1e6


def costs(folder: pathlib.Path) -> None:
    sys.path += [str(ROOT), str(ROOT / "interop")]
    import original
    import port
    import torch

    state = original.state_dict({name: x.numpy() for name, x in port.make_port(port.PUBLISHED).state_dict().items()})
    torch.save({"model": {name: torch.from_numpy(x) for name, x in state.items()}}, folder / "group_vit.pth")
    print(f"{'command':20s} {'seconds':>8s} {'GB':>5s}")
    runs = {"import": ["import", f"--source={folder}/group_vit.pth", f"--output={folder}/imported"]}
    runs |= {f"export {form}": ["export", f"--checkpoint={folder}/imported", f"--format={form}",
                                f"--output={folder}/{name}"] for form, name in FORMATS.items()}
    for name, arguments in runs.items():
        seconds, memory = groupvit(*arguments)
        print(f"{name:20s} {seconds:8.1f} {memory:5.1f}", flush=True)


def agreement(folder: pathlib.Path, checkpoint: str, images: str, classes: list[str]) -> None:
    import numpy as np
    from PIL import Image

    import groupvit_jax as gv

    groupvit("export", f"--checkpoint={checkpoint}", "--format=hf", f"--output={folder}/hf")
    spec = importlib.util.spec_from_file_location("segment", folder / "hf" / "segment.py")
    segment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(segment)
    model, theirs, pixels, other = gv.load(checkpoint), segment.Segmenter(), 0, 0
    paths = sorted(glob.glob(images, recursive=True))
    for path in paths:
        image = Image.open(path).convert("RGB")
        for background, protocol in ((False, "groupvit"), (True, "groupvit"), (f"{classes[0]}; something", "tcl")):
            ours = model.segment(image, classes, background, protocol).labels
            other += int((ours != theirs.segment(image, classes, background, protocol).labels).sum())
            pixels += np.prod(ours.shape)
    print(f"{other:,} of {pixels:,} pixels of {len(paths)} pictures, each three ways, are labelled otherwise")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint")
    parser.add_argument("--images")
    parser.add_argument("--classes", type=lambda text: text.split(","))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if asked.checkpoint:
            agreement(pathlib.Path(made), asked.checkpoint, asked.images, asked.classes)
        else:
            costs(pathlib.Path(made))
