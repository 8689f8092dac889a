"""`groupvit eval --report=D`, looked at in a browser."""

import json

import numpy as np
import pytest
from processes import groupvit as in_a_process
from processes import together

from groupvit_jax.errors import InputError
from groupvit_jax.reports import evaluation

NAMES = ["<b>sky</b>", "grass", "sand", "night", "road", "zebra", "brick", "coin", 'a "leaf" & <img src=x onerror=1>',
         "banana", "plum", "fish", "strawberry", "flower", "kite"]


@pytest.fixture(scope="module")
def evaluated(model, data_root, tmp_path_factory):
    """(the page, the JSON, mIoU of each picture) of scenes, under names that look like markup."""
    from groupvit_jax.evals import table
    from groupvit_jax.evals.protocol import Protocol
    from groupvit_jax.evals.runner import Evaluator

    (model, _), folder = model, tmp_path_factory.mktemp("report")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    evaluator = Evaluator.from_config(
        model.module, model.config.eval, tasks=["scenes"], data_root=str(data_root), each=True,
        protocol=Protocol(oracle=True, class_file=str(folder / "classes.txt")))
    results = evaluator(model.variables)
    table.write(folder / "scores.json", results)
    path = evaluation.write(str(folder), evaluator, model.variables, results, "runs/<i>first</i>")
    return path, json.loads((folder / "scores.json").read_text())["scenes"], evaluator.each["scenes"]


@pytest.fixture(scope="module")
def opened(evaluated, browse):
    return browse(evaluated[0])


def test_the_page_asks_for_nothing_and_complains_of_nothing(opened):
    page, problems = opened
    assert problems == [] and "runs/<i>first</i>" in page.inner_text(".lead")


def test_all_pictures_are_there(opened):
    sizes = opened[0].evaluate("Array.from(document.images, image => image.naturalWidth)")
    assert len(sizes) == 4 * 9 and min(sizes) >= 40  # of nine pictures, best and worst


def test_the_numbers_are_those_of_the_json(opened, evaluated):
    page, (_, scores, _) = opened[0], evaluated
    row = page.inner_text("#scores tbody tr").split("\t")
    assert f"{scores['mIoU']:.1f}" in row and f"{scores['oracle']['mIoU']:.1f}" in row and "9" in row
    shown = dict(page.evaluate("Array.from(document.querySelectorAll('.bar'), bar => "
                               "[bar.firstChild.textContent, bar.lastChild.textContent])"))
    assert shown == {name: "–" if iou is None else f"{iou:.1f}" for name, iou in scores["iou"].items()}
    order = [scores["iou"][name] for name in shown if scores["iou"][name] is not None]
    assert order == sorted(order, reverse=True)


def test_names_that_look_like_markup_are_text(opened):
    page, _ = opened
    assert page.locator("b", has_text="sky").count() == 0 and page.locator("img[src=x]").count() == 0
    assert page.locator(".bar span", has_text="<b>sky</b>").count() >= 1


def test_the_confusion_map_has_a_cell_for_each_pair_with_names_and_numbers(opened, evaluated):
    page, (path, scores, _) = opened[0], evaluated
    titles = page.evaluate("Array.from(document.querySelectorAll('.map .cell title'), title => title.textContent)")
    counts = np.load(path.parent / scores["confusion"])
    i, j = np.unravel_index(counts.argmax(), counts.shape)
    share = 100 * counts[i, j] / counts[i].sum()
    assert len(titles) == 225
    assert f"{NAMES[i]} called {NAMES[j]}: {share:.1f} % of its pixels ({counts[i, j]:,})" in titles


def test_the_best_and_the_worst_picture_are_named_first(opened, evaluated):
    page, each = opened[0], evaluated[2]
    for where, expected, extreme in zip(("best", "worst"), evaluation.extremes(each), (each.max(), each.min())):
        assert page.locator(f"#scenes-{where} h4").all_inner_texts() == [f"val_{i:06d} {each[i]:.1f}" for i in expected]
        assert each[expected[0]] == extreme


def test_a_phone_scrolls_down_and_not_aside(evaluated, browse):
    page, _ = browse(evaluated[0], viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_published_scores_are_said_to_be_not_ours_and_whole_pictures_have_their_row(browse, tmp_path):
    names = [f"class {i}" for i in range(171)]
    stuff = {"protocol": "tcl", "images": 5, "mIoU": 12.5, "accuracy": 30.0, "iou": dict.fromkeys(names, 1.0),
             "constant": 1.0, "published": {"GroupViT, GCC + RedCaps, by third parties": 15.3},
             "confusion": np.eye(171, dtype=int)}
    imagenet = {"protocol": "groupvit", "pictures": 50, "top1": 40.0, "top5": 70.0,
                "published": {"GroupViT, GCC + YFCC": 43.7}}
    made = evaluation.report({"coco_stuff": stuff, "imagenet": imagenet}, {"coco_stuff": 171, "imagenet": 1000}, {}, {},
                             "run")
    (tmp_path / "report.html").write_bytes(made)
    page, problems = browse(tmp_path / "report.html")
    assert problems == [] and len(made) < 400_000
    head = page.inner_text("#scores thead")
    assert head.count("published, not ours") == 2 and "15.3" in page.inner_text("#scores tbody tr >> nth=0")
    assert "top-1" in (row := page.inner_text("#scores tbody tr >> nth=1")) and "40.0" in row and "43.7" in row
    assert [link.inner_text() for link in page.locator("nav a").all()] == ["scores", "coco_stuff", "imagenet"]


# ---------------------------------------------------------------- the command


def test_the_command_writes_the_page_and_says_so(groupvit, model, data_root, tmp_path):
    ended = groupvit("eval", f"--checkpoint={model[1]}", "--tasks=scenes", f"--data_root={data_root}",
                     f"--report={tmp_path}/new/folder")
    assert ended.code == 0 and f"wrote {tmp_path}/new/folder/report.html" in ended.out
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_written_is_refused_at_once(groupvit, refused, model, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder/report.html").mkdir(parents=True)

    def start(report):
        return groupvit("eval", f"--checkpoint={model[1]}", "--data_root=/nowhere", f"--report={report}")

    refused(start(tmp_path / "file"), f"--report={tmp_path}/file is a file", "name a folder")
    refused(start(tmp_path / "file/below"), "cannot write to --report")
    refused(start("/dev/fd"), "cannot write to --report")  # a folder that takes no file, even of root
    refused(start(tmp_path / "folder"), "remove it, or name another")
    refused(start("gs://bucket/report"), "remote folders")
    refused(start(""), "--report= names no folder")


def test_scores_are_told_even_if_the_report_fails(groupvit, model, data_root, tmp_path, monkeypatch):
    def fail(*_):
        raise InputError("no room for a report")

    monkeypatch.setattr(evaluation, "write", fail)
    ended = groupvit("eval", f"--checkpoint={model[1]}", "--tasks=scenes", f"--data_root={data_root}",
                     f"--report={tmp_path}")
    assert ended.code == 2 and "no room for a report" in ended.err and "mIoU" in ended.out


@pytest.mark.slow
def test_of_several_hosts_one_writes_and_the_page_is_that_of_one(model, data_root, tmp_path):
    pages = []
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        together(lambda *flags: in_a_process(
            tmp_path / str(processes), "eval", f"--checkpoint={model[1]}", "--tasks=scenes",  # noqa: B023
            f"--data_root={data_root}", f"--report={tmp_path}/{processes}/out", *flags, devices=1), processes)  # noqa: B023
        pages.append((tmp_path / f"{processes}/out/report.html").read_bytes())
    assert pages[0] == pages[1]
