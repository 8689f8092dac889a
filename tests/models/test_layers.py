"""The forms that are chosen for TPUs are those for all others, computed in another order; here both run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from groupvit_jax.models import attention, layers


def arrays(*shapes, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes)]


# Group tokens and patches of the published model; of a larger picture; one head, odd heads, exactly a row of lanes.
@pytest.mark.parametrize("heads, queries", [(6, 260), (2, 848), (1, 130), (3, 256), (2, 129)])
def test_attention_in_parts_is_attention_and_so_is_its_gradient(heads, queries):
    q, k, v, weights = arrays(*[(2, heads, queries, 8)] * 4)

    def both(attend):
        loss = lambda q, k, v: (attend(q, k, v) * weights).sum()  # noqa: E731
        return jax.jit(lambda *x: (attend(*x), jax.grad(loss, argnums=(0, 1, 2))(*x)))(q, k, v)

    ours, whole = both(attention.attend_in_parts), both(attention.attend_whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, whole)


def test_256_queries_and_the_few_that_remain_are_apart():
    """And two heads of three are apart from the third; so there are four products with keys."""
    q, k, v = arrays(*[(1, 3, 260, 8)] * 3)
    text = str(jax.make_jaxpr(attention.attend_in_parts)(q, k, v))
    for heads, queries in ((2, 256), (1, 256), (2, 4), (1, 4)):
        assert f"f32[1,{heads},{queries},260]" in text
    assert "f32[1,3,260,260]" not in text


@pytest.mark.parametrize("dtype, rtol", [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
def test_the_gradient_of_a_bias_by_a_product_with_ones_is_a_sum(dtype, rtol):
    (gradient,) = arrays((4, 260, 3, 8), dtype=dtype)
    by_product = layers.gradient_by_product(gradient)
    assert by_product.dtype == dtype
    np.testing.assert_allclose(by_product.astype(jnp.float32), gradient.astype(jnp.float32).sum((0, 1)), rtol=rtol,
                               atol=rtol)


def test_a_bias_has_its_gradient():
    x, bias, weights = arrays((2, 5, 3, 4), (3, 4), (2, 5, 3, 4))
    of_x, of_bias = jax.grad(lambda x, bias: (layers.add_bias(x, bias) * weights).sum(), argnums=(0, 1))(x, bias)
    np.testing.assert_allclose(of_bias, weights.sum((0, 1)), rtol=1e-5)
    np.testing.assert_array_equal(of_x, weights)


def test_gelu_is_by_the_error_function():
    x = jnp.linspace(-6, 6, 101)
    np.testing.assert_allclose(layers.exact_gelu(x), jax.nn.gelu(x, approximate=False), atol=5e-7)
    assert np.abs(layers.exact_gelu(x) - jax.nn.gelu(x)).max() > 1e-4
