"""Losses, gradients and parameters do not depend on the mesh, nor on ZeRO-1, which splits the moments over `data`."""

import jax
import numpy as np
import pytest
import tiny

pytestmark = pytest.mark.slow
STEPS = 3
MESHES = {"8x1x1 zero1": ((8, 1, 1), True), "2x4x1": ((2, 4, 1), False), "2x2x2 zero1": ((2, 2, 2), True)}
# Adam divides a gradient that is nothing but rounding (a bias before a norm has one) by its own size; this eps, in a
# gradient clipped to norm 5, leaves it small, and 1e-5 of a parameter means something: a step moves most by 1e-3.
EPS = 1e-2


def flat(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in jax.tree.leaves_with_path(tree)}


def trained(mesh, zero1):
    """(the run, its metrics of three noisy steps, its first moments after the first, its last parameters)."""
    config = tiny.config(mesh__zero1=zero1, optim__eps=EPS)
    run = tiny.Run(config, mesh)
    metrics = [run(tiny.batch(config, 0))]
    first = jax.device_get(run.state.opt_state[1][0].mu)
    metrics += [run(tiny.batch(config, n)) for n in range(1, STEPS)]
    return run, metrics, first, jax.device_get(run.state.params)


@pytest.fixture(scope="module")
def one_device():
    return trained(tiny.mesh(1, 1, 1), zero1=False)


@pytest.fixture(scope="module", params=MESHES)
def split(request):
    """A training on each mesh in turn."""
    sizes, zero1 = MESHES[request.param]
    return *trained(tiny.mesh(*sizes), zero1), zero1


def test_losses_gradients_and_parameters_are_those_of_one_device(split, one_device):
    (_, metrics, moments, params, _), (_, its_metrics, its_moments, its_params) = split, one_device
    for name in ("loss", "caption_loss", "multi_label_loss"):
        np.testing.assert_allclose([m[name] for m in metrics], [m[name] for m in its_metrics], rtol=1e-5)
    gradient, its_gradient = flat(moments), flat(its_moments)  # after one step the first moments are 0.1 of it, clipped
    norm = np.sqrt(sum(np.square(g).sum() for g in its_gradient.values()))
    for name, g in its_gradient.items():
        np.testing.assert_allclose(gradient[name], g, rtol=1e-5, atol=1e-5 * norm, err_msg=name)
    for (name, p), its in zip(flat(params).items(), jax.tree.leaves(its_params), strict=True):
        np.testing.assert_allclose(p, its, rtol=1e-5, atol=1e-5, err_msg=name)


def test_with_zero1_a_device_holds_its_part_of_the_moments_and_parameters_as_without(split):
    run, zero1 = split[0], split[-1]
    parts = run.mesh.shape["data"] if zero1 else 1
    held = lambda x: x.addressable_shards[0].data.nbytes  # noqa: E731
    params = flat(run.state.params)
    moments = {name: x for name, x in flat(run.state.opt_state).items() if x.ndim}
    assert len(moments) > len(params)
    for name, x in moments.items():
        parameter = params[name.split(".mu.")[-1].split(".nu.")[-1]]
        divides = any(n % parts == 0 for n in parameter.sharding.shard_shape(x.shape))
        assert held(x) * (parts if divides else 1) == held(parameter), name
    total = lambda arrays: sum(map(held, arrays.values()))  # noqa: E731
    assert total(moments) * parts < 2 * total(params) * 1.05  # almost all divide
    plain = tiny.program(tiny.config(), run.mesh).state
    assert jax.tree.all(jax.tree.map(lambda x, like: x.sharding == like.sharding, run.state.params, plain.params))
