"""The schedule, what decays, and AdamW with clipping against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import torch

from groupvit_jax.errors import InputError
from groupvit_jax.models import two_towers
from groupvit_jax.training import optim
from groupvit_jax.training import state as states

PEAK, START, END = 1.6e-3, 4e-6, 4e-5


def schedule(batch=4096, warmup=100, steps=1000):
    return optim.build(tiny.config(optim__lr_batch=4096).optim, batch, warmup, steps)[1]


@pytest.mark.parametrize("step, rate", [
    (0, START),
    (50, (START + PEAK) / 2),
    (100, END + (PEAK - END) * (1 + np.cos(np.pi * 0.1)) / 2),  # the cosine began at step 0
    (500, (END + PEAK) / 2),
    (1000, END),
    (2000, END),
])
def test_the_rate_rises_linearly_then_follows_a_cosine_over_the_whole_length(step, rate):
    np.testing.assert_allclose(schedule()(step), rate, rtol=1e-5)


def test_the_last_step_of_the_warm_up_is_just_below_the_peak():
    np.testing.assert_allclose(schedule()(99), START + (PEAK - START) * 0.99, rtol=1e-5)


def test_without_warm_up_training_begins_at_the_peak():
    np.testing.assert_allclose(schedule(warmup=0)(0), PEAK, rtol=1e-6)


@pytest.mark.parametrize("step", [0, 50, 100, 1000])
def test_the_rate_scales_linearly_with_the_batch(step):
    np.testing.assert_allclose(schedule(batch=1024)(step), schedule()(step) / 4, rtol=1e-6)


def test_a_warm_up_as_long_as_the_training_is_an_input_error():
    with pytest.raises(InputError, match="warm-up of 1000 steps .* 1000 steps.*warmup_epochs"):
        schedule(warmup=1000)


def test_an_unknown_field_of_the_optimizer_is_an_error():
    config = tiny.config().optim.unlock()
    config.beta1 = 0.9
    with pytest.raises(TypeError, match="beta1"):
        optim.build(config, 16, 1, 10)


@pytest.fixture(scope="module")
def mask():
    """Dotted parameter name -> (whether it decays, its rank), of the tiny model with both losses."""
    model = two_towers.build(tiny.config().model, multi_label=True)
    params = states.abstract_variables(model)["params"]
    names = lambda tree: {jax.tree_util.keystr(path, simple=True, separator="."): x  # noqa: E731
                          for path, x in jax.tree.leaves_with_path(tree)}
    decays, shapes = names(optim.decay_mask(params)), names(params)
    return {name: (decays[name], shapes[name].ndim) for name in shapes}


def test_no_bias_of_any_rank_decays(mask):
    biases = {name: value for name, value in mask.items() if name.endswith("bias")}
    assert {rank for _, rank in biases.values()} >= {1, 2, 3}  # heads and fused projections have biases of rank 2, 3
    assert not any(decays for decays, _ in biases.values())


def test_no_gain_of_a_norm_decays(mask):
    gains = [decays for name, (decays, _) in mask.items() if name.endswith(".scale")]
    assert len(gains) > 10 and not any(gains)


def test_kernels_positions_tokens_embedding_and_logit_scales_decay_and_nothing_else(mask):
    named = {"image.positions", "image.stage0_tokens", "image.stage1_tokens", "text.positions",
             "text.tokens.embedding", "caption_scale", "multi_label_scale"}
    assert named <= mask.keys()
    assert {name for name, (decays, _) in mask.items() if decays} == (
        named | {name for name in mask if name.endswith("kernel")})


def test_the_mask_is_the_same_on_parameters_boxed_with_their_axes(mask):
    model = two_towers.build(tiny.config().model, multi_label=True)
    boxed = jax.eval_shape(lambda key: states.init_variables(model, key), jax.random.key(0))["params"]
    assert jax.tree.leaves(optim.decay_mask(boxed)) == [decays for decays, _ in mask.values()]


def test_several_steps_are_those_of_pytorchs_adamw_after_its_clipping():
    rng = np.random.default_rng(0)
    shapes = {"layer": {"kernel": (4, 3), "bias": (3,)}, "caption_scale": ()}
    draw = lambda size: jax.tree.map(lambda s: (size * rng.normal(size=s)).astype(np.float32), shapes,  # noqa: E731
                                     is_leaf=lambda s: isinstance(s, tuple))
    params, gradients = draw(1.0), [draw(size) for size in (0.1, 30.0, 1.0, 0.01, 5.0)]  # some clipped, some not
    config = tiny.config(optim__lr=0.1, optim__lr_start=0.02, optim__lr_end=0.01).optim
    tx, rate = optim.build(config, 16, 2, 10)

    theirs = [torch.nn.Parameter(torch.from_numpy(np.array(x))) for x in jax.tree.leaves(params)]
    scale, bias, kernel = theirs
    adamw = torch.optim.AdamW([{"params": [scale, kernel], "weight_decay": 0.05},
                               {"params": [bias], "weight_decay": 0.0}], betas=(0.9, 0.999), eps=1e-8)
    ours, opt_state = jax.tree.map(jnp.asarray, params), tx.init(params)
    for step, gradient in enumerate(gradients):
        updates, opt_state = tx.update(gradient, opt_state, ours)
        ours = optax.apply_updates(ours, updates)
        for p, g in zip(theirs, jax.tree.leaves(gradient), strict=True):
            p.grad = torch.from_numpy(np.array(g))
        torch.nn.utils.clip_grad_norm_(theirs, 5.0)
        for group in adamw.param_groups:
            group["lr"] = float(rate(step))
        adamw.step()
    for p, x in zip(theirs, jax.tree.leaves(ours), strict=True):
        np.testing.assert_allclose(x, p.detach().numpy(), rtol=1e-4, atol=1e-6)
