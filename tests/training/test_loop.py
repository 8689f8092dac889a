"""The loop as a whole, in this process: what compiles, and what a run remembers."""

import json

import pytest
import tiny

from groupvit_jax.data import scenes
from groupvit_jax.errors import InputError
from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.training import loop

CHANGES = {
    "model.image.image_size": 32, "model.image.patch_size": 8, "model.text.vocabulary": 49408, "model.text.length": 16,
    "data.prompts": 1, "train.steps": 3, "train.warmup_steps": 1, "train.log_every": 1, "checkpoint.every": 2,
    "eval.every": 2, "eval.tasks": ("scenes",), "eval.size": 32, "eval.window": 32, "eval.stride": 16,
    "checkpoint.keep": 1, "checkpoint.best": ("scenes/accuracy",),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loop")
    scenes.write(folder / "scenes", train=40, val=10, size=32, workers=1)
    config = tiny.config(**CHANGES, eval__data_root=str(folder / "scenes"))
    config.data.train[0].path = f"{folder}/scenes/train-*.tar"
    return config


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """(workdir, the jitted steps, the evaluators) of a run of three steps that was resumed for two more."""
    workdir, jitted, evaluators = tmp_path_factory.mktemp("run"), [], []
    make_step, patch = loop.steps.compile_step, pytest.MonkeyPatch()
    patch.setattr(loop.steps, "compile_step", lambda *args: jitted.append(make_step(*args)) or jitted[-1])

    def make_evaluator(*args, **more):
        evaluators.append(Evaluator.from_config(*args, **more))
        return evaluators[-1]

    with patch.context():
        loop.train(config, str(workdir), make_evaluator)
        config.train.steps = 5
        loop.train(config, str(workdir), make_evaluator)
    patch.undo()
    return workdir, jitted, evaluators


def test_the_step_compiles_once_fresh_and_resumed(trained):
    assert [step._cache_size() for step in trained[1]] == [1, 1]


def test_evaluation_compiles_two_programs(trained):
    for evaluator in trained[2]:
        assert [program._cache_size() for program in (evaluator.text.project, evaluator.count)] == [1, 1]


def test_metrics_hold_each_step_once_and_the_scores_of_evaluation(trained):
    rows = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5]
    scored = [row for row in rows if "scenes/mIoU" in row]
    assert [row["step"] for row in scored] == [2, 3, 4, 5]  # every second step, and the end of each run
    assert {"scenes/accuracy", "scenes/image_top1", "scenes/constant"} <= scored[0].keys()


def test_the_newest_and_the_best_checkpoint_are_kept(trained):
    rows = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["scenes/accuracy"] for row in rows if "scenes/accuracy" in row}
    best = max(scores, key=scores.get)
    kept = sorted(int(path.name) for path in (trained[0] / "checkpoints").iterdir())
    assert kept[-1] == 5 and len(kept) <= 2 and max(kept, key=scores.get) == best or scores[kept[0]] == scores[best]


def test_a_best_that_no_evaluation_gives_is_refused(config):
    changes = [{"checkpoint.best": (name,)} for name in ("voc/mIoU", "scenes", "scenes/miou")] + [{"eval.every": 0}]
    for change in changes:
        with config.unlocked():
            wrong = config.copy_and_resolve_references()
        wrong.update_from_flattened_dict(change)
        with pytest.raises(InputError, match="config.checkpoint.best has"):
            loop.check_best(wrong)


def test_a_run_remembers_the_tagger_that_auto_stood_for(trained, config):
    assert config.data.tagger == "auto"
    with pytest.raises(InputError, match="config.data.tagger=(pattern|nltk), not other"):
        saved = loop.Checkpoints(str(trained[0])).meta(5)["config"]
        config.data.tagger = "other"
        loop.check_same_model(config, saved, str(trained[0]))
