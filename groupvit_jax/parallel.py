"""How arrays lie on devices: the mesh, the one table of logical axis -> mesh axis, and batches made global."""

import contextlib
import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from groupvit_jax.errors import InputError

MESH_AXES = ("data", "fsdp", "tensor")

# Every logical axis a module names, and the mesh axis it is split over. A name that is missing here would silently
# mean "replicated": a test compares this table with the names in use.
RULES = (
    # activations
    ("batch", ("data", "fsdp")),
    ("length", None),
    ("activation", None),  # channels of an activation stay whole, so that FSDP gathers weights and not activations
    # parameters
    ("embed", "fsdp"),
    ("embed_out", "tensor"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("hidden", "tensor"),
    ("vocabulary", "tensor"),
    ("qkv", None),
    ("head_dim", None),
    ("projection", None),
    ("positions", None),
    ("tokens", None),
    ("patch", None),
    ("norm", None),
    ("one", None),
)


def create_mesh(config) -> jax.sharding.Mesh:
    """The mesh of `config.mesh` ({data, fsdp, tensor}; one of them may be -1, "the rest") over all devices.

    Raises InputError when the sizes do not multiply to the number of devices.
    """
    sizes = [config[axis] for axis in MESH_AXES]
    n = jax.device_count()
    fixed = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) == 1 and fixed > 0 and n % fixed == 0:
        sizes[sizes.index(-1)] = n // fixed
    if math.prod(sizes) != n or min(sizes) < 1:
        raise InputError(f"config.mesh {dict(config)} does not fit {n} device(s): its sizes must multiply to {n} "
                         "(one of them may be -1 for the rest)")
    # Explicit axes, JAX's default now, make linen's logical constraints assertions; here the compiler places arrays.
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh):
    """Makes the mesh and RULES current: wrap creating the state, training and evaluation in it."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The first axis over data and fsdp, the others whole."""
    return NamedSharding(mesh, PartitionSpec(dict(RULES)["batch"]))


def check_batch(mesh: jax.sharding.Mesh, batch: int) -> None:
    """Raises InputError when a global batch does not divide over the mesh and the processes."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch < 1 or batch % ways or batch % jax.process_count():
        raise InputError(f"config.data.batch={batch} is not divisible by the {ways} devices it is split over "
                         f"(mesh data x fsdp): take a multiple of {math.lcm(ways, jax.process_count())}")


def to_global(mesh: jax.sharding.Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's share of a batch (numpy, rows of the global batch) -> global arrays on the mesh."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}


def unbox(tree: Any) -> Any:
    """Plain arrays for arrays boxed with their logical axes (`nn.unbox` would also constrain them one by one)."""
    boxed = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
    return jax.tree.map(lambda x: x.value if boxed(x) else x, tree, is_leaf=boxed)


def shardings_of(abstract: Any, mesh: jax.sharding.Mesh) -> Any:
    """A pytree of boxed abstract arrays (what `jax.eval_shape` of an init gives) -> their NamedShardings.

    Raises InputError when an axis does not divide over its mesh axis.
    """
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(abstract), mesh, RULES)
    leaves = jax.tree.leaves_with_path(unbox(abstract))
    for (path, x), sharding in zip(leaves, jax.tree.leaves(shardings), strict=True):
        try:
            sharding.shard_shape(x.shape)
        except ValueError:
            raise InputError(f"parameter {jax.tree_util.keystr(path)} of shape {x.shape} does not divide over mesh "
                             f"{dict(mesh.shape)} as {sharding.spec}: choose other config.mesh sizes") from None
    return shardings
