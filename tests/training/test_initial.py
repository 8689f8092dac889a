"""Training that starts from given weights: which are taken, in what form, and what stays fresh."""

import contextlib

import jax
import numpy as np
import pytest
import tiny
import tiny_run
from flax import traverse_util

from groupvit_jax import parallel
from groupvit_jax.errors import InputError
from groupvit_jax.inference import load
from groupvit_jax.models import two_towers
from groupvit_jax.training import checkpoint, initial, loop, optim
from groupvit_jax.training import state as states
from groupvit_jax.training.checkpoint import Checkpoints


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run's workdir, and its variables."""
    workdir = tmp_path_factory.mktemp("source")
    tiny_run.save(workdir, tiny_run.config())
    return str(workdir), flat(checkpoint.load(str(workdir)).variables)


def flat(variables):
    return {name: np.asarray(x) for name, x in traverse_util.flatten_dict(variables, sep="/").items()}


def start(source, mesh=(8, 1, 1), **changes):
    """(the fresh state's variables, the started state)"""
    config = tiny_run.config(init_from__path=source[0], **changes)
    model = two_towers.build(config.model, multi_label=config.data.prompts > 0)
    tx, _ = optim.build(config.optim, config.data.batch, 1, 10)
    rng, mesh = np.random.default_rng(5), tiny.mesh(*mesh)
    with parallel.use(mesh):  # random numbers in a state's shardings: nothing is compiled
        fresh = jax.tree.map(lambda x: jax.device_put(rng.normal(size=x.shape).astype(x.dtype), x.sharding),
                             states.abstract(model, tx, mesh)).replace(step=np.int32(0))
        return flat(fresh.variables), initial.start(fresh, config), fresh


def test_everything_is_taken_and_optimizer_and_step_are_fresh(source):
    _, state, fresh = start(source)
    found = flat(state.variables)
    assert found.keys() == source[1].keys()
    for name, x in source[1].items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)
    assert int(state.step) == 0
    assert all((np.asarray(x) == y).all() for x, y in zip(jax.tree.leaves(state.opt_state),
                                                          jax.tree.leaves(fresh.opt_state)))


def test_the_weights_lie_as_the_mesh_says(source):
    _, state, fresh = start(source, mesh=(2, 2, 2))
    for (path, x), y in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(fresh), strict=True):
        assert x.dtype == y.dtype, jax.tree_util.keystr(path)
        assert path[0].name == "step" or x.sharding == y.sharding, jax.tree_util.keystr(path)


@pytest.mark.parametrize("parts", [("text",), ("image",), ("image", "image_projector"), ("scales",)])
def test_only_the_named_parts_are_taken(source, parts):
    before, state, _ = start(source, init_from__parts=parts)
    for name, x in flat(state.variables).items():
        expected = source[1] if initial.part_of(name) in parts else before
        np.testing.assert_array_equal(x, expected[name], err_msg=name)


def test_a_text_tower_goes_into_a_model_with_another_image_tower(source):
    _, state, _ = start(source, init_from__parts=("text",), model__image__width=32, model__projector__hidden=20)
    np.testing.assert_array_equal(state.params["text"]["positions"], source[1]["params/text/positions"])


def test_positions_are_resized_and_group_tokens_kept(source):
    _, state, _ = start(source, model__image__image_size=48)
    assert state.params["image"]["positions"].shape == (1, 36, 16)
    model, image = load(source[0]), np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), np.uint8)
    variables = jax.device_get(state.variables)
    both = []
    for side, weights in ((32, model.variables), (48, variables)):
        config = tiny_run.config(model__image__image_size=side)
        tower = two_towers.build(config.model, multi_label=True)
        encode = jax.jit(lambda weights, x, tower=tower: tower.apply(weights, x, method="encode_image").pooled)
        both.append(encode(weights, image / 255.0))
    np.testing.assert_allclose(*both, atol=1e-5)  # what the towers do at every call was done once
    np.testing.assert_array_equal(state.params["image"]["stage0_tokens"], source[1]["params/image/stage0_tokens"])


def test_shorter_texts_take_the_first_positions(source):
    _, state, _ = start(source, model__text__length=10)
    np.testing.assert_array_equal(state.params["text"]["positions"], source[1]["params/text/positions"][:10])


def test_other_gains_are_made_up_for(source):
    _, state, _ = start(source, model__image__assignment_gain=1.0, model__image__residual_gain=1.0)
    image = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    ours = two_towers.build(tiny_run.config(model__image__assignment_gain=1.0,
                                            model__image__residual_gain=1.0).model, multi_label=True)
    theirs = load(source[0])
    both = [jax.jit(model.apply, static_argnames="method")(jax.device_get(variables), image, method="encode_image")
            for model, variables in ((ours, state.variables), (theirs.module, theirs.variables))]
    np.testing.assert_allclose(both[0].segments, both[1].segments, atol=2e-5)


def test_a_model_without_the_second_loss_takes_no_scale_for_it_and_one_with_it_begins_afresh(source, tmp_path):
    _, state, _ = start(source, data__prompts=0)
    assert "multi_label_scale" not in state.params
    tiny_run.save(tmp_path, tiny_run.config(data__prompts=0))
    before, state, _ = start((str(tmp_path), None))
    assert state.params["multi_label_scale"] == before["params/multi_label_scale"]


@pytest.mark.parametrize("changes, words", [
    ({"model__image__width": 32}, r"params/image/.* has shape .* here .*'image' out of config.init_from.parts"),
    ({"model__text__length": 20}, r"params/text/positions has shape \(16, 16\) .*here \(20, 16\)"),
    ({"model__image__depths": (2, 0)}, r"stage0_block1.* is not in "),
])
def test_what_does_not_fit_is_named(source, changes, words):
    with pytest.raises(InputError, match=words):
        start(source, **changes)


def test_a_deeper_model_is_not_cut(tmp_path):
    tiny_run.save(tmp_path, tiny_run.config(model__text__depth=2))
    with pytest.raises(InputError, match="has params/text/block1.*, which is not in this model.*'text' out of"):
        start((str(tmp_path), None))


@pytest.mark.parametrize("parts", [("towers",), ()])
def test_parts_that_there_are_not(parts):
    with pytest.raises(InputError, match="config.init_from.parts"):
        initial.check(tiny_run.config(init_from__path="p", init_from__parts=parts), "workdir")


def test_a_run_does_not_go_on_in_a_folder_of_imported_weights(source, tmp_path):
    checkpoint.save_weights(tmp_path, checkpoint.load(source[0]))
    with contextlib.closing(Checkpoints(str(tmp_path))) as ours, pytest.raises(InputError, match="--config.init_from="):
        loop.resumable(ours, tiny_run.config(), str(tmp_path), run=None, force=False)
