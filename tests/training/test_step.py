"""State and step on meshes of devices: where things lie, and that nothing depends on it."""

import jax
import numpy as np
import pytest
import tiny

from groupvit_jax import parallel
from groupvit_jax.data.packing import Packed, pack
from groupvit_jax.training import vitals

STEPS = 3
MESHES = {"2x2x2": (2, 2, 2), "8x1x1": (8, 1, 1), "2x4x1": (2, 4, 1), "1x1x1": (1, 1, 1)}


def flat(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in jax.tree.leaves_with_path(tree)}


def tolerance(metric):
    """A norm of gradients in the hundreds, through the hard assignment, keeps fewer digits than a loss, and so does
    what Adam makes of the smallest ones."""
    return 1e-4 if "norm" in metric or metric == "update_ratio" else 1e-5


@pytest.fixture(scope="module")
def runs():
    """On each mesh: the run, its metrics of three steps, and on the host its state before and after the first."""
    made = {}

    def run_on(name):
        if name not in made:
            config = tiny.config()
            run = tiny.Run(config, tiny.mesh(*MESHES[name]))
            before = jax.device_get(run.state)
            metrics = [run(tiny.batch(config, 0))]
            first = jax.device_get(run.state)
            made[name] = run, metrics + [run(tiny.batch(config, n)) for n in range(1, STEPS)], before, first
        return made[name]

    return run_on


def test_a_parameter_lies_in_as_many_pieces_as_the_table_says(runs):
    params = flat(runs("2x2x2")[0].state.params)
    for name, pieces in {"image.stage0_block0.mlp.fc1.kernel": 4,  # embed over fsdp, mlp over tensor
                         "text.tokens.embedding": 4, "image.stage0_block0.attention.qkv.kernel": 4,
                         "image.positions": 2, "image.norm.scale": 1, "caption_scale": 1}.items():
        shards = params[name].addressable_shards
        assert len({str(shard.index) for shard in shards}) == pieces, name
        assert all(shard.data.size * pieces == params[name].size for shard in shards), name


def test_the_optimizers_moments_lie_as_their_parameters_do(runs):
    state = runs("2x2x2")[0].state
    params = flat(state.params)
    moments = {name: x for name, x in flat(state.opt_state).items() if ".mu." in name or ".nu." in name}
    assert len(moments) == 2 * len(params)
    for name, x in moments.items():
        parameter = params[name.split(".mu.")[-1].split(".nu.")[-1]]
        assert x.shape == parameter.shape and x.sharding == parameter.sharding, name


@pytest.mark.parametrize("name", ["8x1x1", "2x4x1", "2x2x2"])
def test_losses_and_metrics_of_noisy_steps_do_not_depend_on_the_mesh(runs, name):
    """Flip, erasing, drop-path and Gumbel noise are on: random numbers must not depend on the mesh either."""
    for ours, one_device in zip(runs(name)[1], runs("1x1x1")[1], strict=True):
        assert ours.keys() == one_device.keys()
        for metric, value in one_device.items():
            np.testing.assert_allclose(ours[metric], value, rtol=tolerance(metric), err_msg=metric)


