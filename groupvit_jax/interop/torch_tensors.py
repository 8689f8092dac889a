"""Tensors in a PyTorch file: which of its bytes they are, and how they are read when their numbers are asked for.

What a file claims is checked when it is read, so that `Tensor.array` only reads. `NAMES` is the whole of what names in
a checkpoint's pickle can make (PyTorch's functions are in torch/_utils.py); all others stay `inert.Inert`.
"""

import contextlib
import dataclasses
import io
import math
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from groupvit_jax.errors import InputError
from groupvit_jax.interop.inert import Global, fill, make_set
from groupvit_jax.interop.pickles import Function

REMEDY = "download it again, or load and save it again in PyTorch"
_INT64 = 1 << 63
_MOST_AXES = 64  # NumPy's
# A tensor may be larger than its file, as an expanded one holds the same numbers many times; but not as it likes.
_TIMES_FILE, _BESIDES = 16, 64 << 20
_PIECE = 1 << 20  # bytes of which a checksum is taken at once

DTYPES = {name: np.dtype(getattr(ml_dtypes if name == "bfloat16" else np, name)) for name in (
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool".split())}
# torch.FloatStorage and so on: what they hold.
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8", "_UntypedStorage": "uint8"}
# All there are: the dtype, None where tensors stay inert, and how many bytes a number has.
KINDS: dict[str, tuple[np.dtype | None, int]] = {
    **{name: (DTYPES[held], DTYPES[held].itemsize) for name, held in STORAGES.items()},
    "ComplexFloatStorage": (None, 8), "ComplexDoubleStorage": (None, 16), "QInt8Storage": (None, 1),
    "QUInt8Storage": (None, 1), "QInt32Storage": (None, 4), "QUInt4x2Storage": (None, 1), "QUInt2x4Storage": (None, 1)}


@dataclasses.dataclass(frozen=True)
class File:
    """A regular file, opened whenever something of it is read, so that tensors may be kept and files are not left open.

    Raises InputError where it cannot be read or, in `open`, is not any more what it was.
    """

    path: str
    size: int
    stamp: tuple

    @classmethod
    def at(cls, path: str | os.PathLike) -> "File":
        path = os.path.abspath(path)
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: a zero byte in it
            raise _unreadable(path, error) from None
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is not a file: name the .pth or .pt file that torch.save wrote")
        return cls(path, status.st_size, (status.st_ino, status.st_size, status.st_mtime_ns))

    @contextlib.contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_ino, status.st_size, status.st_mtime_ns) != self.stamp:
                    raise InputError(f"{self.path} has changed since it was opened: load it again")
                yield file
        except OSError as error:
            raise _unreadable(self.path, error) from None


def _unreadable(path: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"cannot read {path} ({reason}): name the .pth or .pt file that torch.save wrote")


@dataclasses.dataclass(eq=False)
class Record:
    """A run of bytes of a file."""

    file: File
    offset: int
    size: int
    checksum: int | None = None  # CRC-32, compared before anything is read

    def read(self, start: int, size: int) -> np.ndarray:
        """Bytes [size] of it, from `start` on. Raises InputError where the file is damaged."""
        with self.file.open() as file:
            if self.checksum is not None:
                self.compare(file)
            file.seek(self.offset + start)
            data = np.empty(size, np.uint8)
            if file.readinto(data.data) != size:
                raise InputError(f"{self.file.path} is cut off: {REMEDY}")
        return data

    def compare(self, file: BinaryIO) -> None:
        file.seek(self.offset)
        checksum = 0
        for at in range(0, self.size, _PIECE):
            checksum = zlib.crc32(file.read(min(_PIECE, self.size - at)), checksum)
        if checksum != self.checksum:
            raise InputError(f"{self.file.path} is damaged, a checksum is wrong: {REMEDY}")
        self.checksum = None  # once is enough


@dataclasses.dataclass(eq=False)
class Storage:
    """Numbers that one or several tensors show, in a row: bytes [start, start + size) of a record."""

    record: Record
    dtype: np.dtype | None  # None: of a kind that is not read
    start: int
    size: int
    swapped: bool = False  # of the other byte order


@dataclasses.dataclass(eq=False, repr=False)
class Tensor:
    """A tensor of a file. Its numbers are read when `array` is called, its claims are checked before."""

    shape: tuple[int, ...]
    dtype: np.dtype
    storage: Storage
    offset: int  # like the strides in numbers
    strides: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Tensor(shape={self.shape}, dtype={self.dtype})"

    @property
    def span(self) -> int:
        """How many numbers of the storage there are from its first to its last."""
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides)) if all(self.shape) else 0

    def array(self) -> np.ndarray:
        """Reads it: [shape], contiguous and the caller's own. Raises InputError if the file is damaged or changed."""
        if not all(self.shape):
            return np.empty(self.shape, self.dtype)
        bytes_each = self.dtype.itemsize
        data = self.storage.record.read(self.storage.start + self.offset * bytes_each, self.span * bytes_each)
        if self.storage.swapped and bytes_each > 1:
            data.view(f"u{bytes_each}").byteswap(inplace=True)
        numbers = data.view(self.dtype)
        # Strides of axes that are never stepped along may be anything.
        strides = [s * bytes_each if n > 1 else 0 for n, s in zip(self.shape, self.strides)]
        strided = np.lib.stride_tricks.as_strided(numbers, self.shape, strides)
        return numbers.reshape(self.shape) if strided.flags.c_contiguous else strided.copy()


