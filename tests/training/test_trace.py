"""Which steps a trace is asked for; that a run writes one is tested in test_loop.py."""

import pytest

from groupvit_jax.errors import InputError
from groupvit_jax.training import trace


@pytest.mark.parametrize("profile", [(), (1, 1), (100, 105), (1, 200)])
def test_no_steps_or_the_first_and_the_last(profile):
    trace.check(profile, 200)


@pytest.mark.parametrize("profile", [(100,), (0, 5), (105, 100), (100, 201), (1, 2, 3), ("a", "b"), (1.0, 2.0),
                                     (True, 2)])
def test_other_values_are_refused_with_an_example(profile):
    with pytest.raises(InputError, match=r"config\.train\.profile=\(.*give the first and the last.*\(100, 105\).*200"):
        trace.check(profile, 200)
