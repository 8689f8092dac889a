"""The whole model: size, the projectors' statistics, logit scales, initial weights, the builder's errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from groupvit_jax.errors import InputError
from groupvit_jax.models.image import ImageTower
from groupvit_jax.models.layers import truncated_normal
from groupvit_jax.models.two_towers import Projector, build


def published() -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(dict(
        dtype="float32",
        image=dict(image_size=224, patch_size=16, width=384, heads=6, mlp_ratio=4.0, depths=(6, 3, 3),
                   group_tokens=(64, 8, 0), output_groups=(64, 8, 0), drop_path=0.1),
        text=dict(vocabulary=49408, length=77, width=256, heads=4, depth=12),
        projector=dict(hidden=4096, features=256)))


def small() -> ml_collections.ConfigDict:
    config = published()
    config.image.update(dict(image_size=32, width=16, heads=2, depths=(1, 1, 1), group_tokens=(4, 2, 0),
                             output_groups=(4, 2, 0)))
    config.text.update(dict(vocabulary=100, length=6, width=8, heads=2, depth=1))
    config.projector.update(dict(hidden=12, features=8))
    return config


def make(config: ml_collections.ConfigDict, multi_label: bool = True):
    model = build(config, multi_label)
    side, length = config.image.image_size, config.text.length
    inputs = jnp.zeros((2, side, side, 3)), jnp.zeros((2, 3, length), jnp.int32)
    return model, lambda: nn.unbox(model.init(jax.random.key(0), *inputs))


@pytest.fixture(scope="module")
def made():
    model, init = make(small())
    return model, jax.jit(init, compiler_options={"xla_backend_optimization_level": 0})()


def count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def test_the_published_model_with_the_multi_label_loss_has_55_726_610_parameters():
    _, init = make(published())
    assert count(jax.eval_shape(init)["params"]) == 55_726_610


def test_without_the_multi_label_loss_it_has_one_scale_less():
    _, init = make(published(), multi_label=False)
    params = jax.eval_shape(init)["params"]
    assert count(params) == 55_726_609 and "multi_label_scale" not in params


def test_text_statistics_are_those_of_all_texts_of_the_step(made):
    model, variables = made
    x = jax.random.normal(jax.random.key(1), (4, 3, 8)) * jnp.array([1.0, 5.0, 9.0])[:, None]
    y, updated = model.apply(variables, x, train=True, method="project_text", mutable=["batch_stats"])
    rows, rows_updated = model.apply(variables, x.reshape(12, 8), train=True, method="project_text",
                                     mutable=["batch_stats"])
    np.testing.assert_allclose(y.reshape(12, 8), rows, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updated, rows_updated)
    fc1 = variables["params"]["text_projector"]["fc1"]
    mean = (x.reshape(12, 8) @ fc1["kernel"] + fc1["bias"]).mean(axis=0)
    running = updated["batch_stats"]["text_projector"]["norm"]["mean"]
    np.testing.assert_allclose(running, 0.1 * mean, atol=1e-5)


def test_evaluation_uses_running_statistics_whatever_else_is_in_the_batch(made):
    model, variables = made
    x = jax.random.normal(jax.random.key(1), (5, 7, 16))
    whole = model.apply(variables, x, method="project_image")
    alone = model.apply(variables, x[2, 3], method="project_image")
    np.testing.assert_allclose(alone, whole[2, 3], atol=1e-6)


@pytest.mark.parametrize("method, name", [("logit_scale", "caption_scale"),
                                          ("multi_label_logit_scale", "multi_label_scale")])
def test_a_logit_scale_starts_at_one_over_0_07_and_stops_at_100(made, method, name):
    model, variables = made
    assert model.apply(variables, method=method) == pytest.approx(1 / 0.07, rel=1e-6)
    for value, want in ((np.log(99.0), 99.0), (np.log(101.0), 100.0), (10.0, 100.0)):
        changed = variables | {"params": variables["params"] | {name: jnp.float32(value)}}
        assert model.apply(changed, method=method) == pytest.approx(want, rel=1e-5)


def test_bfloat16_leaves_parameters_and_embeddings_in_float32():
    config = small()
    config.dtype = "bfloat16"
    model, init = make(config)
    variables = jax.eval_shape(init)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    out = jax.eval_shape(model.apply, variables, jnp.ones((2, 32, 32, 3)), jnp.ones((2, 3, 6), jnp.int32))
    assert {out["image"].dtype, out["texts"].dtype, out["assignments"][0].dtype} == {jnp.dtype("float32")}


def kernel_std(width: int) -> float:
    tower = ImageTower(image_size=32, patch_size=16, width=width, heads=2, mlp_ratio=4.0, depths=(1,),
                       group_tokens=(4,), output_groups=(2,), drop_path=0.0)
    init = jax.jit(lambda key: tower.init(key, jnp.zeros((1, 32, 32, 3)))["params"]["stage0_block0"])
    return float(nn.unbox(init(jax.random.key(0)))["mlp"]["fc1"]["kernel"].std())


def test_linear_weights_start_at_0_02_at_the_published_width_and_with_the_same_gain_at_others():
    wide, narrow = kernel_std(384), kernel_std(64)
    assert wide == pytest.approx(0.02, rel=0.01)
    assert narrow * 64**0.5 == pytest.approx(wide * 384**0.5, rel=0.03)


def test_no_initial_weight_is_an_outlier():
    """A cut far out is where float32's inverse error function puts one weight in eight million."""
    x = truncated_normal(0.02)(jax.random.key(0), (4, 384, 16384))
    assert np.abs(x).max() < 0.12


def test_projectors_start_as_pytorchs_linear_layers_do():
    params = nn.unbox(Projector(64, 8).init(jax.random.key(0), jnp.zeros((2, 100))))["params"]
    kernel = np.abs(np.asarray(params["fc1"]["kernel"]))
    assert 0.095 < kernel.max() <= 0.1 and kernel.mean() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("change, words", [
    ({"dtype": "float16"}, "float16.*bfloat16"),
    ({"image.image_size": 225}, "image_size=225.*patch_size=16"),
    ({"image.heads": 7}, "image.width=384.*heads=7"),
    ({"text.heads": 3}, "text.width=256.*heads=3"),
    ({"image.depths": (6, 6)}, "one entry a stage"),
    ({"image.group_tokens": (0, 0, 0)}, "no grouping stage"),
])
def test_sizes_that_do_not_go_together_are_refused_in_one_line(change, words):
    config = published()
    config.update_from_flattened_dict(change)
    with pytest.raises(InputError, match=words) as error:
        build(config, multi_label=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", ["image", "text", "projector"])
def test_an_unknown_field_is_an_error(section):
    config = published()
    config[section].wibble = 1
    with pytest.raises((InputError, TypeError), match="wibble"):
        build(config, multi_label=True)
