"""A step without a finite loss and gradient: what stays, what goes on, and that no other step is changed by that."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from groupvit_jax.training import step as steps

WAYS = {"one device": ((1, 1, 1), {}),
        "micro-batches on a mesh, with ZeRO-1": ((2, 2, 1), {"train__microbatches": 2, "mesh__zero1": True})}
SMALL = {"model__image__depths": (1, 0), "model__image__group_tokens": (4, 0), "model__image__output_groups": (4, 0)}
AUGMENT = steps.augment


def poisoned(keys, images, **how):
    """No numbers for a white picture."""
    white = (images == 255).all(axis=(1, 2, 3))
    return jnp.where(white[:, None, None, None], jnp.nan, AUGMENT(keys, images, **how))


def host(state):
    return jax.tree.map(np.array, jax.device_get(state))


def start(mesh, changes):
    config = tiny.config(**SMALL, **changes)
    return tiny.Run(config, tiny.mesh(*mesh)), functools.partial(tiny.batch, config)


def train(way, number=3):
    """(metrics of each step, host states before, between and after them); the second step has a white picture."""
    run, batch = start(*WAYS[way])
    metrics, states = [], [host(run.state)]
    for n in range(number):
        made = batch(n)
        if n == 1:
            made["image"][5] = 255
        metrics.append(run(made))
        states.append(host(run.state))
    assert run.step._cache_size() == 1
    return metrics, states


@pytest.fixture(scope="module", autouse=True)
def _poisoned():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "augment", poisoned)
        yield


@pytest.fixture(scope="module", params=WAYS)
def skipped(request):
    return *train(request.param), request.param


def floats(state):
    return {jax.tree_util.keystr(path): x for path, x in jax.tree.leaves_with_path(state)
            if np.issubdtype(x.dtype, np.floating)}


def test_the_step_says_that_it_was_skipped(skipped):
    metrics = skipped[0]
    assert [m["skipped"] for m in metrics] == [0.0, 1.0, 0.0]
    assert [np.isfinite(m["loss"]) for m in metrics] == [True, False, True]
    assert metrics[1]["update_ratio"] == 0.0 and metrics[2]["update_ratio"] > 0.0


def test_parameters_statistics_and_moments_stay_bit_for_bit(skipped):
    _, before, after, _ = skipped[1]
    assert len(floats(before)) > 4 * len(jax.tree.leaves(before.batch_stats))
    for (name, a), b in zip(floats(before).items(), floats(after).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_the_step_and_the_optimizers_counts_go_on_and_the_rate_with_them(skipped):
    metrics, states, _ = skipped
    for n, state in enumerate(states):
        counts = [x for x in jax.tree.leaves(state) if np.issubdtype(x.dtype, np.integer)]
        assert len(counts) == 3 and all(x == n for x in counts)  # the step's, Adam's, the schedule's
    rates = [m["learning_rate"] for m in metrics]
    assert rates[:2] == pytest.approx([4e-6, (4e-6 + 1.6e-3) / 2]) and rates[2] > rates[1]


def test_the_next_step_trains_on(skipped):
    before, after = skipped[1][2:]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    assert not any(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (before.params, after.params))))


def test_a_finite_step_is_bit_for_bit_what_it_is_unguarded(skipped, monkeypatch):
    metrics, states, way = skipped
    monkeypatch.setattr(steps, "kept", lambda finite, new, old: new)
    unguarded = train(way, 1)
    jax.tree.map(np.testing.assert_array_equal, unguarded, (metrics[:1], states[:2]))


def test_a_gradient_too_long_for_a_number_is_skipped_though_the_loss_is_finite(monkeypatch):
    contrastive = steps.contrastive

    def steep(outputs, **how):  # the same loss, with a gradient whose squares overflow
        loss, metrics = contrastive(outputs, **how)
        return loss + 1e20 * (loss - jax.lax.stop_gradient(loss)), metrics

    monkeypatch.setattr(steps, "contrastive", steep)
    run, batch = start((1, 1, 1), {})
    before = host(run.state)
    metrics = run(batch(0))
    assert np.isfinite(metrics["loss"]) and metrics["gradient_norm"] == np.inf and metrics["skipped"] == 1.0
    jax.tree.map(np.testing.assert_array_equal, before.params, host(run.state).params)
