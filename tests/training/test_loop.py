"""The loop as a whole, in this process: what compiles, in which order things happen, and what a run remembers."""

import itertools
import json
import threading

import pytest
import tiny

from groupvit_jax.drawn import scenes
from groupvit_jax.errors import InputError
from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.training import loop, speed
from groupvit_jax.training import plan as plans

CHANGES = {
    "model.image.image_size": 32, "model.image.patch_size": 8, "model.text.vocabulary": 49408, "model.text.length": 16,
    "data.prompts": 1, "train.steps": 3, "train.warmup_steps": 1, "train.log_every": 1, "checkpoint.every": 2,
    "eval.every": 2, "eval.tasks": ("scenes",), "eval.size": 32, "eval.window": 32, "eval.stride": 16,
    "checkpoint.keep": 1, "checkpoint.best": ("scenes/accuracy",), "train.profile": (2, 3),
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
    build, patch = loop.programs.build, pytest.MonkeyPatch()

    def watched(*args):
        program = build(*args)
        jitted.append(program.step)
        return program

    patch.setattr(loop.programs, "build", watched)

    def make_evaluator(*args, **more):
        evaluators.append(Evaluator.from_config(*args, **more))
        return evaluators[-1]

    with patch.context():
        loop.train(config, str(workdir), make_evaluator)
        config.train.steps = 5
        loop.train(config, str(workdir), make_evaluator, force=True)
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


def test_told_to_stop_at_its_last_step_a_run_is_evaluated_all_the_same(config, tmp_path, monkeypatch):
    config = config.copy_and_resolve_references()
    config.train.steps, config.train.profile = 2, ()
    monkeypatch.setattr(loop.Notice, "given", lambda notice, n: n == 2)
    assert "scenes/accuracy" in loop.train(config, str(tmp_path), Evaluator.from_config)


def test_a_best_that_no_evaluation_gives_is_refused(config):
    changes = [{"checkpoint.best": (name,)} for name in ("voc/mIoU", "scenes", "scenes/miou")] + [{"eval.every": 0}]
    for change in changes:
        with config.unlocked():
            wrong = config.copy_and_resolve_references()
        wrong.update_from_flattened_dict(change)
        with pytest.raises(InputError, match="config.checkpoint.best has"):
            plans.check_best(wrong)


def test_a_run_remembers_the_tagger_that_auto_stood_for(trained, config):
    assert config.data.tagger == "auto"
    assert loop.Checkpoints(str(trained[0])).meta(5)["config"]["data"]["tagger"] in ("pattern", "nltk")


def test_a_trace_is_written(trained):
    assert len(list((trained[0] / "profile").rglob("*.xplane.pb"))) == 1  # the second run began behind them


def test_each_row_says_how_fast_it_went(trained):
    rows = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    rows = {row["step"]: row for row in rows if "loss" in row}
    assert all(row["compilations"] == 1 and row["host_memory_gib"] > 0.1 for row in rows.values())
    assert [n for n, row in rows.items() if "images_per_second" not in row] == [1, 4]  # they compiled
    for n in (2, 3, 5):
        assert 0 < rows[n]["images_per_second_per_chip"] == rows[n]["images_per_second"] / 8
        assert rows[n]["tflops_per_chip"] > 0 and 0 <= rows[n]["input_wait"] <= 100
        assert not {"peak_share", "device_memory_gib"} & rows[n].keys()  # not known of a CPU


# ---------------------------------------------------------------- order


@pytest.fixture(scope="module")
def events(config, tmp_path_factory):
    """What happened in six steps of which the 4th and the last are stops (evaluated and saved) and every second is
    logged, as (what, step). No step is done before the next batch is placed, but at stops; the first takes 2 seconds,
    or until the third is dispatched."""
    with config.unlocked():
        config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({"train.steps": 6, "train.log_every": 2, "eval.every": 4, "checkpoint.every": 4,
                                       "checkpoint.best": (), "train.profile": (), "data.tagger": "pattern"})
    found, patch, placed = [], pytest.MonkeyPatch(), [threading.Event() for _ in range(8)]
    dispatched, done, third = itertools.count(1), itertools.count(1), threading.Event()

    def note(what, step):
        found.append((what, step))

    def spy(owner, name, tell):
        kept = getattr(owner, name)
        patch.setattr(owner, name, lambda *args, **more: (tell(*args, **more), kept(*args, **more))[1])

    def fetched(*args, stream=loop.pipeline.stream):
        for n, batch in enumerate(stream(*args), 1):
            note("fetch", n)
            yield batch

    def done_at(metrics, done_at=speed.done_at):
        n = next(done)
        assert n in (4, 6) or placed[n].wait(60), f"step {n} is waited for, and batch {n + 1} not yet placed"
        assert n > 1 or not third.wait(2), "the third step is dispatched before the first is done"
        time = done_at(metrics)
        note("done", n)
        return time

    def place(mesh, batch):
        placed[sum(event.is_set() for event in placed)].set()

    def ran(pace, metrics):
        note("dispatched", n := next(dispatched))
        if n == 3:
            third.set()

    patch.setattr(loop.pipeline, "stream", fetched)
    patch.setattr(speed, "done_at", done_at)
    spy(loop.parallel, "to_global", place)
    spy(speed.Speed, "ran", ran)
    spy(loop.MetricWriter, "write", lambda writer, n, values: note(
        "log" if "loss" in values else "stall" if "checkpoint_stall" in values else "scores", n))
    spy(loop.Checkpoints, "save", lambda checkpoints, state, *_, **__: note("save", int(state.step)))
    with patch.context():
        loop.train(config, str(tmp_path_factory.mktemp("order")), lambda *_, **__: lambda _: {"scenes": {"mIoU": 1.0}})
    patch.undo()
    return found


def test_a_step_is_waited_for_only_when_the_next_batch_is_on_its_way(events):
    assert [n for what, n in events if what == "done"] == [1, 2, 3, 4, 5, 6]  # else `events` fails after a minute


def test_two_steps_at_most_are_under_way(events):
    under_way = itertools.accumulate({"dispatched": 1, "done": -1}.get(what, 0) for what, _ in events)
    assert max(under_way) == 2


def test_a_state_is_logged_evaluated_and_saved_before_the_next_batch_is_fetched(events):
    of_the_loop = [event for event in events if event[0] not in ("dispatched", "done")]
    assert of_the_loop == [("fetch", 1), ("fetch", 2), ("fetch", 3), ("log", 2), ("fetch", 4), ("log", 4),
                           ("scores", 4), ("save", 4), ("stall", 4), ("fetch", 5), ("fetch", 6), ("log", 6),
                           ("scores", 6), ("save", 6), ("stall", 6)]
