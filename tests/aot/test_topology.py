"""Names of slices, and their devices."""

import re

import pytest
import tiny

from groupvit_jax import chips, parallel
from groupvit_jax.aot import topology
from groupvit_jax.errors import InputError


@pytest.mark.parametrize("name, number, chip", [
    ("v5e:8x8", 64, "v5e"), ("v5e:16x16", 256, "v5e"), ("v4:2x2x4", 16, "v4"), ("v5p:2x2x4", 16, "v5p"),
    ("v6e:4x8", 32, "v6e"), ("v5e:1x1", 1, "v5e")])
def test_a_name_gives_the_chips_it_says(name, number, chip):
    found = topology.find(name)
    assert found.chips == len(found.devices) == number and found.chip.name == chip


@pytest.mark.parametrize("name", ["v2:2x2", "tpu7x:2x2x1"])
def test_some_chips_show_each_core_as_a_device(name):
    found = topology.find(name)
    assert found.chips == 4 and len(found.devices) == 8 and found.chip.name == name.partition(":")[0]


@pytest.mark.parametrize("name", ["v5e-64", "v7:2x2", "v5e:8x8x8", "v4:8x8", "v5e:0x8", "v5e:-1x2", "v5e:3x5", ""])
def test_a_name_that_no_slice_has_is_an_input_error_that_lists_some(name):
    with pytest.raises(InputError, match=rf"--topology={re.escape(name)} is no slice.*v5e:8x8.*v6e:4x8"):
        topology.find(name)


def test_without_libtpu_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[tpu\]"'):
        topology.find("v5e:8x8")


def test_a_mesh_is_made_of_the_slices_devices_and_not_of_those_here():
    devices = topology.find("v5e:2x2").devices
    mesh = parallel.create_mesh(tiny.ConfigDict({"data": -1, "fsdp": 2, "tensor": 1}), devices)
    assert set(mesh.devices.flat) == set(devices) and dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 1}


@pytest.mark.parametrize("kind, name", [("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("TPU v6 lite", "v6e"),
                                        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"),
                                        ("NVIDIA A100-SXM4-80GB", "A100 80GB"), ("NVIDIA A100-SXM4-40GB", "A100"),
                                        ("NVIDIA L4", "L4"), ("NVIDIA L40S", "L40S"), ("Tesla V100-SXM2-16GB", "V100")])
def test_a_device_is_known_by_its_kind(kind, name):
    assert chips.find(kind).name == name


def test_other_devices_have_no_published_peak():
    assert chips.find("cpu") is None and chips.find("TPU v5 litest") is None
