"""Several seeds of one recipe: a run of each, and what they give together, read from what they wrote."""

import json

import jax
import pytest
import tiny

from groupvit_jax.drawn import scenes
from groupvit_jax.errors import InputError, RunAgain
from groupvit_jax.training import loop, seeds


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    scenes.write(folder, train=40, val=0, size=32, workers=1)
    config = tiny.config(
        seeds=(3, 5), model__text__vocabulary=49408, model__image__depths=(1, 0), model__image__group_tokens=(4, 0),
        model__image__output_groups=(4, 0), data__prompts=0, train__steps=2, train__warmup_steps=1, train__log_every=1,
        eval__every=1)
    config.data.train[0].path = f"{folder}/train-*.tar"
    return config


def make_evaluator(*_, **__):
    """Scores that depend on the weights."""
    return lambda variables: {"scenes": {"mIoU": sum(float(abs(x).sum()) for x in jax.tree.leaves(variables))}}


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    return workdir, seeds.train(config, str(workdir), make_evaluator)


def rows(workdir, seed):
    return [json.loads(line) for line in (workdir / f"seed-{seed}/metrics.jsonl").read_text().splitlines()]


def test_each_seed_is_a_run_of_its_own(trained, config):
    workdir, _ = trained
    for seed in (3, 5):
        content = json.loads((workdir / f"seed-{seed}/run.json").read_text())
        assert content["config"]["seed"] == seed and content["config"]["seeds"] == []
        assert [row["step"] for row in rows(workdir, seed) if "loss" in row] == [1, 2]
    assert rows(workdir, 3)[0]["loss"] != rows(workdir, 5)[0]["loss"]
    assert config.seeds == (3, 5)


def test_the_file_has_metrics_and_scores_of_the_last_step_by_seed(trained):
    workdir, result = trained
    assert json.loads((workdir / "seeds.json").read_text()) == result
    assert result["seeds"] == [3, 5] and result["step"] == 2
    for name in ("loss", "scenes/mIoU"):
        values = [row[name] for seed in (3, 5) for row in rows(workdir, seed) if row["step"] == 2 and name in row]
        assert result["results"][name]["values"] == values and len(set(values)) == 2
    assert not {"step", "images_per_second", "host_memory_gib", "compilations"} & result["results"].keys()


def test_run_again_it_trains_nothing_and_gives_the_same(trained, config):
    workdir, result = trained
    times = lambda: {path: path.stat().st_mtime_ns for path in workdir.glob("seed-*/**/*") if path.is_file()}  # noqa: E731
    before = times()
    assert seeds.train(config, str(workdir), make_evaluator) == result
    assert times() == before


def test_the_table_has_a_line_for_each_result_and_a_column_for_each_seed(trained):
    lines = seeds.table(trained[1]).splitlines()
    assert lines[1].split() == ["seed", "3", "seed", "5", "mean", "spread", "min", "max"]
    (scores,) = [line.split() for line in lines if line.startswith("scenes/mIoU")]
    result = trained[1]["results"]["scenes/mIoU"]
    assert scores[1:] == [f"{x:.4g}" for x in (*result["values"], result["mean"], result["spread"], result["min"],
                                               result["max"])]


def write(workdir, seed, *rows):
    folder = workdir / f"seed-{seed}"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_mean_spread_and_range_are_of_the_last_step_and_not_the_best(tmp_path):
    write(tmp_path, 0, {"step": 1, "scenes/mIoU": 90.0}, {"step": 2, "loss": 1.0}, {"step": 2, "scenes/mIoU": 1.0})
    write(tmp_path, 1, {"step": 2, "loss": 2.0}, {"step": 2, "scenes/mIoU": 5.0})
    write(tmp_path, 2, {"step": 2, "loss": 6.0})
    result = seeds.together(str(tmp_path), (0, 1, 2))["results"]
    assert result == {"loss": {"values": [1.0, 2.0, 6.0], "mean": 3.0, "spread": pytest.approx(7**0.5), "min": 1.0,
                               "max": 6.0}}  # a score that one lacks is left out
    assert seeds.together(str(tmp_path), (0, 1))["results"]["scenes/mIoU"]["values"] == [1.0, 5.0]
    assert seeds.together(str(tmp_path), (0,))["results"]["loss"]["spread"] == 0.0


def test_runs_that_end_at_different_steps_are_not_put_together(tmp_path):
    write(tmp_path, 0, {"step": 1, "loss": 1.0})
    write(tmp_path, 1, {"step": 2, "loss": 1.0})
    with pytest.raises(InputError, match=r"end at different steps \(1, 2\): .*another --workdir"):
        seeds.together(str(tmp_path), (0, 1))


@pytest.mark.parametrize("rows", [[], [{"loss": 1.0}]])
def test_a_run_without_results_is_named(tmp_path, rows):
    write(tmp_path, 0, *rows)
    with pytest.raises(InputError, match="seed-0/metrics.jsonl .*move its folder away"):
        seeds.together(str(tmp_path), (0,))


def test_a_run_that_is_to_go_on_later_leaves_the_others_for_then(config, tmp_path, monkeypatch):
    begun = []

    def preempted(one, *_):
        begun.append(one.seed)
        raise RunAgain("preempted")

    monkeypatch.setattr(loop, "train", preempted)
    with pytest.raises(RunAgain, match="preempted"):
        seeds.train(config, str(tmp_path))
    assert begun == [3] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [(1, 1), (0, -1), (1.5,), ("x",), (True, 2)])
def test_seeds_that_are_no_different_whole_numbers_are_refused(wrong):
    with pytest.raises(InputError, match=r"config.seeds=\(.*whole numbers from 0"):
        seeds.check(wrong)


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl", "run.json"])
def test_a_workdir_that_holds_a_single_run_is_refused(config, tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"holds a single run \\({name}\\): choose another --workdir"):
        seeds.train(config, str(tmp_path))
