"""Which sample stands where: an endless sequence of draws, a pure function of the seed and the place.

A batch is made of groups of pictures, and the same group of all batches is a lane: lane g makes the g-th group of every
batch. Sets are mixed and walked through lane by lane, so that a process that makes some of the groups reads stretches
of its own of a remote set, whatever the other processes do. Where random reads are cheap (blocks of one sample) that
amounts to one global shuffle of a set. Nothing has to be remembered: the place in the data is the number of the step.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import grain
import numpy as np


class Order:
    """`order(lane, draw)` -> (number of the set, index in it).

    Draws number a lane's samples from 0. Over the lanes each set gives its share of the draws at all times, to within a
    few samples, and exactly in the long run. Each set is walked through once an epoch, in a new order each time.

    Args:
      lengths: samples of each set.
      weights: how often each set is drawn, relative to the others; all 0: as often as it is long.
      blocks: of each set, how many neighbouring samples a lane takes in one stretch, in an order of their own; 1: none.
        Fewer where the set has less; an epoch leaves out less than one sample a block, other ones each time.
      lanes: number of lanes.
      seed: of all permutations.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float], blocks: Sequence[int], lanes: int, seed: int):
        self.lanes = lanes
        self.mixing = mixing([weight or length for weight, length in zip(weights, lengths, strict=True)], lanes)
        self.walks = [Walk(*of_set, seed + i) for i, of_set in enumerate(zip(lengths, blocks, strict=True))]

    def __call__(self, lane: int, draw: int) -> tuple[int, int]:
        number = 0
        for weight, total, stride in self.mixing:
            # Bresenham's line: in `draw` draws the set had floor(draw * weight / total) of them. Each lane begins at
            # another phase, evenly spread, so that their sum is exact too.
            phase = lane * stride % self.lanes * total // self.lanes
            before = (draw * weight + phase) // total
            if ((draw + 1) * weight + phase) // total > before:
                break
            number, draw = number + 1, draw - before  # the other sets share the rest
        else:
            before = draw
        return number, self.walks[number](lane, self.lanes, before)


def mixing(weights: Sequence[float], lanes: int) -> list[tuple[int, int, int]]:
    """Of each set but the last: (weight, that and all later ones' together) in whole numbers, stride of the phases."""
    fractions = [Fraction(str(weight)) for weight in weights]  # 0.1 means a tenth
    whole = math.lcm(*(f.denominator for f in fractions))
    parts = [int(f * whole) for f in fractions]
    levels = []
    for i, weight in enumerate(parts[:-1]):
        # The lanes that a set passes over are neighbours: another stride spreads them evenly for the next set.
        stride = next(s for s in range(max(1, round(lanes * 0.618**i) % lanes), lanes + 2) if math.gcd(s, lanes) == 1)
        levels.append((weight, sum(parts[i:]), stride))
    return levels


class Walk:
    """The ways of all lanes through one set, epoch after epoch."""

    def __init__(self, length: int, block: int, seed: int):
        self.length, self.blocks = length, max(1, length // block)
        self.size, self.seed = length // self.blocks, seed
        self.large = grain.MapDataset.range(self.blocks).seed(seed).shuffle().repeat()

    def __call__(self, lane: int, lanes: int, count: int) -> int:
        """Index of what a lane draws after `count` samples of this set."""
        turn, i = divmod(count, self.size)
        number = turn * lanes + lane  # of the block, over all lanes and epochs
        epoch, place = divmod(number, self.blocks)
        if self.blocks > _LARGE:
            block = self.large[number]
        else:
            block = int(_of_epoch(self.blocks, self.seed, epoch)[place])
        if self.size == 1:
            return block
        shift = epoch * 0x9E3779B97F4A7C15  # other bounds each epoch
        return (block * self.size + int(_of_block(self.size, self.seed, number)[i]) + shift) % self.length


def permutation(size: int, seed: int, turn: int) -> np.ndarray:
    return np.random.default_rng([seed, turn]).permutation(size).astype(np.int32)


# Grain's shuffle of huge sets needs no memory, but takes milliseconds an index where a set is small.
_LARGE = 1 << 16
_of_epoch = functools.lru_cache(maxsize=16)(permutation)
_of_block = functools.lru_cache(maxsize=4096)(permutation)
