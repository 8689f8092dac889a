"""The health of the data: what batches say of themselves, summed, reported, and a stop when too much is bad."""

import numpy as np
import pytest

from groupvit_jax.data.bad import KINDS
from groupvit_jax.data.health import Health
from groupvit_jax.errors import InputError


def batch(pictures, cut=0, **bad):
    """Two groups' worth of counts; `bad` by kind with _ for blanks."""
    kinds = [bad.get(kind.replace(" ", "_"), 0) for kind in KINDS]
    return {"image": np.zeros((pictures, 2, 2, 3)), "bad": np.array([kinds, np.zeros_like(kinds)]),
            "cut": np.array([0, cut])}


def test_counts_are_taken_out_of_the_batch_and_summed():
    health, one = Health(0.5), batch(80, cut=4, broken_image=3)
    health.add(one)
    health.add(batch(80, broken_image=1, empty_caption=6))
    assert set(one) == {"image"}
    assert health.check(health.counts) == {"bad_samples": 10 / 170, "cut_texts": 4 / 160}
    health.add(batch(40, cut=1))
    assert health.check(health.counts) == {"bad_samples": 0, "cut_texts": 1 / 40}  # since then
    assert health.report(health.counts) == ("200 samples, 10 bad ones replaced (6 x empty caption, 4 x broken image); "
                                            "5 texts cut to fit their rows")


def test_more_bad_samples_than_the_limit_stop_the_run():
    health = Health(0.05)
    health.add(batch(990, broken_image=40))
    health.check(health.counts)
    health.add(batch(10, broken_image=30))
    with pytest.raises(InputError, match="70 of 1070 .*70 x broken image.*max_bad=0.05.*inspect"):
        health.check(health.counts)


def test_a_few_samples_say_nothing_yet():
    health = Health(0.0)
    health.add(batch(100, broken_image=50))
    health.check(health.counts)


def test_shards_that_lack_too_much_stop_a_run_before_it_begins():
    with pytest.raises(InputError, match="300 of 1300 samples in the shards.*300 x no caption"):
        Health(0.1).opened(1000, {"no caption": 300} | {kind: 0 for kind in KINDS if kind != "no caption"})
    Health(0.3).opened(1000, dict.fromkeys(KINDS, 0))
