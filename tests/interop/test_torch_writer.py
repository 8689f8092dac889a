"""What is written without PyTorch, PyTorch loads, and so do we."""

import collections
import os
import resource
import subprocess
import sys
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
from forbidden import nothing_runs

from groupvit_jax.errors import InputError
from groupvit_jax.interop import torch_files, torch_writer
from groupvit_jax.interop.torch_tensors import DTYPES, Tensor

PLAIN = {
    "numbers": [0, -1, 255, 1 << 31, -(1 << 31), (1 << 31) - 1, 1 << 63, -(1 << 64), 1 << 2000],
    "fractions": [0.5, -0.0, float("inf"), 1e-300],
    "constants": (None, True, False), "strings": ["", "é\n", "\ud800", "x" * 70_000],
    "nested": [[], {}, (), [[()]], {"a": {"b": ({},)}}, (1, 2, 3, 4)],
    "keys": {1: 1, None: 2, False: 3, 1.5: 4, "a": 5}, 3: list(range(5000)),
}


def numbers(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits that a number of the kind may have."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.random.default_rng(0).integers(0, 2 if dtype.kind == "b" else 256, size, np.uint8)
    return raw.view(dtype).reshape(shape)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0,), (2, 0, 3), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch_loads_the_same_bits(tmp_path, dtype, shape, mmap):
    x = numbers(DTYPES[dtype], shape)
    torch_writer.write(tmp_path / "x.pth", {"first": np.zeros(3, np.int8), "x": x})
    loaded = torch.load(tmp_path / "x.pth", weights_only=True, mmap=mmap)["x"]
    assert loaded.dtype == getattr(torch, dtype) and loaded.shape == shape
    assert loaded.stride() == torch.empty(shape).stride() and loaded.is_contiguous()
    assert bytes(loaded.reshape(-1).view(torch.uint8).tolist()) == x.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3, 5), (2, 0)])
def test_we_read_the_same_bits(tmp_path, dtype, shape):
    x = numbers(DTYPES[dtype], shape)
    torch_writer.write(tmp_path / "x.pth", x)
    with nothing_runs():
        loaded = torch_files.read(tmp_path / "x.pth").array()
    assert loaded.dtype == x.dtype and loaded.shape == x.shape and loaded.tobytes() == x.tobytes()


@pytest.mark.parametrize("load", [lambda path: torch.load(path, weights_only=True), torch_files.read])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_content_stays_what_it_is(tmp_path, load, name):
    torch_writer.write(tmp_path / "x.pth", {name: PLAIN[name]})
    loaded = load(tmp_path / "x.pth")
    assert loaded == {name: PLAIN[name]} and repr(loaded) == repr({name: PLAIN[name]})


def test_a_model_takes_the_weights(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    rng = np.random.default_rng(0)
    weights = collections.OrderedDict(
        (name, np.array(5) if x.dtype == torch.int64 else rng.random(tuple(x.shape), np.float32))
        for name, x in model.state_dict().items())
    torch_writer.write(tmp_path / "x.pth", {"model": weights})
    model.load_state_dict(torch.load(tmp_path / "x.pth", weights_only=True)["model"])
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x.numpy(), weights[name])


@pytest.mark.parametrize("x", [
    np.arange(12.0).reshape(3, 4).T, np.arange(12.0)[::-3], np.asfortranarray(np.ones((2, 3))),
    np.arange(3, dtype=">f4"), np.broadcast_to(np.float32(2), (3, 3)), np.float64(1.5), np.bool_(True),
    np.arange(3, dtype=ml_dtypes.bfloat16)[::2],
], ids=["transposed", "backwards", "Fortran", "other byte order", "broadcast", "float64", "bool", "bfloat16"])
def test_arrays_of_any_layout(tmp_path, x):
    torch_writer.write(tmp_path / "x.pth", x)
    loaded = torch_files.read(tmp_path / "x.pth")
    assert type(loaded) is Tensor and loaded.dtype == x.dtype.newbyteorder("=")
    np.testing.assert_array_equal(loaded.array(), x)
    np.testing.assert_array_equal(torch.load(tmp_path / "x.pth").double().numpy(), x.astype(np.float64))


def test_the_same_contents_are_the_same_bytes_wherever_they_are(tmp_path):
    contents = {"w": np.ones((2, 3), np.float32), "n": [1]}
    torch_writer.write(tmp_path / "a/x.pth", contents)
    torch_writer.write(tmp_path / "b/y.pt", contents)
    assert (tmp_path / "a/x.pth").read_bytes() == (tmp_path / "b/y.pt").read_bytes()


def test_numbers_lie_where_pytorch_can_use_them_in_place(tmp_path):
    torch_writer.write(tmp_path / "x.pth", [np.ones(n, np.int8) for n in (1, 2, 63, 64, 65)])
    for x in torch_files.read(tmp_path / "x.pth"):
        assert x.storage.record.offset % 64 == 0
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        assert archive.testzip() is None


def test_no_array_is_held_twice(tmp_path):
    contents = {str(i): np.zeros(1 << 20, np.float32) for i in range(8)}
    tracemalloc.start()
    torch_writer.write(tmp_path / "x.pth", contents)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


CYCLE = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("contents, match", [
    ({"a": object()}, "cannot hold a object: give plain containers and NumPy arrays"),
    ([b"bytes"], "cannot hold a bytes"), ({1, 2}, "cannot hold a set"), (1j, "cannot hold a complex"),
    (1 << 3000, "so large an integer"), (CYCLE, "hold themselves or are too deep"), ({((1,),): 1}, "as a key"),
    (np.ones(2, complex), "no tensors of complex128: cast it"), (np.array(["a"]), "no tensors of <U1"),
    (np.array([None]), "no tensors of object"), (np.ones(2, ml_dtypes.float8_e4m3fn), "no tensors of float8_e4m3fn"),
    (torch.ones(2), "cannot hold a Tensor"),
])
def test_what_cannot_be_written_is_named_and_nothing_is_written(tmp_path, contents, match):
    with pytest.raises(InputError, match=match):
        torch_writer.write(tmp_path / "x.pth", contents)
    assert not list(tmp_path.iterdir())


def test_without_room_what_was_there_stays(tmp_path):
    torch_writer.write(tmp_path / "x.pth", [1])
    program = ("import sys, numpy; from groupvit_jax.interop import torch_writer\n"
               "torch_writer.write(sys.argv[1], [numpy.zeros(1 << 16)] * 8)")
    ended = subprocess.run([sys.executable, "-c", program, tmp_path / "x.pth"], capture_output=True, text=True,
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
    assert "InputError: cannot write" in ended.stderr and "make room or choose another place" in ended.stderr
    assert os.listdir(tmp_path) == ["x.pth"] and torch_files.read(tmp_path / "x.pth") == [1]
