"""Packing: every text whole in a row of its own segment, equal texts once, the longest cut when room is short."""

import numpy as np
import pytest
import tiny

from groupvit_jax.data.packing import pack, place, rows_of
from groupvit_jax.errors import InputError

END = 99


def text(n: int, first: int = 1) -> list[int]:
    """n ids, the last of them the end."""
    return [*range(first, first + n - 1), END]


def read(packed, place) -> list[int]:
    """The text that ends at (row, column), by segment and position."""
    row, column = place
    start = column - packed.positions[0, row, column]
    assert len(set(packed.segments[0, row, start : column + 1])) == 1
    np.testing.assert_array_equal(packed.positions[0, row, start : column + 1], range(column - start + 1))
    return packed.tokens[0, row, start : column + 1].tolist()


def random_group(seed, pictures=8, texts=4, longest=20):
    rng = np.random.default_rng(seed)
    return [[[*rng.integers(1, 90, rng.integers(1, longest)).tolist(), END] for _ in range(texts)]
            for _ in range(pictures)]


@pytest.mark.parametrize("seed", range(20))
def test_every_text_lies_whole_where_its_place_says(seed):
    texts = random_group(seed)
    packed, cut = pack(texts, rows=14, length=32)
    assert cut == 0 and [a.shape for a in packed] == [(1, 14, 32)] * 3 + [(1, 8, 4, 2)]
    for of_picture, places in zip(texts, packed.places[0]):
        assert [read(packed, place) for place in places] == of_picture


@pytest.mark.parametrize("seed", range(5))
def test_what_no_text_occupies_is_segment_zero_and_no_two_texts_of_a_row_share_a_segment(seed):
    texts = random_group(seed)
    packed, _ = pack(texts, rows=14, length=32)
    assert (packed.segments > 0).sum() == sum(map(len, {tuple(t) for of_picture in texts for t in of_picture}))
    assert not packed.tokens[packed.segments == 0].any()
    ends = {(row, packed.segments[0, row, column]) for row, column in packed.places[0].reshape(-1, 2)}
    assert len(ends) == len({tuple(t) for of_picture in texts for t in of_picture})


def test_equal_texts_share_a_place():
    packed, _ = pack([[text(5), text(5)], [text(5), text(4)]], rows=1, length=9)
    assert len({tuple(place) for place in packed.places[0].reshape(-1, 2)}) == 2


def test_what_follows_the_first_end_is_left_out():
    packed, cut = pack([[text(5) + [7, END]]], rows=1, length=5)
    assert cut == 0 and read(packed, packed.places[0, 0, 0]) == text(5)


def test_without_room_the_longest_are_cut_to_one_length_keep_their_end_and_are_counted():
    packed, cut = pack([[text(12), text(9, first=30)], [text(3), text(4)]], rows=2, length=10)
    lengths = [[len(read(packed, place)) for place in places] for places in packed.places[0]]
    assert lengths == [[6, 6], [3, 4]] and cut == 2
    for first, t in ((1, 0), (30, 1)):
        ids = read(packed, packed.places[0, 0, t])
        assert ids == text(len(ids), first)


def test_a_text_longer_than_a_row_is_cut_to_it():
    packed, cut = pack([[text(50)]], rows=3, length=10)
    assert cut == 1 and read(packed, packed.places[0, 0, 0]) == text(10)


@pytest.mark.parametrize("seed", range(5))
def test_the_room_that_the_configuration_must_leave_is_enough_for_the_worst_texts(seed):
    group = 16
    config = tiny.config(data__pack_length=32, data__caption_tokens=4.0, data__prompt_tokens=4.0, data__prompts=3).data
    rows = rows_of(config, group)
    packed, cut = pack(random_group(seed, group, 4, longest=77), rows, 32)
    assert packed.tokens.shape == (1, rows, 32) and cut > 0


def test_a_budget_without_room_for_the_texts_is_an_input_error():
    config = tiny.config(data__caption_tokens=2.0, data__prompt_tokens=2.0, data__prompts=3)
    with pytest.raises(InputError, match="caption_tokens=2.0.*raise"):
        rows_of(config.data, 16)


def test_rows_are_the_budget_of_captions_and_prompts_rounded_up():
    config = tiny.config(data__caption_tokens=18.0, data__prompt_tokens=12.0, data__prompts=3, data__pack_length=128)
    assert rows_of(config.data, 16) == 7  # 16 * (18 + 36) = 864 tokens


def test_texts_go_to_the_first_row_with_room():
    assert place([6, 5, 4, 3], rows=2, room=10) == [(0, 0), (1, 0), (0, 6), (1, 5)]
    assert place([6, 6, 6], rows=2, room=10) is None
