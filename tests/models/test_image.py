"""The image tower's own claims: PyTorch's bicubic resize, stages by configuration, sizes that do not fit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from groupvit_jax.models.image import ImageTower, resize_positions
from groupvit_jax.models.layers import Block

SIZES = dict(image_size=64, patch_size=16, width=24, heads=2, mlp_ratio=2.0, drop_path=0.1)


def tower(**changes) -> ImageTower:
    stages = dict(depths=(2, 1, 1), group_tokens=(8, 4, 0), output_groups=(8, 4, 0))
    return ImageTower(**(SIZES | stages | changes))


@pytest.mark.parametrize("old, new", [((14, 14), (28, 28)), ((14, 14), (7, 7)), ((14, 14), (14, 20)),
                                      ((14, 14), (5, 31)), ((4, 4), (1, 3))], ids=str)
def test_positions_are_resized_as_pytorch_does(old, new):
    grid = np.random.default_rng(0).standard_normal((1, old[0] * old[1], 5)).astype(np.float32)
    ours = resize_positions(jnp.asarray(grid), old, new)
    grid = torch.from_numpy(grid).reshape(1, *old, 5).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).reshape(1, -1, 5), atol=1e-5)


@pytest.mark.parametrize("stages, groups", [
    (dict(depths=(2, 1, 1), group_tokens=(8, 4, 0), output_groups=(8, 4, 0)), (8, 4)),
    (dict(depths=(6, 6), group_tokens=(64, 0), output_groups=(8, 0)), (8,)),
], ids=["two stages", "one stage"])
def test_the_stages_are_configuration(stages, groups):
    model, images = tower(**stages), jnp.zeros((2, 64, 48, 3))
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images))
    assert [x.shape for x in out.assignments] == [(2, g, n) for g, n in zip(groups, (12, *groups))]
    assert out.segments.shape == (2, groups[-1], 24) and out.pooled.shape == (2, 24)
    blocks = [name for name in variables["params"] if "block" in name]
    assert len(blocks) == sum(stages["depths"])


@pytest.mark.parametrize("hw", [(64, 60), (50, 64)], ids=str)
def test_a_size_that_does_not_divide_into_patches_is_refused(hw):
    with pytest.raises(ValueError, match=f"{hw[0]}x{hw[1]}"):
        jax.eval_shape(lambda: tower().init(jax.random.key(0), jnp.zeros((1, *hw, 3))))


def test_drop_path_rises_linearly_over_all_blocks():
    model = tower(depths=(2, 1, 2), drop_path=0.2)
    rates = []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, Block) and context.method_name == "__call__":
            rates.append(context.module.drop_path)
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    np.testing.assert_allclose(rates, [0.0, 0.05, 0.1, 0.15, 0.2])


def test_group_tokens_start_random_in_the_first_stage_and_zero_in_the_next():
    init = jax.jit(tower().init, compiler_options={"xla_backend_optimization_level": 0})
    params = nn.unbox(init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))["params"]
    assert np.abs(params["stage0_tokens"]).max() > 0.01 and not params["stage1_tokens"].any()
    assert "stage2_tokens" not in params and "stage0_tokens_mlp" not in params


def test_positions_start_as_large_as_configured():
    for std in (0.02, 0.5):
        init = jax.jit(tower(depths=(0,), group_tokens=(4,), output_groups=(4,), position_std=std).init,
                       compiler_options={"xla_backend_optimization_level": 0})
        params = nn.unbox(init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))["params"]
        assert np.std(params["positions"]) == pytest.approx(std, rel=0.2)