def test_the_initial_state_does_not_depend_on_the_mesh(runs):
    for (name, a), b in zip(flat(runs("2x2x2")[2]).items(), jax.tree.leaves(runs("1x1x1")[2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7, err_msg=name)


def test_the_statistics_of_batch_norm_are_those_of_the_global_batch(runs):
    run, _, before, first = runs("8x1x1")
    batch = tiny.batch(tiny.config())
    text = run.model.apply(before.variables, batch["text"], method="encode_text")  # no noise in this tower
    projector = before.params["text_projector"]["fc1"]
    rows = np.asarray(text, np.float64).reshape(-1, text.shape[-1]) @ projector["kernel"] + projector["bias"]
    statistics = first.batch_stats["text_projector"]["norm"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * rows.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * rows.var(axis=0), rtol=1e-4)


def test_a_step_changes_every_parameter_of_both_towers(runs):
    _, _, before, first = runs("1x1x1")
    same = [name for (name, a), b in zip(flat(before.params).items(), jax.tree.leaves(first.params), strict=True)
            if np.array_equal(a, b)]
    assert not same
    assert int(first.step) == 1


def test_the_state_is_donated_and_several_steps_compile_once(runs):
    run = runs("8x1x1")[0]  # after three steps
    donated = run.state
    run(tiny.batch(tiny.config()))
    assert all(x.is_deleted() for x in jax.tree.leaves(donated.params))
    assert all(x.is_deleted() for x in jax.tree.leaves(donated.opt_state))
    assert run.step._cache_size() == 1
    assert {x.sharding for x in jax.tree.leaves(run.state)} == {x.sharding for x in jax.tree.leaves(donated)}


def test_metrics_are_replicated_scalars_and_the_rate_is_the_steps_own(runs):
    run, metrics, _, _ = runs("2x2x2")
    assert [m["learning_rate"] for m in metrics[:2]] == pytest.approx([4e-6, (4e-6 + 1.6e-3) / 2])
    batch = parallel.to_global(run.mesh, tiny.batch(tiny.config()))
    with parallel.use(run.mesh):
        _, raw = run.step(jax.tree.map(lambda x: x.copy(), run.state), batch)
    assert all(x.shape == () and x.dtype == np.float32 and x.is_fully_replicated for x in raw.values())


def test_metrics_are_those_of_the_losses_the_towers_and_each_stage_that_groups(runs):
    of_stages = {f"{name}_{stage}" for name in ("groups_used", "largest_group", "assignment_entropy")
                 for stage in (0, 1)}
    assert runs("1x1x1")[1][0].keys() == of_stages | {
        "loss", "caption_loss", "multi_label_loss", "logit_scale", "multi_label_scale", "accuracy", "image_spread",
        "text_spread", "gradient_norm", "gradient_norm_image", "gradient_norm_text", "update_ratio", "learning_rate",
        "skipped"}


def norm(tree):
    return np.sqrt(sum(np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(tree)))


def test_the_norm_of_a_towers_gradient_takes_in_its_projector_and_nothing_else(runs):
    """After one step Adam's first moment is a tenth of the clipped gradient."""
    _, metrics, _, first = runs("1x1x1")
    moments, metrics = first.opt_state[1][0].mu, metrics[0]
    assert metrics["gradient_norm"] > 5.0  # so that it is clipped to that
    for tower in ("image", "text"):
        of_tower = norm([moments[tower], moments[f"{tower}_projector"]]) * 10 * metrics["gradient_norm"] / 5.0
        np.testing.assert_allclose(metrics[f"gradient_norm_{tower}"], of_tower, rtol=1e-4)


def test_the_update_ratio_is_the_share_of_its_length_that_the_parameters_moved(runs):
    _, metrics, before, first = runs("1x1x1")
    difference = jax.tree.map(lambda a, b: np.float64(a) - b, first.params, before.params)
    moved = norm(vitals.sampled(difference)) / norm(vitals.sampled(before.params))
    np.testing.assert_allclose(metrics[0]["update_ratio"], moved, rtol=1e-3)


@pytest.mark.parametrize("name", ["1x1x1", "2x2x2"])
def test_a_step_on_packed_texts_is_the_step_on_padded_ones(runs, name):
    config = tiny.config()
    batch = tiny.batch(config)
    packed = Packed(*(np.concatenate(parts) for parts in zip(*(
        pack(group, rows=4, length=16)[0] for group in batch["text"].reshape(8, 2, 3, -1).tolist()))))
    metrics = tiny.Run(config, tiny.mesh(*MESHES[name]))(batch | {"text": packed})
    for metric, value in runs("1x1x1")[1][0].items():
        np.testing.assert_allclose(metrics[metric], value, rtol=tolerance(metric), err_msg=metric)
