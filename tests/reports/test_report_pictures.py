"""What a report shows of a picture is what was counted."""

import shutil

import jax
import numpy as np
import pytest

from groupvit_jax import parallel
from groupvit_jax.evals.metrics import Confusion
from groupvit_jax.evals.protocol import Protocol
from groupvit_jax.evals.runner import Evaluator
from groupvit_jax.reports import evaluation, pictures

WAYS = [
    ("scenes", {}, {}),
    ("scenes", {"oracle": True}, {"flip": True, "scales": (1.0, 1.5), "devices": 1}),
    ("voc", {"name": "tcl", "pamr": True}, {"devices": 1, "batch": 1}),
    ("voc", {"background": "sky; wall", "top": 0, "templates": "subset"}, {"batch": 3, "devices": 2}),
]


def make(model, root, task, protocol=None, devices=None, **settings):
    mesh = parallel.create_mesh(devices=jax.devices()[:devices]) if devices else None
    return Evaluator.from_config(model.module, model.config.eval, tasks=[task], data_root=str(root), mesh=mesh,
                                 protocol=Protocol(**protocol or {}), each=True, **settings)


def confusion(look, n):
    valid = look.truth != 255
    return np.bincount(n * look.truth[valid].astype(int) + look.labels[valid], minlength=n * n).reshape(n, n)


@pytest.mark.slow
@pytest.mark.parametrize("task, protocol, settings", WAYS)
def test_the_labels_shown_of_all_pictures_are_those_that_were_counted(model, data_root, task, protocol, settings):
    model, _ = model
    evaluator = make(model, data_root, task, protocol, **settings)
    scores, names = evaluator(model.variables)[task], evaluator.names(task)
    look = evaluator.look(model.variables, task)
    counts = [confusion(look(i), len(names)) for i in range(scores["images"])]
    np.testing.assert_array_equal(sum(counts), scores["confusion"])
    np.testing.assert_allclose(evaluator.each[task], [Confusion(c).compute(names)["mIoU"] for c in counts], rtol=1e-5)
    assert evaluator.count_apart._cache_size() == 1 and evaluator.count._cache_size() == 0


def test_groups_shown_are_those_of_the_last_stage(model, data_root):
    model, _ = model
    evaluator = make(model, data_root, "scenes", devices=1)
    look = evaluator.look(model.variables, "scenes")(2)
    np.testing.assert_array_equal(look.groups, model.segment(look.image, evaluator.names("scenes")).groups)


def test_without_a_report_the_program_is_the_old_one_and_nothing_is_kept(model, data_root):
    model, _ = model
    evaluator = Evaluator.from_config(model.module, model.config.eval, tasks=["scenes"], data_root=str(data_root),
                                      mesh=parallel.create_mesh(devices=jax.devices()[:1]))
    scores = evaluator(model.variables)["scenes"]
    assert evaluator.each is None and evaluator.count_apart._cache_size() == 0 and evaluator.count._cache_size() == 1
    apart = make(model, data_root, "scenes", devices=1)(model.variables)["scenes"]
    np.testing.assert_array_equal(scores.pop("confusion"), apart.pop("confusion"))
    assert scores == apart


def test_pictures_left_out_have_no_score_and_move_no_other(model, data_root, tmp_path):
    model, _ = model
    whole = make(model, data_root, "scenes", devices=2)
    whole(model.variables)
    shutil.copytree(data_root / "VOCdevkit/scenes", tmp_path / "VOCdevkit/scenes")
    (tmp_path / "VOCdevkit/scenes/SegmentationClass/val_000003.png").write_bytes(b"no mask")
    some = make(model, tmp_path, "scenes", devices=2, skip_bad=True)
    assert some(model.variables)["scenes"]["images"] == 8
    expected = whole.each["scenes"].copy()
    expected[3] = np.nan
    np.testing.assert_array_equal(some.each["scenes"], expected)
    assert 3 not in sum(evaluation.extremes(expected), [])


@pytest.mark.parametrize("scores, best, worst", [
    ([3, 1, 2, 9, 9, 0], [3, 4, 0], [5, 1, 2]),
    ([5, 5, 5], [0, 1], [2]),
    ([7], [0], []),
    ([np.nan, 2, np.nan, 1], [1], [3]),
    ([np.nan], [], []),
])
def test_best_and_worst_pictures_share_none_and_leave_out_what_has_no_score(scores, best, worst):
    got = evaluation.extremes(np.array(scores, np.float32))
    assert got == (best, worst)


@pytest.mark.parametrize("shape, expected", [((480, 640), (240, 320)), ((100, 50), (300, 150)), ((3, 4000), (1, 320))])
def test_pictures_are_small_and_labels_stay_labels(shape, expected):
    labels = np.arange(np.prod(shape)).reshape(shape) % 7
    small = pictures.reduced(labels, 320)
    assert small.shape == expected and set(small.ravel()) <= set(range(7))
    assert pictures.reduced(np.zeros((*shape, 3), np.uint8), 320).shape == (*expected, 3)
