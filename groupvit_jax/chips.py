"""What the makers publish about accelerators: the peaks that a measured or an estimated speed is held against.

All numbers are of one JAX device: a TPU v2, v3 or 7x chip shows each of its two cores as one, a v4 or v5p chip shows
both as one. Sources: Google Cloud's pages on TPU versions; Jouppi et al., "A domain-specific supercomputer for training
deep neural networks" (CACM 2020) for v2 and v3; NVIDIA's data sheets, dense rates (without sparsity).
"""

import re
from typing import NamedTuple


class Chip(NamedTuple):
    """One JAX device. `clock` is not published for newer TPUs: there it is the peak over the operations a cycle of
    matrix units of a known size, and only turns a compiler's cycles into something readable."""

    name: str
    kind: str  # regular expression for the whole of `jax.Device.device_kind`
    peak_flops: float  # a second, bfloat16 products summed in float32 (V100, T4: float16)
    hbm_bytes: int
    hbm_bytes_per_second: float
    clock: float = 0.0  # cycles a second; 0 where nothing here needs it

    @property
    def flops_per_cycle(self) -> float:
        return self.peak_flops / self.clock


G = 2**30
CHIPS = (  # the first whose `kind` fits
    Chip("v2", "TPU v2", 22.9e12, 8 * G, 350e9, 0.70e9),
    Chip("v3", "TPU v3", 61.5e12, 16 * G, 450e9, 0.94e9),
    Chip("v4", "TPU v4", 275e12, 32 * G, 1228e9, 1.05e9),
    Chip("v5e", "TPU v5( lite|e)", 197e12, 16 * G, 819e9, 1.50e9),
    Chip("v5p", "TPU v5p?", 459e12, 95 * G, 2765e9, 1.75e9),
    Chip("v6e", "TPU v6( lite|e)", 918e12, 32 * G, 1640e9, 1.75e9),
    Chip("tpu7x", "TPU ?v?7x?", 1153.5e12, 96 * G, 3690e9, 2.20e9),
    Chip("V100", ".*V100.*", 125e12, 16 * G, 900e9),
    Chip("T4", ".*T4", 65e12, 16 * G, 320e9),
    Chip("L4", ".*L4", 121e12, 24 * G, 300e9),
    Chip("L40S", ".*L40S", 362e12, 48 * G, 864e9),
    Chip("A10G", ".*A10G", 70e12, 24 * G, 600e9),
    Chip("A10", ".*A10", 125e12, 24 * G, 600e9),
    Chip("A100 80GB", ".*A100.*80GB.*", 312e12, 80 * G, 2039e9),
    Chip("A100", ".*A100.*", 312e12, 40 * G, 1555e9),
    Chip("H100 PCIe", ".*H100 PCIe", 756e12, 80 * G, 2000e9),
    Chip("H100 NVL", ".*H100 NVL", 835e12, 94 * G, 3900e9),
    Chip("H100", ".*H100.*", 989e12, 80 * G, 3350e9),
    Chip("H200", ".*H200.*", 989e12, 141 * G, 4800e9),
    Chip("B200", ".*B200.*", 2250e12, 180 * G, 8000e9),
)


def find(device_kind: str) -> Chip | None:
    """The chip of a `jax.Device.device_kind` ("TPU v5 lite", "NVIDIA H100 80GB HBM3"); None for others, as "cpu"."""
    return next((chip for chip in CHIPS if re.fullmatch(chip.kind, device_kind)), None)
