import numpy as np
import pytest

from groupvit_jax.evals.metrics import Confusion, Presence, average_precision

NAMES = ["a", "b", "c"]


def test_iou_by_hand_with_an_absent_class_and_ignored_pixels():
    truth = np.array([[0, 0, 0, 1], [1, 1, 255, 255]])
    said = np.array([[0, 0, 1, 1], [1, 0, 0, 2]])
    result = Confusion.of(truth, said, 3).compute(NAMES)
    assert result["iou"] == {"a": 50.0, "b": 50.0, "c": None}  # 2 of 4, 2 of 4, in neither
    assert result["mIoU"] == 50.0 and result["accuracy"] == pytest.approx(100 * 4 / 6)


def test_a_class_that_is_only_said_counts_with_zero():
    result = Confusion.of(np.array([0, 0]), np.array([0, 2]), 3).compute(NAMES)
    assert result["iou"] == {"a": 50.0, "b": None, "c": 0.0} and result["mIoU"] == 25.0


def test_merging_equals_counting_at_once_and_is_exact_past_32_bits():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, (2, 100))
    parts = [Confusion.of(truth[i::3], said[i::3], 3) for i in range(3)]
    whole = Confusion.empty(3)
    for part in parts:
        whole = whole.merge(part)
    np.testing.assert_array_equal(whole.counts, Confusion.of(truth, said, 3).counts)
    big = np.full((3, 3), 2**31 - 1, np.int32)
    assert Confusion.empty(3).update(big).update(big).counts[0, 0] == 2**32 - 2


def test_best_constant_equals_trying_every_class():
    truth = np.repeat([0, 1, 3, 255], [5, 7, 2, 100])
    names = ["a", "b", "c", "d"]
    tried = [Confusion.of(truth, np.full_like(truth, k), 4).compute(names)["mIoU"] for k in range(4)]
    assert Confusion.of(truth, np.zeros_like(truth), 4).constant() == pytest.approx(max(tried))


def test_nothing_counted_gives_none():
    assert Confusion.empty(3).compute(NAMES) == {"mIoU": None, "accuracy": None, "iou": dict.fromkeys(NAMES)}
    assert Confusion.empty(3).constant() is None
    assert Presence.empty(3).compute() == {"top1": None, "mAP": None}


def test_average_precision_by_hand():
    # Ranked: true, false, true: recall rises by half at precision 1 and by half at 2/3.
    assert average_precision(np.array([0.9, 0.5, 0.7]), np.array([True, True, False])) == pytest.approx(100 * 5 / 6)
    # Equal scores count together, in whatever order they come: precision 1/2.
    assert average_precision(np.array([0.5, 0.5]), np.array([True, False])) == 50.0
    assert average_precision(np.array([0.5, 0.5]), np.array([False, True])) == 50.0
    assert average_precision(np.array([0.5, 0.1]), np.array([False, False])) is None


def test_presence_by_hand():
    first = Presence(np.array([[0.9, 0.2, 0.1]]), np.array([[False, True, False]]))
    both = first.merge(Presence(np.array([[0.8, 0.3, 0.1]]), np.array([[True, True, False]])))
    # Class a: ranked false, true (50); b: both true (100); c: never there. The best of the first is not present.
    assert both.compute() == {"top1": 50.0, "mAP": 75.0}
