"""The mesh, the table of axes, and batches made global."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from groupvit_jax import parallel
from groupvit_jax.errors import InputError
from groupvit_jax.models import two_towers
from groupvit_jax.training import state as states


def sizes(data, fsdp, tensor):
    return tiny.ConfigDict({"data": data, "fsdp": fsdp, "tensor": tensor})


def test_every_logical_axis_of_a_parameter_is_in_the_table():
    model = two_towers.build(tiny.config().model, multi_label=True)
    boxed = jax.eval_shape(lambda key: states.init_variables(model, key), jax.random.key(0))
    specs = jax.tree.leaves(nn.get_partition_spec(boxed), is_leaf=lambda x: isinstance(x, PartitionSpec))
    names = {name for spec in specs for name in spec}
    assert len(names) > 10 and names <= dict(parallel.RULES).keys()


def test_every_logical_axis_of_an_activation_is_in_the_table(monkeypatch):
    """Of those in the training step with micro-batches, and in the loss."""
    found, constrain = set(), nn.with_logical_constraint
    monkeypatch.setattr(nn, "with_logical_constraint",
                        lambda x, axes, **more: (found.update(axes), constrain(x, axes, **more))[1])
    tiny.program(tiny.config(train__microbatches=2), tiny.mesh(2, 2, 2)).trace()
    assert found >= {"batch", "length", "activation", "heads", "mlp"}
    assert found - {None} <= dict(parallel.RULES).keys()


def test_the_table_has_no_axis_twice_and_only_axes_of_the_mesh():
    names = [name for name, _ in parallel.RULES]
    assert len(names) == len(set(names))
    used = {axis for _, axes in parallel.RULES for axis in ([axes] if isinstance(axes, str) else axes or ())}
    assert used == set(parallel.MESH_AXES)


@pytest.mark.parametrize("asked, got", [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 8, -1), (1, 8, 1)),
                                        ((2, 2, 2), (2, 2, 2))])
def test_one_size_of_the_mesh_may_be_the_rest(asked, got):
    assert tuple(parallel.create_mesh(sizes(*asked)).shape.values()) == got


@pytest.mark.parametrize("asked", [(3, 1, 1), (-1, -1, 1), (-1, 3, 1), (0, 1, -1), (16, 1, 1), (-2, 1, -4), (4, 1, 1)])
def test_a_mesh_that_does_not_fit_the_devices_is_an_input_error(asked):
    with pytest.raises(InputError, match=r"config\.mesh .* 8 device"):
        parallel.create_mesh(sizes(*asked))


@pytest.mark.parametrize("batch", [0, 4, 12])
def test_a_batch_that_does_not_divide_over_the_devices_is_an_input_error(batch):
    with pytest.raises(InputError, match=rf"data\.batch={batch} .* multiple of 8"):
        parallel.check_batch(tiny.mesh(2, 4, 1), batch)


def test_a_batch_is_split_over_data_and_fsdp_and_not_over_tensor():
    parallel.check_batch(tiny.mesh(2, 2, 2), 4)
    x = parallel.to_global(tiny.mesh(2, 2, 2), {"x": np.arange(8)})["x"]
    shards = {device.id: shard.data.tolist() for device, shard in
              zip((s.device for s in x.addressable_shards), x.addressable_shards)}
    assert sorted(shards.values()) == [[0, 1]] * 2 + [[2, 3]] * 2 + [[4, 5]] * 2 + [[6, 7]] * 2


def test_one_process_reads_whole_batches_and_makes_them_global_in_order():
    mesh = tiny.mesh(2, 2, 2)
    assert parallel.share_of_batch(mesh) == (0, 1)
    batch = {"image": np.arange(16 * 3).reshape(16, 3), "text": np.arange(16)}
    made = parallel.to_global(mesh, batch)
    for name, x in batch.items():
        np.testing.assert_array_equal(made[name], x)
        assert made[name].sharding == parallel.batch_sharding(mesh)


def test_a_parameter_that_does_not_divide_is_an_input_error_that_names_it():
    model = two_towers.build(tiny.config(model__image__heads=2).model, multi_label=True)
    boxed = jax.eval_shape(lambda key: states.init_variables(model, key), jax.random.key(0))
    with pytest.raises(InputError, match=r"attention.*kernel.* does not divide .*'tensor': 8"):
        parallel.shardings_of(boxed, tiny.mesh(1, 1, 8))


@pytest.mark.parametrize("shape, spec, got", [
    ((4, 6), ("fsdp", "tensor"), (("fsdp", "data"), "tensor")),  # both are split: the first of them, further
    ((8, 6), ("fsdp", None), ("fsdp", "data")),  # one is whole: that one
    ((3, 2, 4), (None, "tensor", None), (None, "tensor", "data")),  # 3 does not divide
    ((2, 3), ("fsdp", None), ("fsdp", None)),  # nothing does
    ((4,), (), ("data",)), ((), (), ()),
])
def test_zero1_splits_over_data_the_first_axis_that_is_whole_and_divides(shape, spec, got):
    sharding = jax.sharding.NamedSharding(tiny.mesh(2, 2, 2), PartitionSpec(*spec))
    split = parallel.over_data(jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding))
    assert split.is_equivalent_to(jax.sharding.NamedSharding(tiny.mesh(2, 2, 2), PartitionSpec(*got)), len(shape))


def test_unboxing_gives_plain_arrays_and_keeps_the_others():
    boxed = {"a": nn.LogicallyPartitioned(jnp.ones(2), ("embed",)), "b": jnp.zeros(1)}
    assert all(isinstance(x, jax.Array) for x in parallel.unbox(boxed).values())


@pytest.mark.parametrize("same", [True, False])
def test_hosts_that_see_different_data_are_refused(monkeypatch, same):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(parallel.multihost_utils, "process_allgather",
                        lambda digest: np.stack([digest, digest if same else digest + 1]))
    lines = ["pattern", "gcc3m: 7 pairs; left out: none"]
    with contextlib.nullcontext() if same else pytest.raises(InputError, match="different data.*gcc3m: 7 pairs"):
        parallel.check_agreement(lines)
