"""Totals of programs that the TPU compiler made, where arithmetic says what they must be."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from groupvit_jax.aot import cost, hlo, topology

pytest.importorskip("libtpu")
C = 1024  # channels


@pytest.fixture(scope="module")
def measure():
    """Compiles a function of arrays sharded over the chips of v5e:2x4, along their first axis."""
    mesh = jax.make_mesh((8,), ("chips",), axis_types=(AxisType.Auto,), devices=topology.find("v5e:2x4").devices)

    def call(function, *shapes):
        inputs = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec("chips")))
                  for shape in shapes]
        with jax.set_mesh(mesh):
            return cost.measure(hlo.parse(jax.jit(function).lower(*inputs).compile().as_text()))

    return call


def test_weights_gathered_while_the_chips_compute_count_once(measure):
    """The compiler repeats such an all-gather in each fusion that it runs beside."""
    def mlp(x, *weights):
        for w in weights:
            x = jax.nn.relu(x @ jax.lax.with_sharding_constraint(w, PartitionSpec()))
            x = jax.lax.with_sharding_constraint(x, PartitionSpec("chips"))
        return x

    found = measure(mlp, (8 * 2048, C), (C, 4 * C), (4 * C, C), (C, 4 * C), (4 * C, C))
    assert found.collective_bytes == {"all-gather": 4 * (4 * C * C * 2)}


def test_a_scan_costs_its_body_as_often_as_it_is_long(measure):
    def scan(length):
        body = lambda x, _: (jnp.tanh(x @ x.T @ x), None)  # noqa: E731
        return lambda x: jax.lax.scan(body, x.reshape(8, -1, C)[0], length=length)[0]

    short, long, longer = (measure(scan(n), (8 * C, C)) for n in (6, 12, 36))
    assert longer.cycles - long.cycles == pytest.approx(4 * (long.cycles - short.cycles), rel=0.05)
    assert long.cycles > 1.5 * short.cycles and longer.endless == 0


def test_a_loop_that_data_end_is_told(measure):
    found = measure(lambda x: jax.lax.while_loop(lambda x: x.sum() < 100, lambda x: x * 2, x), (8, C))
    assert found.endless == 1


def test_the_same_program_is_estimated_the_same_again(measure):
    first, second = (measure(lambda x: jnp.tanh(x @ x.T) @ x, (8 * C, C)) for _ in range(2))
    assert first.cycles == second.cycles > 0 and first.collective_bytes == second.collective_bytes
