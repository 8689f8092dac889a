"""The texts of a group of pictures, packed into fixed rows: what follows a text's end costs nothing.

The text tower is causal and read at the end-of-text token, so nothing after it counts, yet captions of some fourteen
tokens and prompts of eleven would each occupy 77 positions. Here they lie one behind the other; attention stays within
a text (segments) and positions start anew in each, so that the tower computes the same features.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from groupvit_jax.errors import InputError

LEAST = 4  # tokens that a text keeps when there is least room


class Packed(NamedTuple):
    """Texts of G groups of g pictures with t texts each, all int32; numpy on the host, JAX arrays in the model.

    tokens:    [G r l]: r rows of l positions a group; zeros where nothing lies.
    segments:  [G r l]: numbers the texts of a row from 1; 0 where nothing lies.
    positions: [G r l]: of each token in its text, from 0.
    places:    [G g t 2]: row and column of each text's end-of-text token in its group. Equal texts share one.
    """

    tokens: Any
    segments: Any
    positions: Any
    places: Any


def rows_of(config: ConfigDict, group: int) -> int:
    """Rows for a group of pictures by the budget of `config.data`; InputError when it leaves texts no room."""
    texts = group * (1 + config.prompts)
    rows = math.ceil(group * (config.caption_tokens + config.prompts * config.prompt_tokens) / config.pack_length)
    if rows * (config.pack_length // LEAST) < texts:
        raise InputError(f"config.data.caption_tokens={config.caption_tokens} and prompt_tokens="
                         f"{config.prompt_tokens} leave {texts} texts no room: raise them (groupvit data inspect "
                         "says what the captions need), or set data.packing=False")
    return rows


def pack(texts: Sequence[Sequence[Sequence[int]]], rows: int, length: int) -> tuple[Packed, int]:
    """Packs one group.

    Args:
      texts: t texts of each of g pictures as token ids; a text ends at the first of its highest id.
      rows, length: the room, see `rows_of`.
    Returns: the arrays of `Packed` with G = 1, and how many different texts had to be cut to fit. The longest are cut,
      all to one length; like any text that is too long they lose their tails and keep the end-of-text token.
    """
    ended = [[tuple(ids[: ids.index(max(ids)) + 1]) for ids in of_picture] for of_picture in texts]
    longest_first = sorted(dict.fromkeys(ids for of_picture in ended for ids in of_picture), key=len, reverse=True)
    most = min(len(longest_first[0]), length)
    while (starts := place([min(len(ids), most) for ids in longest_first], rows, length)) is None:
        most -= 1
    tokens, segments, positions = np.zeros((3, 1, rows, length), np.int32)
    packed = Packed(tokens, segments, positions, np.empty((1, len(ended), len(ended[0]), 2), np.int32))
    number, ends = [0] * rows, dict[tuple[int, ...], tuple[int, int]]()
    for ids, (row, start) in zip(longest_first, starts, strict=True):
        kept = ids if len(ids) <= most else (*ids[: most - 1], ids[-1])
        end = start + len(kept)
        number[row] += 1
        packed.tokens[0, row, start:end] = kept
        packed.segments[0, row, start:end] = number[row]
        packed.positions[0, row, start:end] = range(len(kept))
        ends[ids] = row, end - 1
    packed.places[0] = [[ends[ids] for ids in of_picture] for of_picture in ended]
    return packed, sum(len(ids) > most for ids in longest_first)


def place(lengths: Sequence[int], rows: int, room: int) -> list[tuple[int, int]] | None:
    """(row, start) of each text, the longest first, in the first row that has room; None if one finds none."""
    used, starts = [0] * rows, []
    for n in lengths:
        row = next((row for row in range(rows) if used[row] + n <= room), None)
        if row is None:
            return None
        starts.append((row, used[row]))
        used[row] += n
    return starts
