"""A run of each of several seeds, as a person starts it, in two processes that are one training."""

import json

import pytest
from processes import together

pytestmark = pytest.mark.slow


def test_two_processes_train_each_seed_and_the_first_says_what_they_give_together(trainings):
    few = ["--config.seeds=[0,4]", "--config.train.steps=2", "--config.train.warmup_steps=1"]
    first, second = together(lambda *flags: trainings.start("seeds", *few, *flags), 2)
    result = json.loads((trainings.folder / "seeds/seeds.json").read_text())
    assert result["seeds"] == [0, 4] and result["step"] == 2
    losses = [trainings.rows(f"seeds/seed-{seed}")[-1]["loss"] for seed in (0, 4)]
    assert result["results"]["loss"]["values"] == losses
    assert "seed 0    seed 4      mean    spread" in first and "spread" not in second
