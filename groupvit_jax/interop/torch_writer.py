"""A checkpoint file that PyTorch reads, written without PyTorch.

The zip of `torch.save`: a pickle of protocol 2, put together opcode by opcode (the standard library's `pickletools`
says what each is), and the numbers of each array in a file of their own. `torch_files.read` reads it.
"""

import os
import struct
import sys
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from groupvit_jax import files
from groupvit_jax.errors import InputError
from groupvit_jax.interop.inert import is_key
from groupvit_jax.interop.torch_tensors import DTYPES, STORAGES

_ROOT = "archive"  # the folder in the zip; PyTorch takes any
_ALIGNMENT = 64  # bytes; what PyTorch gives its tensors' numbers, so that they can be used where they lie
_VERSION = b"3\n"  # of PyTorch's zip format: kProducedFileFormatVersion, caffe2/serialize/versions.h
_DEEPEST = 100  # containers in containers
_STORAGES = {DTYPES[held]: name for name, held in STORAGES.items() if not name.endswith("UntypedStorage")}
_UNTYPED = {DTYPES[name]: name for name in ("uint16", "uint32", "uint64")}  # PyTorch has no typed storages of these


def write(path: str | os.PathLike, contents: Any) -> None:
    """Writes what `torch.load(path, weights_only=True)` reads, whole or not at all; the same contents, the same bytes.

    Args:
        path: where to; its folder is made.
        contents: dicts, lists, tuples, str, int, float, bool and None in any nesting, and NumPy arrays, which become
            tensors: float64, float32, float16, bfloat16, (u)int8 to (u)int64, bool.
    Raises: InputError for other contents, and where it cannot be written.
    """
    arrays: list[np.ndarray] = []
    pickle = b"\x80\x02" + b"".join(_pickled(contents, arrays, 0)) + b"."
    with files.writing(path) as file, zipfile.ZipFile(file, "w") as archive:
        _add(archive, file, "data.pkl", pickle)
        _add(archive, file, "byteorder", sys.byteorder.encode())
        for i, x in enumerate(arrays):
            _add(archive, file, f"data/{i}", np.ascontiguousarray(x).reshape(-1).view(np.uint8))
        _add(archive, file, "version", _VERSION)


def _add(archive: zipfile.ZipFile, file: BinaryIO, name: str, data: Any) -> None:
    entry = zipfile.ZipInfo(f"{_ROOT}/{name}")  # of the first day of 1980
    # Before the data: a header, the name, 64-bit sizes, and the padding with a header of its own.
    start = file.tell() + 30 + len(entry.filename) + 20 + 4
    padding = -start % _ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(entry, "w", force_zip64=True) as part:
        part.write(data)


def _pickled(x: Any, arrays: list[np.ndarray], depth: int) -> Iterator[bytes]:
    """The opcodes that put `x` on the stack. Arrays are put by, their places in the list are their names."""
    if depth > _DEEPEST:
        raise InputError("contents hold themselves or are too deep for a checkpoint: flatten them")
    match x:
        case np.ndarray() | np.generic():  # before float, which np.float64 is as well
            yield from _tensor(np.asarray(x), arrays)
        case None:
            yield b"N"
        case bool():
            yield b"\x88" if x else b"\x89"
        case int():
            yield _integer(x)
        case float():
            yield b"G" + struct.pack(">d", x)
        case str():
            text = x.encode("utf-8", "surrogatepass")
            yield b"X" + struct.pack("<I", len(text)) + text
        case list():
            yield from _contained(b"](", x, b"e", arrays, depth)
        case tuple():
            yield from _contained(b"(", x, b"t", arrays, depth)
        case dict():
            for key in x:
                if not is_key(key):
                    raise InputError(f"a checkpoint cannot have {key!r:.80} as a key: use strings or numbers")
            yield from _contained(b"}(", (part for item in x.items() for part in item), b"u", arrays, depth)
        case _:
            raise InputError(f"a checkpoint cannot hold a {type(x).__name__}: give plain containers and NumPy arrays")


def _contained(begin: bytes, parts: Iterable, end: bytes, arrays: list[np.ndarray], depth: int) -> Iterator[bytes]:
    yield begin
    for part in parts:
        yield from _pickled(part, arrays, depth + 1)
    yield end


def _integer(x: int) -> bytes:
    if -(1 << 31) <= x < 1 << 31:
        return b"J" + struct.pack("<i", x)
    size = x.bit_length() // 8 + 1
    if size > 255:
        raise InputError("a checkpoint cannot hold so large an integer: write it as a string")
    return b"\x8a" + bytes([size]) + x.to_bytes(size, "little", signed=True)


def _tensor(x: np.ndarray, arrays: list[np.ndarray]) -> Iterator[bytes]:
    """torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks), or _v3(..., dtype)."""
    x = x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    untyped = _UNTYPED.get(x.dtype)
    if not untyped and x.dtype not in _STORAGES:
        raise InputError(f"PyTorch has no tensors of {x.dtype}: cast it")
    kind = ("torch.storage", "UntypedStorage") if untyped else ("torch", _STORAGES[x.dtype])
    strides = [1]
    for n in x.shape[:0:-1]:
        strides.insert(0, strides[0] * max(n, 1))
    yield _global("torch._utils", "_rebuild_tensor_v3" if untyped else "_rebuild_tensor_v2") + b"("
    yield b"(" + b"".join(_pickled("storage", arrays, 0)) + _global(*kind)
    for part in (str(len(arrays)), "cpu", x.nbytes if untyped else x.size):
        yield from _pickled(part, arrays, 0)
    yield b"tQ"
    for about in (0, x.shape, tuple(strides[:x.ndim]), False):
        yield from _pickled(about, arrays, 0)
    yield _global("collections", "OrderedDict") + b")R"
    yield (_global("torch", untyped) if untyped else b"") + b"tR"
    arrays.append(x)


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()
