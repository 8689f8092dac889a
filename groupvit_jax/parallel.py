"""How arrays lie on devices: the mesh, the one table of logical axis -> mesh axis, and batches made global."""

import contextlib
import functools
import hashlib
import math
import os
import types
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils
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


def cores_as_devices() -> None:
    """Makes each core of a CPU a device of its own, for work that splits into independent parts: JAX spreads what is in
    a loop over no cores. Does nothing where that is settled already."""
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with contextlib.suppress(RuntimeError):  # JAX is running
            jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 16))


def create_mesh(config: Any = types.MappingProxyType({"data": -1, "fsdp": 1, "tensor": 1}),
                devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """The mesh of `config.mesh` ({data, fsdp, tensor}; one of them may be -1, "the rest") over all devices there are,
    or over `devices`.

    Raises InputError when the sizes do not multiply to the number of devices.
    """
    asked = {axis: config[axis] for axis in MESH_AXES}
    sizes = list(asked.values())
    n = jax.device_count() if devices is None else len(devices)
    fixed = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) == 1 and fixed > 0 and n % fixed == 0:
        sizes[sizes.index(-1)] = n // fixed
    if math.prod(sizes) != n or min(sizes) < 1:
        raise InputError(f"config.mesh {asked} does not fit {n} device(s): its sizes must multiply to {n} "
                         "(one of them may be -1 for the rest)")
    # Explicit axes, JAX's default now, make linen's logical constraints assertions; here the compiler places arrays.
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """Makes the mesh and RULES current: wrap creating the state, training and evaluation in it."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The first axis over data and fsdp, the others whole."""
    return NamedSharding(mesh, PartitionSpec(dict(RULES)["batch"]))


def ways(mesh: jax.sharding.Mesh) -> int:
    """Into how many parts a batch is split over the mesh."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def over_batch(x: jax.Array, axis: int = 0) -> jax.Array:
    """Tells the compiler that this axis of x lies over the devices of the batch, the others whole; nothing where there
    is no mesh."""
    return nn.with_logical_constraint(x, tuple("batch" if i == axis else None for i in range(x.ndim)))


def current_ways() -> int:
    """The same of the mesh in use; 1 where there is none."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return sizes["data"] * sizes["fsdp"] if "data" in sizes else 1


def check_batch(mesh: jax.sharding.Mesh, batch: int, group: int = 1, microbatches: int = 1) -> None:
    """Raises InputError when a global batch in groups of so many pictures does not divide over the mesh, or its
    micro-batches do not."""
    parts = ways(mesh)
    if batch < 1 or batch % parts:
        raise InputError(f"config.data.batch={batch} is not divisible by the {parts} devices it is split over "
                         f"(mesh data x fsdp): take a multiple of {parts}")
    if batch // group % parts:
        raise InputError(f"config.data.batch={batch} in groups of {group} makes {batch // group} groups, which do not "
                         f"divide over {parts} devices: set config.data.group={math.gcd(batch // parts, group)}")
    groups = batch // group // parts  # of a device
    if microbatches < 1 or groups % microbatches:
        raise InputError(f"config.train.microbatches={microbatches} does not divide the {groups} groups of pictures of "
                         f"a device: give 1 or another divisor, or a smaller config.data.group than {group}")


@functools.cache
def share_of_batch(mesh: jax.sharding.Mesh) -> tuple[int, int]:
    """(index, number): this process reads the index-th of `number` equal parts of every global batch.

    Processes that differ only along `tensor` hold the same rows and read the same part.
    """
    parts = ways(mesh)
    rows: dict[int, set[int]] = {}  # of each process, were there one row a device
    places: dict[Any, tuple] = dict(batch_sharding(mesh).devices_indices_map((parts,)))
    for device, (row,) in places.items():
        rows.setdefault(device.process_index, set()).add(row.start or 0)
    shares = sorted({tuple(sorted(own)) for own in rows.values()})
    if sum(map(len, shares)) != parts:
        raise InputError(f"config.mesh {dict(mesh.shape)} splits a batch unevenly over {jax.process_count()} "
                         "processes: choose sizes that divide with the devices of a process")
    return shares.index(tuple(sorted(rows[jax.process_index()]))), len(shares)


def to_global(mesh: jax.sharding.Mesh, batch: Any) -> Any:
    """This process's part of a batch (a pytree of numpy, see `share_of_batch`) -> global arrays on the mesh."""
    sharding, (_, shares) = batch_sharding(mesh), share_of_batch(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x, (len(x) * shares, *x.shape[1:])), batch)


def total(counts: np.ndarray) -> np.ndarray:
    """The sum of an array over all processes; each of them must call it."""
    return multihost_utils.process_allgather(counts).sum(axis=0) if jax.process_count() > 1 else counts


def first(value: float) -> float:
    """What process 0 has; each of them must call it."""
    return float(multihost_utils.broadcast_one_to_all(np.float32(value))) if jax.process_count() > 1 else value


def check_agreement(lines: list[str]) -> None:
    """Raises InputError on every process when they do not all have the same lines (about their data)."""
    text = "\n".join(lines).encode("utf-8", "backslashreplace")  # names of files may be no UTF-8
    digest = np.frombuffer(hashlib.sha256(text).digest(), np.uint8).astype(np.int32)
    if jax.process_count() > 1 and (multihost_utils.process_allgather(digest) != digest).any():
        raise InputError(f"the hosts see different data, this one {'; '.join(lines)[:300]}: give all the same files, "
                         "indexes and config.data.tagger")


def gather_lines(lines: list[str]) -> list[str]:
    """The lines of all processes, in their order; each of them must call it."""
    if jax.process_count() == 1:
        return lines
    text = np.frombuffer("\0".join(lines).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(text), len(lines)]))
    texts = multihost_utils.process_allgather(np.pad(text, (0, int(sizes[:, 0].max()) - len(text))))
    return [line for (size, number), row in zip(sizes, texts) if number
            for line in row[:size].tobytes().decode().split("\0")]


def place(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Arrays on this mesh as they are; others to every device of it, the same on all processes."""
    devices = set(mesh.devices.flat)

    def put(x: Any) -> jax.Array:
        here = isinstance(x, jax.Array) and x.sharding.device_set == devices
        return x if here else jax.device_put(x, replicated(mesh))

    return jax.tree.map(put, tree)


def fetch(tree: Any) -> Any:
    """Arrays to numpy on this host, gathered from the other processes' devices where they lie there."""
    if jax.process_count() > 1:
        tree = multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


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


def over_data(x: jax.ShapeDtypeStruct) -> NamedSharding:
    """The sharding of an abstract array, split over `data`, too (ZeRO-1, Rajbhandari et al. 2020, section 5.1): along
    the first axis that is whole and divides, else along one that is split already; as it was where none divides."""
    mesh, spec = x.sharding.mesh, [*x.sharding.spec, *[None] * (x.ndim - len(x.sharding.spec))]
    axes = [() if names is None else (names,) if isinstance(names, str) else tuple(names) for names in spec]
    pieces = [math.prod(mesh.shape[name] for name in names) for names in axes]
    divide = [i for i, n in enumerate(x.shape) if n % (pieces[i] * mesh.shape["data"]) == 0]
    if not divide or mesh.shape["data"] == 1:
        return x.sharding
    axis = min(divide, key=lambda i: (pieces[i] > 1, i))
    spec[axis] = (*axes[axis], "data")
    return NamedSharding(mesh, PartitionSpec(*spec))
