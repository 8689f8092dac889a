import numpy as np
import pytest

from groupvit_jax.evals.metrics import Confusion

NAMES = ["a", "b", "c"]


def counted(truth, said, classes):
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth[truth != 255], said[truth != 255]), 1)
    return Confusion(counts)


def test_iou_by_hand_with_an_absent_class_and_ignored_pixels():
    truth = np.array([[0, 0, 0, 1], [1, 1, 255, 255]])
    said = np.array([[0, 0, 1, 1], [1, 0, 0, 2]])
    result = counted(truth, said, 3).compute(NAMES)
    assert result["iou"] == {"a": 50.0, "b": 50.0, "c": None}  # 2 of 4, 2 of 4, in neither
    assert result["mIoU"] == 50.0 and result["accuracy"] == pytest.approx(100 * 4 / 6)


def test_a_class_that_is_only_said_counts_with_zero():
    result = counted(np.array([0, 0]), np.array([0, 2]), 3).compute(NAMES)
    assert result["iou"] == {"a": 50.0, "b": None, "c": 0.0} and result["mIoU"] == 25.0


def test_best_constant_equals_trying_every_class():
    truth = np.repeat([0, 1, 3, 255], [5, 7, 2, 100])
    names = ["a", "b", "c", "d"]
    tried = [counted(truth, np.full_like(truth, k), 4).compute(names)["mIoU"] for k in range(4)]
    assert counted(truth, np.zeros_like(truth), 4).constant() == pytest.approx(max(tried))


def test_nothing_counted_gives_none():
    nothing = Confusion(np.zeros((3, 3), np.int64))
    assert nothing.compute(NAMES) == {"mIoU": None, "accuracy": None, "iou": dict.fromkeys(NAMES)}
    assert nothing.constant() is None
