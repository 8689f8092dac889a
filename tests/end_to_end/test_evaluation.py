"""Evaluation in processes of its own: several hosts say exactly what one says."""

import json

import numpy as np
import pytest
import tiny_run
from processes import groupvit, together

from groupvit_jax.drawn import scenes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """evaluate(name, processes, devices) -> (scores, confusion, what was printed) of a saved run on 6 scenes, one of
    which is broken."""
    folder = tmp_path_factory.mktemp("evaluation")
    scenes.write(folder / "scenes", train=0, val=6, size=32, workers=1)
    tiny_run.save(folder / "saved", tiny_run.config())
    (folder / "scenes/VOCdevkit/scenes/SegmentationClass/val_000004.png").write_bytes(b"no mask")

    def run(name, processes, devices):
        output = folder / f"{name}.json"
        start = lambda *flags: groupvit(  # noqa: E731
            folder, "eval", f"--checkpoint={folder}/saved", "--tasks=scenes", f"--data_root={folder}/scenes",
            "--oracle", "--skip_bad", f"--output={output}", *flags, devices=devices)
        printed = together(start, processes)
        return json.loads(output.read_text())["scenes"], np.load(folder / f"{name}.scenes.npy"), printed

    return run


@pytest.fixture(scope="module")
def alone(evaluate):
    return evaluate("alone", 1, 1)


@pytest.mark.parametrize("processes, devices", [(2, 1), (2, 2), (4, 1)])
def test_the_counts_of_several_hosts_are_exactly_those_of_one(evaluate, alone, processes, devices):
    expected, confusion, _ = alone
    scores, counts, printed = evaluate(f"{processes}x{devices}", processes, devices)
    np.testing.assert_array_equal(counts, confusion)
    assert scores.pop("confusion") != expected["confusion"]
    assert scores == {name: value for name, value in expected.items() if name != "confusion"}
    assert scores["images"] == 5 and "val_000004.png" in scores["skipped"][0]
    assert sum("scenes: mIoU" in text for text in printed) == 1  # one speaks for all
