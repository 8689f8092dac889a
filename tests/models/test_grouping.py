"""The grouping block's parts, without a reference beside them (tests/models/test_parity.py has that)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from groupvit_jax.models.grouping import GroupingBlock, hard_assignment
from groupvit_jax.models.layers import Inits, truncated_normal

C, G, M, N = 16, 3, 6, 10


@pytest.fixture(scope="module")
def made():
    block = GroupingBlock(groups=G, heads=2, mlp_ratio=2.0, inits=Inits(*[truncated_normal(0.3)] * 4))
    keys = jax.random.split(jax.random.key(0), 3)
    x, tokens = jax.random.normal(keys[0], (2, N, C)), jax.random.normal(keys[1], (2, M, C))
    init = jax.jit(block.init, compiler_options={"xla_backend_optimization_level": 0})
    return block, nn.unbox(init(keys[2], x, tokens)), x, tokens


def test_hard_assignment_is_one_hot_over_groups():
    logits = jax.random.normal(jax.random.key(1), (2, G, N))
    hard = hard_assignment(logits)
    assert hard.shape == (2, G, N)
    np.testing.assert_allclose(hard, jax.nn.one_hot(logits.argmax(axis=1), G, axis=1), atol=1e-6)


def test_hard_assignment_has_the_soft_assignments_gradient():
    logits, weights = jax.random.normal(jax.random.key(2), (2, 2, G, N))
    hard = jax.grad(lambda x: (hard_assignment(x) * weights).sum())(logits)
    soft = jax.grad(lambda x: (jax.nn.softmax(x, axis=-2) * weights).sum())(logits)
    np.testing.assert_allclose(hard, soft, atol=1e-7)
    assert np.abs(soft).max() > 0.01


def test_soft_assignment_is_a_distribution_over_groups(made):
    block, variables, x, tokens = made
    segments, soft = block.apply(variables, x, tokens)
    assert segments.shape == (2, G, C) and soft.shape == (2, G, N) and soft.dtype == jnp.float32
    np.testing.assert_allclose(soft.sum(axis=1), 1.0, atol=1e-6)


def test_a_group_takes_the_sum_of_its_tokens_over_their_number_plus_one(made):
    block, variables, x, tokens = made
    x = jnp.repeat(x[:, :1], N, axis=1)  # equal tokens: all go to one group, the others stay empty

    def averaged(n: int) -> jax.Array:
        """What reaches the output projection, for n equal tokens."""
        wanted = lambda module, _: module.name in ("v", "out")  # noqa: E731
        _, seen = block.apply(variables, x[:, :n], tokens, capture_intermediates=wanted,
                              mutable="intermediates")
        value, out = (seen["intermediates"][name]["__call__"][0] for name in ("v", "out"))
        kernel, bias = (variables["params"]["out"][name] for name in ("kernel", "bias"))
        return jnp.linalg.solve(kernel.T, (out - bias)[..., None])[..., 0], value[:, 0]  # [b g c], [b c]

    for n in (1, 4):
        groups, value = averaged(n)
        norms = jnp.linalg.norm(groups, axis=-1)  # [b g]
        winner = jnp.take_along_axis(groups, norms.argmax(axis=1)[:, None, None], axis=1)[:, 0]
        np.testing.assert_allclose(winner, value * n / (n + 1.0), atol=1e-3)
        np.testing.assert_allclose(jnp.sort(norms, axis=1)[:, :-1], 0.0, atol=1e-3)


def test_noise_enters_in_training_only_and_not_the_soft_assignment(made):
    block, variables, x, tokens = made

    def run(seed: int | None):
        return block.apply(variables, x, tokens, None if seed is None else jax.random.split(jax.random.key(seed), 2))

    (quiet, soft), (one, soft_one), (two, _) = run(None), run(1), run(2)
    assert np.abs(one - two).max() > 0.1 and np.abs(one - quiet).max() > 0.1
    np.testing.assert_array_equal(soft_one, soft)


def test_noise_picks_groups_as_often_as_the_soft_assignment_says(made):
    block, variables, x, tokens = made
    _, soft = block.apply(variables, x, tokens)
    keys = jax.random.split(jax.random.key(3), 20000)
    logits = jnp.log(soft[0, :, 0])
    picks = jax.vmap(lambda key: hard_assignment((logits + jax.random.gumbel(key, (G,)))[:, None]))(keys)
    np.testing.assert_allclose(picks.mean(axis=0)[:, 0], soft[0, :, 0], atol=0.02)
