"""The order of samples: a permutation an epoch, weights kept exactly, blocks read by one lane; the place says all."""

import itertools
import pickle

import numpy as np
import pytest

from groupvit_jax.data.order import Order


def order(lengths, weights=None, blocks=None, lanes=8, seed=0):
    return Order(lengths, weights or [0.0] * len(lengths), blocks or [1] * len(lengths), lanes, seed)


def draws(of, n, lanes=8):
    """The first n draws of all lanes, [n lanes 2]."""
    return np.array([[of(lane, draw) for lane in range(lanes)] for draw in range(n)])


def test_an_epoch_of_a_set_has_each_sample_once_and_the_next_another_order():
    first, second = draws(order([96]), 24)[..., 1].reshape(2, 96)
    assert sorted(first) == sorted(second) == list(range(96)) and first.tolist() != second.tolist()


def test_an_order_is_a_function_of_seed_and_place_alone():
    one, other = order([100, 50], blocks=[1, 8]), pickle.loads(pickle.dumps(order([100, 50], blocks=[1, 8])))
    places = list(itertools.product(range(8), (0, 5, 10**6)))
    assert [one(*place) for place in places[::-1]] == [other(*place) for place in places][::-1]
    assert [one(*place) for place in places] != [order([100, 50], blocks=[1, 8], seed=1)(*place) for place in places]


@pytest.mark.parametrize("weights", [[3.0, 1.0], [1.0, 1.0, 1.0], [2891445.0, 11156203.0, 14615499.0],
                                     [0.2, 0.5, 0.1, 0.2, 0.7]], ids=str)
@pytest.mark.parametrize("lanes", [1, 8, 64])
def test_weights_are_kept_at_all_times_to_a_few_samples(weights, lanes):
    drawn = draws(order([10**6] * len(weights), weights, lanes=lanes), 800 // lanes + 100, lanes)[..., 0]
    counts = np.stack([(drawn == i).sum(axis=1).cumsum() for i in range(len(weights))], axis=1)
    exact = np.arange(1, len(drawn) + 1)[:, None] * lanes * np.array(weights) / sum(weights)
    assert np.abs(counts - exact).max() < 2 * len(weights)


def test_tiny_weights_count_too():
    drawn = draws(order([100, 100, 100], [1e-7, 2e-7, 1e-7]), 100)[..., 0]
    assert np.bincount(drawn.ravel()).tolist() == [200, 400, 200]


def test_weights_are_exact_over_a_period():
    drawn = draws(order([1000, 1000, 1000], [0.5, 0.3, 0.2]), 50)[..., 0]
    assert np.bincount(drawn.ravel()).tolist() == [200, 120, 80]


def test_weight_zero_is_the_length_of_the_set():
    drawn = draws(order([300, 100]), 100)
    assert np.bincount(drawn[..., 0].ravel()).tolist() == [600, 200]
    assert all(len(set(drawn[..., 1][drawn[..., 0] == i][:n])) >= 0.9 * n for i, n in ((0, 300), (1, 100)))


def test_a_lane_walks_through_whole_blocks_in_an_order_of_their_own():
    of = order([1000], blocks=[50], lanes=4)
    for lane, turn in itertools.product(range(4), range(5)):
        block = np.array([of(lane, turn * 50 + i)[1] for i in range(50)])
        start = min(block) if np.ptp(block) < 50 else min(block[block >= 500])  # it may pass the end of the set
        assert sorted((block - start) % 1000) == list(range(50)) and block.tolist() != sorted(block)


def test_lanes_walk_through_different_blocks_which_make_an_epoch():
    first = draws(order([1000], blocks=[50], lanes=4), 250, lanes=4)[..., 1]
    assert sorted(first.ravel()) == list(range(1000))


def test_blocks_of_another_epoch_have_other_bounds():
    of = order([1000], blocks=[50], lanes=1)
    starts = [min(of(0, epoch * 1000 + i)[1] for i in range(50)) % 50 for epoch in range(1, 4)]
    assert len(set(starts)) > 1


def test_a_set_smaller_than_a_block_is_one_block():
    assert sorted(draws(order([7], blocks=[256], lanes=1), 7, lanes=1)[..., 1].ravel()) == list(range(7))


def test_what_does_not_fill_a_block_is_left_out_of_an_epoch_and_not_of_the_next():
    of = order([103], blocks=[10], lanes=1)  # 10 blocks of 10
    epochs = [{of(0, epoch * 100 + i)[1] for i in range(100)} for epoch in range(4)]
    assert all(len(epoch) == 100 for epoch in epochs) and set.union(*epochs) == set(range(103))
