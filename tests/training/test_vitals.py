"""The numbers watched: on hand-made groups and embeddings, and on trainings that go well and that do not."""

import json
import math

import jax
import numpy as np
import pytest
import tiny

from groupvit_jax.drawn import scenes
from groupvit_jax.errors import InputError
from groupvit_jax.training import loop, vitals
from groupvit_jax.training.vitals import Collapse

# ---------------------------------------------------------------- groups and embeddings


def of_groups(*tokens):
    """Of one image with a distribution over groups a token."""
    found = vitals.of_groups(0, np.array(tokens, np.float32).T[None])
    assert all(x.shape == (1,) and x.dtype == np.float32 for x in found.values())
    return {name.removesuffix("_0"): float(x[0]) for name, x in found.items()}


def test_a_group_is_in_use_that_wins_a_token_and_the_largest_has_its_share():
    found = of_groups([0.6, 0.4, 0.0], [0.6, 0.4, 0.0], [0.9, 0.0, 0.1], [0.0, 0.1, 0.9])
    assert found["groups_used"] == 2 and found["largest_group"] == 0.75


def test_all_tokens_in_one_group_are_one_group_in_use():
    found = of_groups([0.0, 1.0], [0.0, 1.0], [0.4, 0.6])
    assert found["groups_used"] == 1 and found["largest_group"] == 1


def test_entropy_is_1_where_a_token_could_be_of_any_group_and_0_where_it_is_sure():
    assert of_groups([0.25] * 4, [0.25] * 4)["assignment_entropy"] == pytest.approx(1)
    assert of_groups([0, 1, 0, 0], [0, 0, 0, 1])["assignment_entropy"] == 0
    assert of_groups([0.5, 0.5, 0, 0], [0, 0, 0, 1])["assignment_entropy"] == pytest.approx(0.25)  # log 2 / log 4 / 2


def test_a_single_group_has_no_entropy():
    assert of_groups([1.0], [1.0])["assignment_entropy"] == 0


def test_images_have_their_own_numbers():
    both = np.array([[[1, 1], [0, 0]], [[1, 0], [0, 1]]], np.float32)  # [b g n]
    assert vitals.of_groups(3, both)["groups_used_3"].tolist() == [1, 2]


def test_stages_that_do_not_group_have_no_numbers():
    assert vitals.stages((64, 0, 8, 0)) == [0, 2]


def test_the_spread_of_orthogonal_embeddings_is_nearly_1_whatever_their_lengths():
    lengths = np.linspace(0.1, 10, 64)[:, None].astype(np.float32)
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0].astype(np.float32)
    assert vitals.spread(np.eye(64, dtype=np.float32) * lengths) == pytest.approx(math.sqrt(1 - 1 / 64), rel=1e-5)
    assert 0.97 < vitals.spread(directions * lengths) <= 1.0


def test_the_spread_of_equal_embeddings_is_0_whatever_their_lengths():
    embedding = np.random.default_rng(0).normal(size=32).astype(np.float32)
    assert vitals.spread(embedding * np.linspace(0.1, 10, 16)[:, None].astype(np.float32)) < 1e-5


# ---------------------------------------------------------------- the rule

GOOD = {"image_spread": 0.8, "text_spread": 0.7, "groups_used_0": 5.0, "groups_used_1": 1.0}
GROUPS = (8, 1, 0)


@pytest.fixture
def collapse():
    return lambda rule="stop": Collapse(rule, warmup=10, groups=GROUPS)


@pytest.mark.parametrize("name, value", [("image_spread", 0.02), ("text_spread", 0.02), ("groups_used_0", 1.01)])
def test_each_number_that_stays_low_stops_a_run_in_one_line_with_the_remedy(collapse, name, value):
    rule = collapse()
    for n in (20, 30):
        rule.check(n, GOOD | {name: value})
    with pytest.raises(InputError, match=rf"step 40: .*{name} {value}.*lower config.optim.lr") as raised:
        rule.check(40, GOOD | {name: value})
    assert "\n" not in str(raised.value) and "train.collapse=warn" in str(raised.value)


def test_healthy_rows_a_single_group_and_rows_without_numbers_stop_nothing(collapse):
    rule = collapse()
    for n in range(20, 100, 10):
        rule.check(n, GOOD if n < 60 else {"loss": 1.0})


def test_low_rows_apart_or_in_the_warm_up_stop_nothing(collapse):
    rule = collapse()
    for n in range(1, 11):
        rule.check(n, GOOD | {"image_spread": 0.0})
    for n in range(11, 100):
        rule.check(n, GOOD | {"image_spread": 0.8 if n % 3 == 1 else 0.0})


