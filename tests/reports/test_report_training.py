"""WORKDIR/report.html of a training that is resumed, looked at in a browser; and what must not end a training."""

import json

import jax
import numpy as np
import pytest
import tiny_run

from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.evals.scoring import Look
from groupvit_jax.reports import samples, training
from groupvit_jax.training import loop

CHANGES = {"data__batch": 16, "data__group": 2, "train__steps": 4, "train__warmup_steps": 1, "train__log_every": 1,
           "checkpoint__every": 2, "eval__every": 2, "data__tagger": "pattern"}


@pytest.fixture(scope="module", autouse=True)
def _once(compiled_once):
    pass


@pytest.fixture(scope="module")
def config(data_root):
    config = tiny_run.config(**CHANGES, eval__data_root=str(data_root))
    with config.unlocked():
        config.data.train[0].path = f"{data_root}/train-*.tar"
    return config


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """(workdir, the page before the run was resumed, the evaluators) of a run of four steps, resumed for two more."""
    workdir, evaluators = tmp_path_factory.mktemp("run"), []

    def make_evaluator(*args, **more):
        evaluators.append(Evaluator.from_config(*args, **more))
        return evaluators[-1]

    loop.train(config, str(workdir), make_evaluator, make_report=training.Report)
    before = (workdir / "report.html").read_text()
    longer = config.copy_and_resolve_references()
    with longer.unlocked():
        longer.train.steps = 6
    loop.train(longer, str(workdir), make_evaluator, force=True, make_report=training.Report)
    return workdir, before, evaluators


@pytest.fixture(scope="module")
def opened(trained, browse):
    return browse(trained[0] / "report.html")


def test_the_page_asks_for_nothing_and_complains_of_nothing(opened):
    assert opened[1] == [] and "Step 6 of 6" in opened[0].inner_text(".lead")


def test_curves_have_as_many_points_as_there_are_rows_over_both_starts(opened, trained):
    rows = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    found = opened[0].evaluate("""Object.fromEntries(Array.from(document.querySelectorAll(".chart"), chart =>
        [chart.querySelector("b").previousSibling.textContent.trim(),
         chart.querySelector("path").getAttribute("d").split(/[ML]/).length - 1]))""")
    for name in ("loss", "accuracy", "learning_rate", "groups_used_0", "largest_group_0", "assignment_entropy_0",
                 "gradient_norm", "image_spread", "checkpoint_stall", "images_per_second"):
        assert found[name] == sum(name in row for row in rows), name
    assert found["mIoU"] == sum("scenes/mIoU" in row for row in rows) == 3
    assert "Step 4 of 4" in trained[1]


def test_pointing_at_a_chart_tells_the_values_there(opened, trained):
    page = opened[0]
    chart = page.locator(".chart", has_text="Loss").first
    chart.scroll_into_view_if_needed()
    box = chart.locator("svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.14, box["y"] + 40)
    row = json.loads((trained[0] / "metrics.jsonl").read_text().splitlines()[0])
    assert "step 1" in chart.inner_text() and f"{row['loss']:.4g}" in chart.inner_text()
    page.mouse.move(0, 0)
    assert "step 1" not in chart.inner_text()


def test_samples_of_both_starts_are_shown_and_their_program_compiled_once(opened, trained):
    sizes = opened[0].evaluate("Array.from(document.images, image => image.naturalWidth)")
    steps = opened[0].locator(".strip >> nth=0 >> figcaption").all_inner_texts()
    assert steps == ["picture, truth", "step 2", "step 4", "step 6"]
    assert len(sizes) == 4 * 2 * 4 and min(sizes) >= 40
    assert [evaluator.count_apart._cache_size() for evaluator in trained[2]] == [1, 1]


@pytest.mark.slow
def test_the_weights_are_bit_for_bit_those_of_a_run_without_a_report(trained, config, tmp_path):
    longer = config.copy_and_resolve_references()
    with longer.unlocked():
        longer.train.steps = 4
    loop.train(longer, str(tmp_path), Evaluator.from_config)
    with longer.unlocked():
        longer.train.steps = 6
    loop.train(longer, str(tmp_path), Evaluator.from_config, force=True)
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "samples").exists()
    ours, theirs = (tiny_run.inference.load(str(folder)).variables for folder in (trained[0], tmp_path))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), ours, theirs))


