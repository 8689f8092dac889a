"""TPU slices that are not there: libtpu describes their devices, and XLA compiles for them on any machine."""

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from groupvit_jax import chips
from groupvit_jax.errors import InputError

KNOWN = ("v5e:8x8", "v5e:16x16", "v4:2x2x4", "v5p:2x2x4", "v6e:4x8")
# generation -> (dimensions of its torus, what Google calls a slice of n chips or m = 2n cores)
GENERATIONS = {"v2": (2, "v2-{m}"), "v3": (2, "v3-{m}"), "v4": (3, "v4-{m}"), "v5e": (2, "v5litepod-{n}"),
               "v5p": (3, "v5p-{m}"), "v6e": (2, "v6e-{n}"), "tpu7x": (3, "tpu7x-{n}")}


class Slice(NamedTuple):
    """`devices` can be put into a mesh and compiled for; they hold no arrays."""

    name: str
    chips: int
    devices: list[jax.Device]
    chip: chips.Chip  # of one device


def find(name: str) -> Slice:
    """The slice called `name`, GENERATION:AxB[xC] in chips along each dimension.

    Raises InputError for names that no slice has, and where libtpu is not installed.
    """
    generation, _, sides = name.partition(":")
    dimensions, accelerator = GENERATIONS.get(generation, (0, ""))
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sides) or sides.count("x") + 1 != dimensions:
        raise InputError(f"--topology={name} is no slice: {suggestion()}")
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise InputError("compiling for a TPU takes its compiler, libtpu, also where there is no TPU: "
                         'pip install -e ".[tpu]"')
    n = math.prod(map(int, sides.split("x")))
    # libtpu reads these when it is loaded: no machine is to be asked what it is, and other processes may have loaded
    # it, which a real TPU would not allow.
    os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", ALLOW_MULTIPLE_LIBTPU_LOAD="1",
                      TPU_ACCELERATOR_TYPE=accelerator.format(n=n, m=2 * n))
    # Both cores of a chip as one device.
    options: dict[str, Any] = {"chip_config_name": "megacore"} if generation == "v4" else {}
    if n == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)  # otherwise four are the least
    try:
        devices: list[Any] = list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except jax.errors.JaxRuntimeError as error:
        why = str(error).splitlines()[0].removeprefix("INVALID_ARGUMENT: ")[:200]
        raise InputError(f"--topology={name} is no slice ({why}): {suggestion()}") from None
    chip = chips.find(devices[0].device_kind)
    assert chip, devices[0].device_kind  # of every generation
    return Slice(name, n, devices, chip)


def suggestion() -> str:
    return (f"give a generation ({', '.join(GENERATIONS)}) and the chips along each side of a slice, as one of "
            f"{', '.join(KNOWN)}")
