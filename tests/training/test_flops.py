"""Operations counted in programs that can be counted by hand."""

import jax
import jax.numpy as jnp
import pytest
import tiny

from groupvit_jax import parallel
from groupvit_jax.models import two_towers
from groupvit_jax.training import flops
from groupvit_jax.training import program as programs

X, W = jnp.ones((8, 16)), jnp.ones((16, 32))


def count(function, *inputs):
    return flops.count(jax.make_jaxpr(function)(*inputs).jaxpr)


@pytest.mark.parametrize("function, inputs, products", [
    (lambda x, w: jnp.tanh(x @ w) + 1, (X, W), 8 * 16 * 32),
    (lambda x, w: jnp.einsum("bij,bjk->bik", x, w), (jnp.ones((5, 2, 3)), jnp.ones((5, 3, 4))), 5 * 2 * 3 * 4),
    (jax.jit(lambda x, w: jax.checkpoint(jnp.matmul)(x, w)), (X, W), 8 * 16 * 32),
    (lambda x, w: jax.lax.scan(lambda x, _: (x @ w @ w.T, None), x, length=7)[0], (X, W), 7 * 2 * 8 * 16 * 32),
    (lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w @ w.T, lambda: x), (X, W), 2 * 8 * 16 * 32),
    (lambda x, k: jax.lax.conv(x, k, (4, 4), "VALID"), (jnp.ones((2, 3, 8, 8)), jnp.ones((6, 3, 4, 4))),
     2 * 6 * 2 * 2 * 3 * 4 * 4),
])  # fmt: skip
def test_each_product_counts_two_operations_as_often_as_it_runs(function, inputs, products):
    assert count(function, *inputs) == 2 * products


def test_a_model_s_operations_grow_with_the_batch_and_with_padding():
    def of(**changes):
        config = tiny.config(**changes)
        model = two_towers.build(config.model, multi_label=True)
        return flops.forward_flops(model, programs.abstract_batch(config.data, model, parallel.create_mesh()))

    padded = of(data__packing=False)
    assert of(data__packing=False, data__batch=32) == 2 * padded
    assert of(data__pack_length=16, data__caption_tokens=4.0, data__prompt_tokens=4.0) < padded


def test_the_published_towers_take_the_operations_that_their_sizes_say():
    """Blocks only: the rest of the model is within the tolerance."""
    config = tiny.base.get_config()
    model = two_towers.build(config.model, multi_label=True)
    batch = programs.abstract_batch(config.data, model, parallel.create_mesh())
    c, linear = 384, 12 * 384**2  # a block's multiplications a token
    blocks = sum(depth * (n * linear + 2 * n * n * c) for depth, n in zip((6, 3, 3), (260, 72, 8)))
    w, rows = 256, config.data.batch // 8 * 3  # rows of 128 positions for 8 pictures
    texts = 12 * (128 * 12 * w**2 + 2 * 128**2 * w) * rows / config.data.batch
    assert 2 * (blocks + texts) * config.data.batch == pytest.approx(flops.forward_flops(model, batch), rel=0.2)