def test_without_evaluation_there_are_curves_alone(config, tmp_path, browse):
    plain = config.copy_and_resolve_references()
    with plain.unlocked():
        plain.eval.every, plain.train.steps = 0, 2
    loop.train(plain, str(tmp_path), Evaluator.from_config, make_report=training.Report)
    page, problems = browse(tmp_path / "report.html")
    assert problems == [] and page.locator("img").count() == 0 and page.locator(".chart").count() > 8


# ---------------------------------------------------------------- what fails


class Failing:
    def add(self, n, variables):
        raise RuntimeError("no samples today")


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(training.logging, "warning", lambda text, *values: said.append(text % values))
    return said


def test_samples_that_fail_are_said_once_and_the_curves_are_there(tmp_path, warnings):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    report = training.Report(str(tmp_path), None, 10)
    report.samples = Failing()
    report.write(1, {})
    report.write(2, {})
    assert len(warnings) == 1 and "no samples today" in warnings[0] and "training goes on" in warnings[0]
    assert "2.5" in (tmp_path / "report.html").read_text()


def test_a_report_that_cannot_be_written_is_said_once(tmp_path, warnings):
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html/x").write_text("")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    report = training.Report(str(tmp_path), None, 10)
    report.write(1, {})
    report.write(2, {})
    assert len(warnings) == 1 and "report.html" in warnings[0]


def test_a_process_that_does_not_write_does_nothing(tmp_path, monkeypatch):
    report = training.Report(str(tmp_path), None, 10)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    report.write(1, {})
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- which samples stay


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """fake(steps) -> samples of a run of so many steps whose pictures cost nothing."""
    class Evaluator:
        names = staticmethod(lambda task: ["a"])
        look = staticmethod(lambda variables, task: None)

    def make(steps):
        found = samples.Samples(tmp_path, Evaluator(), "scenes", steps)
        found._choose = lambda: None
        return found

    return make


@pytest.mark.parametrize("steps, every", [(120, 10), (1000, 1), (1000, 100), (7, 1), (500, 300), (30_000, 1000)])
def test_samples_are_twelve_at_most_spread_evenly_and_the_last_step_is_among_them(fake, steps, every):
    kept = fake(steps)
    for n in range(every, steps + 1, every):
        kept.add(n, {})
    if steps % every:
        kept.add(steps, {})
    assert kept.kept()[-1] == steps
    assert len(kept.kept()) == min(samples.TIMES, -(-steps // every))


def test_samples_of_a_run_that_was_made_longer_are_thinned_and_those_of_later_steps_go(fake):
    short = fake(120)
    for n in range(10, 121, 10):
        short.add(n, {})
    longer = fake(480)
    longer.add(110, {})  # gone on with from step 100
    assert longer.kept() == [10, 50, 90]
    longer.add(130, {})
    assert longer.kept() == [10, 50, 90, 130]


def test_a_truth_that_a_killed_run_did_not_write_is_drawn_by_the_next(fake, tmp_path):
    kept, blank = fake(120), np.zeros((8, 8), np.uint8)
    (tmp_path / "samples/10").mkdir(parents=True)
    for left in ("0-picture.jpg", "0-truth.jpg"):
        kept._draw(tmp_path / "samples/10", 0, Look("a", np.zeros((8, 8, 3), np.uint8), blank, blank, blank))
        (tmp_path / "samples" / left).unlink()
    kept._draw(tmp_path / "samples/10", 0, Look("a", np.zeros((8, 8, 3), np.uint8), blank, blank, blank))
    kept.numbers = [0]
    assert len(kept.markup()) == 2
