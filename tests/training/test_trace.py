"""Which steps a trace is asked for; that a run writes one is tested in test_loop.py."""

import jax
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


@pytest.mark.parametrize("first, last, traced", [
    (1, 8, [3, 4, 5]),  # a whole run
    (5, 8, [5]),  # one that goes on from step 4
    (1, 4, [3, 4]),  # one that ends there
    (6, 8, []), (1, 2, []),
])
def test_the_steps_asked_for_are_traced_and_no_others(monkeypatch, tmp_path, first, last, traced):
    running, found = [], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: running.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: running.clear())
    made = trace.Trace((3, 5), str(tmp_path))
    for n in range(first, last + 1):
        with made.step(n):
            found += [n] if running else []
        made.done(n, ())
    made.close()
    assert found == traced and not running
    assert (tmp_path / "profile").exists() == bool(traced)
