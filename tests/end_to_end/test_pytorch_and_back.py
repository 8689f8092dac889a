"""From a training here to PyTorch and back to a training: every step as a person types it."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from processes import groupvit

from groupvit_jax.training import checkpoint

AT_NO_RATE = ("--config.train.steps=2", "--config.train.warmup_steps=1", "--config.optim.lr=0.0",
            "--config.optim.lr_start=0.0", "--config.optim.lr_end=0.0")


@pytest.fixture(scope="module")
def call(folder):
    def call(*arguments):
        process = groupvit(folder, *arguments)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0 and "Traceback" not in output, output
        return output

    return call


@pytest.mark.slow
def test_trained_here_segmented_in_pytorch_and_trained_on(trainings, call, folder):
    trainings.run("crossing", "--config.train.steps=10", "--config.eval.every=10")
    said = call("export", f"--checkpoint={folder}/crossing", "--format=hf", f"--output={folder}/hf")
    assert "DIFFERS" not in said and "logits" in said
    card = (folder / "hf" / "README.md").read_text()
    assert "10 steps of 16 pairs" in card and "| scenes mIoU |" in card

    photo = sorted((folder / "scenes/VOCdevkit/scenes/JPEGImages").glob("*.jpg"))[0]
    asked = ["--classes=zebra,sand,sky", "--background"]  # of so short a training one group, at least, is no background
    call("segment", f"--checkpoint={folder}/crossing", f"--images={photo}", *asked, "--views=labels",
         f"--output={folder}/ours")
    subprocess.run([sys.executable, "-I", folder / "hf/segment.py", photo, *asked, f"--output={folder}/theirs.png"],
                   check=True, capture_output=True, timeout=100)
    ours, theirs = (np.array(Image.open(folder / name)) for name in (f"ours/{photo.stem}.labels.png", "theirs.png"))
    assert ours.shape == theirs.shape and len(np.unique(ours)) > 1
    assert (ours == theirs).mean() > 0.999

    assert "wrote" in call("import", f"--source={folder}/hf", f"--output={folder}/imported")
    scores = [call("eval", f"--checkpoint={folder}/{name}", "--tasks=scenes", f"--data_root={folder}/scenes")
              for name in ("crossing", "hf", "imported")]
    scores = [said.partition("in all")[2] for said in scores]  # behind the progress
    assert "mIoU" in scores[0] and scores[0] == scores[1] == scores[2]

    said = trainings.run("tuned", f"--config.init_from={folder}/hf", *AT_NO_RATE)
    assert "tensors from" in said and "(step 10)" in said
    before, after = (checkpoint.load(f"{folder}/{name}").variables["params"] for name in ("crossing", "tuned"))
    np.testing.assert_array_equal(before["image"]["stage0_tokens"], after["image"]["stage0_tokens"])
    assert "choose another --workdir" in trainings.run("imported", code=2)