def test_skipped_steps_neither_are_a_collapse_nor_end_one(collapse):
    rule, nothing = collapse(), GOOD | {"image_spread": math.nan, "groups_used_0": 0.0, "skipped": 1.0}
    for n in range(20, 60, 10):
        rule.check(n, nothing)
    for n in (60, 80):
        rule.check(n, GOOD | {"image_spread": 0.0})
        rule.check(n + 10, nothing)
    with pytest.raises(InputError):
        rule.check(100, GOOD | {"image_spread": 0.0})


def test_warn_warns_once_a_collapse(collapse, caplog):
    rule = collapse("warn")
    low = [GOOD | {"text_spread": 0.01}] * 6
    for n, values in enumerate([*low, GOOD, *low], 20):
        rule.check(n, values)
    said = [record.getMessage() for record in caplog.records if "collapsed" in record.getMessage()]
    assert [line.split(":")[0] for line in said] == ["step 22", "step 29"] and "text_spread 0.01" in said[0]


def test_off_says_nothing(collapse, caplog):
    rule = collapse("off")
    for n in range(20, 30):
        rule.check(n, GOOD | {"text_spread": 0.01})
    assert not caplog.records


def test_another_rule_is_an_input_error(collapse):
    with pytest.raises(InputError, match="config.train.collapse='halt': use 'off', 'warn' or 'stop'"):
        collapse("halt")


# ---------------------------------------------------------------- on trainings


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Trains on scenes with a weight decay; then `Collapse` looks at the rows."""
    folder = tmp_path_factory.mktemp("vitals")
    scenes.write(folder / "scenes", train=200, val=1, size=32, workers=1)

    def train(decay):
        config = tiny.config(**{name.replace(".", "__"): value for name, value in {
            "model.image.image_size": 32, "model.image.patch_size": 8, "model.image.drop_path": 0.0,
            "model.image.depths": (1, 0), "model.image.group_tokens": (4, 0), "model.image.output_groups": (4, 0),
            "model.text.vocabulary": 49408, "model.text.length": 16, "data.prompts": 0, "augment.erase": 0.0,
            "optim.lr": 1e-3, "optim.weight_decay": decay, "optim.lr_batch": 16,
            "train.steps": 24, "train.warmup_steps": 4, "train.log_every": 2, "train.collapse": "off",
            "checkpoint.every": 1000}.items()})
        config.data.train[0].path = f"{folder}/scenes/train-*.tar"
        loop.train(config, str(folder / str(decay)))
        rule = Collapse("stop", config.train.warmup_steps, config.model.image.output_groups)
        for line in (folder / str(decay) / "metrics.jsonl").read_text().splitlines():
            row = json.loads(line)
            rule.check(row["step"], row)

    return train


def test_a_training_whose_decay_takes_all_weights_to_0_collapses(check):
    """At the peak of the rate, 1e-3, a step takes away all of every matrix."""
    with pytest.raises(InputError, match="image_spread .*text_spread .*groups_used_0 1 "):
        check(1000.0)


def test_a_healthy_training_does_not(check):
    check(0.05)


# ---------------------------------------------------------------- the report


def test_a_report_holds_every_skipped_step_as_valid_json_with_the_keys_of_its_batch(tmp_path):
    rows = {8: {"loss": math.inf, "accuracy": 0.5}, 7: {"loss": math.nan, "accuracy": 0.25}}
    path = vitals.report(str(tmp_path), rows, lambda n: [f"scenes:{n}"])
    assert path == tmp_path / "report-8.json" and [p.name for p in tmp_path.iterdir()] == [path.name]
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == [
        {"step": 7, "metrics": {"loss": "nan", "accuracy": 0.25}, "keys": ["scenes:7"]},
        {"step": 8, "metrics": {"loss": "inf", "accuracy": 0.5}, "keys": ["scenes:8"]}]


def test_keys_of_a_report_are_written_as_they_are(tmp_path):
    path = vitals.report(str(tmp_path), {1: jax.tree.map(float, {"loss": -math.inf})}, lambda n: ["a:ü/1"])
    assert json.loads(path.read_text())[0] == {"step": 1, "metrics": {"loss": "-inf"}, "keys": ["a:ü/1"]}


def test_of_large_parameters_an_eighth_is_sampled_of_small_ones_all_and_of_the_token_table_nothing():
    small, large = np.ones((9, 3)), np.ones((513, 256))
    taken = vitals.sampled({"a": {"kernel": small}, "b": {"kernel": large}, "c": {"embedding": small}})
    assert [x.shape for x in taken] == [(9, 3), (65, 256)]
