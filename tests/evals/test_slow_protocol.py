"""The slow protocol itself, where something else knows the answer: a formula, SciPy, the port in `transformers`."""

import math

import numpy as np
import pytest
import scipy.ndimage
import slow_protocol as slow
import torch
from slow_protocol import Rules
from transformers.models.groupvit.modeling_groupvit import get_grouping_from_attentions

SMALL = dict(short=32, long=146, window=32, stride=16, patch=8)
D = 12


def halves(window):
    """Towers that give dark patches to group 0 and bright ones to group 1; group i looks like class i."""
    bright = window[0].reshape(window.shape[1] // 8, 8, -1, 8, 3).mean(axis=(1, 3, 4)).reshape(-1) > 0
    return 2 * np.eye(2, D), np.arange(D, 0, -1.0), [np.stack([~bright, bright]).astype(np.float32)]


def scattered(window):
    """Towers without order: what they give depends on the pixels in no simple way."""
    h, w = window.shape[1:3]
    rng = np.random.default_rng(int(1e4 * abs(float(window.astype(np.float64).sum()))) % 2**32)
    first, second = rng.random((6, h * w // 64)), rng.random((4, 6))
    return rng.normal(size=(4, D)), rng.normal(size=D), [first / first.sum(axis=0), second / second.sum(axis=0)]


def encode(texts):
    """Class `k` is the k-th unit vector, at any length."""
    return np.stack([(1 + len(text)) * np.eye(D)[int(text.split()[-1])] for text in texts])


def words(*names):
    return slow.class_words([str(name) if isinstance(name, int) else [str(n) for n in name] for name in names],
                            ["a {}", "one more {}"], encode)


def noise(h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def split_image():
    """32 x 32, the left half dark."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 255
    return image


def test_windows_start_where_the_protocol_says():
    assert slow.starts(673, 448, 224) == [0, 224, 225]
    assert slow.starts(672, 448, 224) == [0, 224]
    assert slow.starts(448, 448, 224) == slow.starts(300, 448, 224) == [0]


@pytest.mark.parametrize("size, expected", [
    ((375, 500), (448, 597)), ((500, 333), (673, 448)), ((100, 700), (293, 2048))])
def test_images_are_resized_by_their_short_side_unless_too_long(size, expected):
    assert slow.resize(np.zeros((*size, 3), np.uint8), 448, 2048).shape[:2] == expected


@pytest.mark.parametrize("n_in, n_out", [(28, 448), (448, 375), (3, 50), (5, 3)])
def test_bilinear_has_half_pixel_centres_and_no_antialiasing(n_in, n_out):
    signal = np.random.default_rng(0).normal(size=(1, 1, n_in))
    at = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    expected = np.interp(at, np.arange(n_in), signal[0, 0])  # NumPy's, constant beyond the ends
    np.testing.assert_allclose(slow.bilinear(signal, (1, n_out))[0, 0], expected, atol=1e-12)


def test_group_shares_are_the_ports():
    rng = np.random.default_rng(0)
    soft = [rng.random((64, 784)).astype(np.float32), rng.random((8, 64)).astype(np.float32)]
    expected = get_grouping_from_attentions([torch.from_numpy(x)[None].double() for x in soft], (448, 448))[0]
    np.testing.assert_allclose(slow.group_shares(soft, (28, 28), (448, 448)), expected, rtol=1e-12)


def test_a_window_scores_by_the_formula():
    """Two halves of classes 0 and 1 of three, scale 2: softmax of (2, 0, 0), squared, as all three are kept."""
    scores = slow.image_scores(split_image(), halves, words(0, 1, 2), math.log(2), Rules(**SMALL))
    right, wrong = math.exp(2) / (math.exp(2) + 2), 1 / (math.exp(2) + 2)
    for columns, expected in ((slice(0, 16), (right, wrong, wrong)), (slice(16, 32), (wrong, right, wrong))):
        for label, value in enumerate(expected):
            np.testing.assert_allclose(scores[label, :, columns], value**2, rtol=1e-12)


def test_the_scale_is_at_most_a_hundred():
    scores = [slow.image_scores(split_image(), halves, words(0, 1, 2), s, Rules(**SMALL)) for s in (math.log(100), 9.0)]
    np.testing.assert_array_equal(*scores)


def test_five_classes_are_kept_and_share_one():
    """The pooled feature prefers low classes: 0 to 4 stay; A5 = softmax over five, A over eight."""
    table, _ = slow.group_table(np.eye(2, D), np.arange(D, 0, -1.0), words(*range(8)), 0.0, 5)
    e = math.e
    np.testing.assert_allclose(table[0, :2], [e / (e + 4) * e / (e + 7), 1 / (e + 4) / (e + 7)])
    np.testing.assert_array_equal(table[:, 5:], 0)
    plain, _ = slow.group_table(np.eye(2, D), np.arange(D, 0, -1.0), words(*range(8)), 0.0, None)
    np.testing.assert_allclose(plain[0], np.where(np.arange(8) == 0, e, 1) / (e + 7))


def test_templates_are_averaged_before_the_length_is_made_one():
    got = slow.class_words(["x"], ["{}", "a {}"], lambda texts: np.array([[1.0, 0.0], [0.0, 3.0]])).embeddings
    np.testing.assert_allclose(got, [[1 / math.sqrt(10), 3 / math.sqrt(10)]])


def test_background_is_where_the_best_score_is_low_but_never_everywhere():
    """Group 1 has the class of most scores; at scale 1 nothing reaches 0.95, so that the limit is the best score."""
    image, named = split_image(), words(0, 7, 8)
    scores = slow.image_scores(image, halves, named, 0.0, Rules(threshold=0.95, **SMALL))
    np.testing.assert_array_equal(scores[0], np.where(np.arange(32) < 16, 0, 1)[None].repeat(32, 0))
    low = slow.image_scores(image, halves, named, 0.0, Rules(threshold=0.01, **SMALL))
    np.testing.assert_array_equal(low[0], 0)
    np.testing.assert_array_equal(scores[1:], low[1:])


@pytest.mark.parametrize("size", [(32, 64), (64, 32)])
def test_overlapping_windows_are_averaged(size):
    """A picture of one brightness: every window says the same, so the mean is what one says."""
    image = np.full((*size, 3), 255, np.uint8)
    scores = slow.image_scores(image, halves, words(0, 1), 0.0, Rules(**SMALL))
    one = slow.image_scores(image[:32, :32], halves, words(0, 1), 0.0, Rules(**SMALL))
    np.testing.assert_allclose(scores, np.broadcast_to(one[:, :1, :1], scores.shape))


def test_mirrored_images_give_mirrored_scores_if_flips_are_averaged():
    image, rules = noise(32, 48), Rules(flip=True, **SMALL)
    scores = slow.image_scores(image, scattered, words(*range(9)), 1.0, rules)
    mirrored = slow.image_scores(image[:, ::-1], scattered, words(*range(9)), 1.0, rules)
    np.testing.assert_allclose(scores, mirrored[:, :, ::-1], atol=1e-12)
    assert np.abs(scores - slow.image_scores(image, scattered, words(*range(9)), 1.0, Rules(**SMALL))).max() > 0.01


def test_scales_are_averaged():
    image, named = noise(40, 50), words(*range(9))
    single = [slow.image_scores(image, scattered, named, 1.0, Rules(**SMALL | dict(short=short, long=long)))
              for short, long in ((32, 146), (48, 219))]
    both = slow.image_scores(image, scattered, named, 1.0, Rules(scales=(1.0, 1.5), **SMALL))
    np.testing.assert_allclose(both, (single[0] + single[1]) / 2, atol=1e-12)


def test_a_class_of_several_names_scores_as_its_best():
    """Names 0 and 6 of one class: softmax over nine names, but five classes are kept, with all their names."""
    named = words((6, 0), *range(1, 6), 7, 8)
    segments, pooled = np.eye(D)[[0, 6]], np.arange(D, 0, -1.0)
    table, _ = slow.group_table(segments, pooled, named, 0.0, 5)
    e = math.e
    np.testing.assert_allclose(table[:, 0], e / (e + 5) * e / (e + 8))  # names 0 6 1 2 3 4
    np.testing.assert_array_equal(table[:, 5:], 0)
    assert table.shape == (2, 8)


def test_choices_that_hang_on_rounding_are_reported():
    def undecided_group(window):
        segments, pooled, _ = halves(window)
        return segments, pooled, [np.full((2, 16), 0.5, np.float32)]

    def equal_classes(window):
        segments, _, soft = halves(window)
        return segments, np.ones(D), soft

    def unsure(towers, *named, **rules):
        return slow.image_answer(split_image(), towers, words(*named), 0.0, Rules(**rules, **SMALL)).unsure

    assert unsure(undecided_group, 0, 1).all()
    assert unsure(equal_classes, *range(6)).all() and not unsure(equal_classes, *range(5)).any()
    score = (math.e / (math.e + 1)) ** 2
    assert unsure(halves, 0, 7, threshold=score).any() and not unsure(halves, 0, 7, threshold=score - 0.01).any()


def test_labels_are_undecided_where_two_are_equal():
    scores = np.array([[[0.5, 0.2]], [[0.50005, 0.9]], [[0.1, 0.1]]])
    np.testing.assert_array_equal(slow.undecided(scores), [[True, False]])
    np.testing.assert_array_equal(slow.label_map(scores), [[1, 1]])


def test_confusion_and_mean_by_hand():
    truth = np.array([[0, 0, 1, 1], [1, 255, 255, 0]])
    labels = np.array([[0, 1, 1, 1], [0, 0, 2, 0]])
    counts = slow.confusion(truth, labels, 4)
    np.testing.assert_array_equal(counts, [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    mean, each = slow.miou(counts)
    assert (mean, each) == (50.0, [50.0, 50.0, None, None])


def test_pamr_of_a_picture_of_one_colour_is_a_mean_of_neighbours():
    """All 48 neighbours weigh the same: SciPy's correlation with a kernel of 48 ones, its border repeated."""
    kernel = np.zeros((49, 49))
    for d in (1, 2, 4, 8, 12, 24):
        kernel[24 - d : 25 + d : d, 24 - d : 25 + d : d] = 1 / 48
    kernel[24, 24] = 0
    masks = np.random.default_rng(0).random((2, 40, 56))
    expected = masks
    for _ in range(10):
        expected = np.stack([scipy.ndimage.correlate(mask, kernel, mode="nearest") for mask in expected])
    np.testing.assert_allclose(slow.pamr(np.full((40, 56, 3), 0.3), masks), expected, atol=1e-12)


def test_pamr_keeps_what_an_edge_divides_and_finds_it():
    """A mask that misses the edge by a few pixels is pulled to it; scores that sum to one still do."""
    image = np.zeros((64, 64, 3))
    image[:, 32:] = 1.0
    mask = np.zeros((64, 64))
    mask[:, 32:] = 1
    refined = slow.pamr(image, np.stack([mask, 1 - mask]))
    np.testing.assert_allclose(refined[0], mask, atol=0.01)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-12)
    off = np.roll(mask, 3, axis=1)
    off[:, :3] = 0
    assert np.abs(slow.pamr(image, off[None])[0] - mask)[:, 31:36].mean() < 0.5 * np.abs(off - mask)[:, 31:36].mean()


def test_pamr_may_come_before_the_background_or_after():
    image, named = noise(32, 32), words(*range(9))
    after, before = (slow.image_scores(image, scattered, named, 1.0, Rules(threshold=0.95, pamr=when, **SMALL))
                     for when in ("all", "classes"))
    assert set(np.unique(before[0])) <= {0.0, 1.0} and len(np.unique(after[0])) > 2
    np.testing.assert_allclose(before[1:], after[1:], atol=1e-12)
    without = slow.image_scores(image, scattered, named, 1.0, Rules(threshold=0.95, **SMALL))
    assert np.abs(without[1:] - after[1:]).max() > 0.01


def test_oracle_names_groups_by_majority():
    """Dark left, bright right: two groups. Three quarters of the left are 1, the right is 2 but for ignored pixels."""
    truth = np.ones((32, 32), int)
    truth[:8, :16], truth[:, 16:] = 0, 2
    truth[20:, 20:] = 255
    counts = slow.oracle(split_image(), truth, halves, 3, Rules(**SMALL))
    np.testing.assert_array_equal(counts, [[0, 8 * 16, 0], [0, 24 * 16, 0], [0, 0, 16 * 32 - 12 * 12]])


def test_owners_are_the_first_window_where_shares_are_equal():
    """Windows at 0 and 16 of 48: the first has its half alone; where both see, each has one half: the first wins."""
    image = np.full((32, 48, 3), 255, np.uint8)
    owner = slow.image_owners(image, halves, Rules(**SMALL))
    np.testing.assert_array_equal(owner, np.where(np.arange(48) < 32, 1, 3)[None].repeat(32, 0))
