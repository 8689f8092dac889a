"""Markup, charts and rows: text is text, curves are the rows, and much data stays small."""

import json
import re
import time

import numpy as np
import pytest

from groupvit_jax.reports import charts, history, page, training


def test_text_is_escaped_and_markup_is_not():
    made = page.element("td", "<b>&", page.element("i", '"x"'), title='a"<b>')
    assert made == '<td title="a&quot;&lt;b&gt;">&lt;b&gt;&amp;<i>&quot;x&quot;</i></td>'


def test_a_curve_has_a_point_for_each_value_and_a_gap_for_what_was_no_number():
    made = charts.line_chart("loss", [1, 2, 3, 4, 5], {"a": [1.0, 2.0, None, 3.0, 2.0]})
    (d,) = re.findall(r'<path d="([^"]*)"', made)
    assert re.findall("[ML]", d) == ["M", "L", "M", "L"]


def test_a_value_alone_between_gaps_is_seen():
    steps = list(range(charts.MARKED + 5))
    assert charts.line_chart("x", steps, {"a": [1.0, None, *steps[2:]]}).count("<circle") == 1


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [1e-9, 2e-9], [-1e12, 1e12], [None, 1.0]])
def test_any_values_make_a_chart(values):
    made = charts.line_chart("x", list(range(5, 5 + len(values))), {"a": values})
    assert "nan" not in made and "<path" in made


def test_no_value_makes_no_chart():
    assert charts.line_chart("x", [1, 2], {"a": [None, None]}) == ""


@pytest.mark.parametrize("value, text", [(0.00005, "5e-5"), (12000, "12k"), (2.5e6, "2.5M"), (0, "0"), (0.25, "0.25")])
def test_short_numbers_on_axes(value, text):
    assert charts.short(value) == text


def test_ticks_are_round_and_inside():
    assert charts.ticks_between(0, 100) == [0, 20, 40, 60, 80, 100]
    for low, high in ((0.0, 1.0), (-3.2, 17.0), (1e-7, 2e-7), (99.0, 101.0)):
        ticks = charts.ticks_between(low, high)
        assert 2 <= len(ticks) <= 6 and all(low <= tick <= high * (1 + 1e-9) for tick in ticks)


def test_a_confusion_map_of_171_classes_is_small_and_names_what_counts():
    counts = np.random.default_rng(0).integers(0, 3, (171, 171)) + 10_000 * np.eye(171, dtype=int)
    counts[4, 7] = 5000
    made = charts.heat_map([f"class {i}" for i in range(171)], counts)
    assert "class 4 called class 7: 3" in made and "(5,000)" in made and len(made) < 300_000


# ---------------------------------------------------------------- rows


def write_rows(path, n, every=1000):
    with open(path, "w") as file:
        for step in range(1, n + 1):
            file.write(json.dumps({"step": step, "accuracy": step / n, "loss": 1.0 + 1 / step}) + "\n")
            if step % every == 0:
                file.write(json.dumps({"step": step, "scenes/mIoU": 40.0}) + "\n")
    return path


def test_all_rows_of_a_short_run_are_there_and_later_ones_are_read_on(tmp_path):
    path = write_rows(tmp_path / "metrics.jsonl", 50, every=20)
    rows = history.History(path)
    rows.read()
    assert list(rows.curves()["loss"]) == list(range(1, 51)) and list(rows.curves()["scenes/mIoU"]) == [20, 40]
    with open(path, "a") as file:
        file.write('{"step": 51, "accuracy": 1, "loss": null}\n{"step": 52, "acc')
    rows.read()
    assert list(rows.curves()["loss"].items())[-2:] == [(50, 1.02), (51, None)]
    with open(path, "a") as file:
        file.write('uracy": 1, "loss": 9.0}\n')
    rows.read()
    assert rows.curves()["loss"][52] == 9.0


def test_a_million_rows_become_a_small_page_quickly(tmp_path):
    n = 1_000_000
    rows = history.History(write_rows(tmp_path / "metrics.jsonl", n, every=100_000))
    began = time.process_time()
    rows.read()
    first = time.process_time() - began
    began = time.process_time()
    rows.read()
    data = training.report("run", n, n, rows.curves(), [])
    assert first < 30 and time.process_time() - began < 1  # seconds; 2 and 0.05 on a quiet core
    steps = list(rows.curves()["loss"])
    assert history.POINTS / 2 <= len(steps) <= history.POINTS and steps[-1] == n
    assert len(set(np.diff(steps[:-1]))) == 1  # evenly
    assert len(rows.curves()["scenes/mIoU"]) == 10 and len(data) < 500_000


def test_every_number_of_a_row_has_a_chart():
    names = ["loss", "accuracy", "groups_used_0", "groups_used_1", "gradient_norm_text", "something_new"]
    made = training.report("run", 2, 9, {name: {1: 1.0, 2: 2.0} for name in names}, []).decode()
    assert all(f"{name} <b>2</b>" in made for name in names)
