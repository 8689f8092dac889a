"""The text tower's own claims."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from groupvit_jax import parallel
from groupvit_jax.models.text import TextTower, look_up

START, END = 98, 99


@pytest.fixture(scope="module")
def made():
    tower = TextTower(vocabulary=100, length=12, width=32, heads=2, depth=2)
    tokens = jnp.array([[START, 5, 6, 7, END, 0, 0, 0, 0, 0, 0, 0], [START, *range(1, 11), END]], jnp.int32)
    return jax.jit(tower.apply), jax.jit(tower.init)(jax.random.key(0), tokens), tokens


def test_nothing_after_end_of_text_changes_the_feature(made):
    apply, variables, tokens = made
    noisy = tokens.at[0, 5:].set(jnp.array([4, 50, 97, 1, 2, END, 3]))
    np.testing.assert_array_equal(apply(variables, noisy)[0], apply(variables, tokens)[0])


@pytest.mark.parametrize("position", range(4))
def test_every_token_before_end_of_text_changes_the_feature(made, position):
    apply, variables, tokens = made
    other = tokens.at[0, position].set(42)
    assert np.abs(apply(variables, other)[0] - apply(variables, tokens)[0]).max() > 1e-4


def test_padding_may_be_cut_away(made):
    apply, variables, tokens = made
    np.testing.assert_allclose(apply(variables, tokens[:1, :5]), apply(variables, tokens[:1]), atol=1e-6)


def test_the_words_order_matters(made):
    apply, variables, tokens = made
    turned = tokens.at[0, 1:4].set(jnp.array([7, 6, 5]))
    assert np.abs(apply(variables, turned)[0] - apply(variables, tokens)[0]).max() > 1e-4


@pytest.mark.parametrize("sizes", [None, (8, 1, 1), (2, 2, 2)], ids=str)
def test_rows_of_a_table_are_looked_up_and_get_the_sum_of_their_gradients(sizes):
    table, weights = jax.random.normal(jax.random.key(0), (20, 3)), jax.random.normal(jax.random.key(1), (8, 5, 3))
    ids = jax.random.randint(jax.random.key(2), (8, 5), 0, 20)
    gradient = jax.jit(jax.value_and_grad(lambda table: (look_up(table, ids, jnp.float32) * weights).sum()))
    with parallel.use(tiny.mesh(*sizes)) if sizes else contextlib.nullcontext():
        value, ours = gradient(np.asarray(table))
    np.testing.assert_allclose(value, (table[ids] * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(ours, jnp.zeros((20, 3)).at[ids].add(weights), atol=1e-5)


def test_gradients_of_a_bfloat16_tower_are_summed_in_float32_on_a_device():
    """A thousand ones: in bfloat16 256 + 1 is 256."""
    ids, gradient = jnp.zeros((8, 1000), jnp.int32), jax.jit(jax.grad(
        lambda table, ids: look_up(table, ids, jnp.bfloat16).sum()))
    np.testing.assert_array_equal(gradient(np.zeros((2, 1), np.float32), ids[:1, :999]), [[999], [0]])
    with parallel.use(tiny.mesh(8, 1, 1)):
        np.testing.assert_array_equal(gradient(np.zeros((2, 1), np.float32), ids), [[8000], [0]])
