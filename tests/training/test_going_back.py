"""Steps whose loss is no number, made to happen in real trainings: they are skipped, gone back from, and told of."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from groupvit_jax.drawn import scenes
from groupvit_jax.errors import InputError
from groupvit_jax.training import checkpoint, loop, skips
from groupvit_jax.training import step as steps

CHANGES = {
    "model.image.image_size": 32, "model.image.patch_size": 8, "model.text.vocabulary": 49408, "model.text.length": 16,
    "data.prompts": 1, "data.tagger": "pattern", "train.steps": 14, "train.warmup_steps": 1, "train.log_every": 1,
    "train.skip_limit": 3, "checkpoint.every": 2, "checkpoint.keep": 9, "mesh.data": 1, "mesh.fsdp": 8,
}

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skips")
    scenes.write(folder / "scenes", train=40, val=0, size=32, workers=1)
    config = tiny.config(**{name.replace(".", "__"): value for name, value in CHANGES.items()})
    config.data.train[0].path = f"{folder}/scenes/train-*.tar"
    return config


@pytest.fixture
def poison(monkeypatch):
    """`poison(4, 5)`: the loss of steps 4 and 5 is no number, as the batch's own might be."""

    def of(*numbers):
        train_step, contrastive, now = steps.train_step, steps.contrastive, {}

        def step(*args):
            now["bad"] = jnp.isin(args[-2].step + 1, jnp.array(numbers))
            return train_step(*args)

        def loss(*args, **how):
            value, metrics = contrastive(*args, **how)
            value = jnp.where(now["bad"], jnp.nan, value)
            return value, metrics | {"loss": value}

        monkeypatch.setattr(loop.programs, "train_step", step)
        monkeypatch.setattr(steps, "contrastive", loss)

    return of


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row for row in map(json.loads, lines) if "loss" in row}


def assert_finite(variables):
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(variables))


def test_a_few_are_skipped_and_counted(config, poison, tmp_path, caplog):
    poison(4, 5, 9)
    last = loop.train(config, str(tmp_path))
    assert last["skipped_steps"] == 3 and math.isfinite(last["loss"])
    assert [n for n, row in rows(tmp_path).items() if row["loss"] is None] == [4, 5, 9]
    assert "step 5 is skipped: its loss nan" in caplog.text and "(2 in a row, at most 3)" in caplog.text
    assert_finite(checkpoint.load(str(tmp_path)).variables)


def test_too_many_in_a_row_go_back_to_the_checkpoint_before_them_and_on_with_the_next_batches(
        config, poison, tmp_path, caplog):
    poison(5, 6, 7)
    last = loop.train(config, str(tmp_path))
    assert "going back to the weights of step 4, and on with the batches after step 8" in caplog.text
    assert [n for n, row in rows(tmp_path).items() if row["loss"] is None] == [5, 6, 7]
    assert math.isfinite(last["loss"]) and list(rows(tmp_path)) == list(range(1, 15))
    loaded = checkpoint.load(str(tmp_path))
    assert loaded.step == 14
    assert_finite(loaded.variables)


def test_the_state_gone_back_to_has_the_weights_of_then_and_the_counts_of_now(config, tmp_path):
    program = tiny.program(config, tiny.mesh(1, 8, 1))
    state = program.create()
    moved = skips.at_step(state, 9)
    assert int(moved.step) == 9
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(moved), strict=True):
        assert a.sharding == b.sharding
        np.testing.assert_array_equal(b, 9 if jnp.issubdtype(a.dtype, jnp.integer) else a)


@pytest.mark.parametrize("first", [1, 6])
def test_where_that_does_not_help_a_report_names_the_steps_and_what_their_batches_held(
        config, poison, tmp_path, first):
    """From the first step on there is no checkpoint to go back to; later there is, and it is met with the same."""
    poison(*range(first, 15))
    with pytest.raises(InputError, match="loss or gradient that is no number.*lower config.optim.lr.*report-") as said:
        loop.train(config, str(tmp_path))
    path, = tmp_path.glob("report-*.json")
    assert str(path) in str(said.value)
    found = json.loads(path.read_text())
    assert [of["step"] for of in found] == ([1, 2, 3] if first == 1 else [10, 11, 12])
    assert all(of["metrics"]["loss"] == "nan" and len(of["keys"]) == config.data.batch for of in found)
    assert all(key.startswith("gcc3m:") for of in found for key in of["keys"])