def natural(*numbers: Any) -> bool:
    """Whether these are all integers that PyTorch would take for a size."""
    return all(type(n) is int and 0 <= n < _INT64 for n in numbers)


def _tensor(storage: Storage, offset: Any, shape: Any, strides: Any, dtype: np.dtype) -> Tensor:
    """A tensor whose numbers all lie in its storage, which it does not claim to be much larger than its file."""
    path = storage.record.file.path
    if not (type(shape) is type(strides) is tuple and len(shape) == len(strides) <= _MOST_AXES
            and natural(offset, *shape, *strides)):
        raise InputError(f"{path} holds a tensor whose shape is none: {REMEDY}")
    tensor = Tensor(shape, dtype, storage, offset, strides)
    if (offset + tensor.span) * dtype.itemsize > storage.size:
        raise InputError(f"{path} holds a tensor of shape {shape} that reaches beyond its numbers: {REMEDY}")
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > _TIMES_FILE * storage.record.file.size + _BESIDES:
        raise InputError(f"{path} holds a tensor of shape {shape}, far more than the file: "
                         "save a tensor that is not expanded")
    return tensor


def _rebuild(args: tuple) -> Any:
    """_rebuild_tensor(storage, offset, shape, strides) and _v2(the same, requires_grad, hooks[, metadata])."""
    storage, offset, shape, strides, *rest = args
    if type(storage) is not Storage or storage.dtype is None or any(rest[2:]):  # metadata: negated, conjugated
        return NotImplemented
    return _tensor(storage, offset, shape, strides, storage.dtype)


def _rebuild_v3(args: tuple) -> Any:
    """_v3(storage, offset, shape, strides, requires_grad, hooks, dtype[, metadata])."""
    storage, offset, shape, strides, _, _, dtype, *metadata = args
    known = type(dtype) is Global and dtype.module == "torch" and dtype.name in DTYPES
    if type(storage) is not Storage or not known or any(metadata):
        return NotImplemented
    return _tensor(storage, offset, shape, strides, DTYPES[dtype.name])


def _rebuild_parameter(args: tuple) -> Any:
    """_rebuild_parameter(tensor, requires_grad, hooks) and _with_state(the same, state)."""
    return args[0] if type(args[0]) is Tensor else NotImplemented


def _ordered_dict(args: tuple) -> Any:
    """OrderedDict() or, from Python 2, OrderedDict([[key, value], ...])."""
    if not args:
        return {}
    (pairs,) = args
    if type(pairs) is not list or not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
        return NotImplemented
    return fill({}, [x for pair in pairs for x in pair])


def _set(kind: type) -> Function:
    return lambda args: make_set(args[0], kind) if len(args) == 1 and type(args[0]) is list else NotImplemented


def _bytes(kind: type) -> Function:
    """bytes(), bytearray(), bytearray(bytes), bytearray(str, "latin-1"), _codecs.encode(str, "latin1")."""
    def make(args: tuple) -> Any:
        match args:
            case ():
                return kind()
            case (bytes(content),):
                return kind(content)
            case (str(text), "latin1" | "latin-1"):
                return kind(text.encode("latin-1"))
        return NotImplemented
    return make


def _size(args: tuple) -> Any:
    return args[0] if len(args) == 1 and type(args[0]) is tuple else NotImplemented


NAMES: Mapping[Global, Function] = {
    Global("torch._utils", "_rebuild_tensor"): _rebuild,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    Global("torch._utils", "_rebuild_tensor_v3"): _rebuild_v3,
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    Global("torch", "Size"): _size,
    Global("collections", "OrderedDict"): _ordered_dict,
    Global("builtins", "set"): _set(set),
    Global("builtins", "frozenset"): _set(frozenset),
    Global("builtins", "bytes"): _bytes(bytes),
    Global("builtins", "bytearray"): _bytes(bytearray),
    Global("_codecs", "encode"): _bytes(bytes),
}
