"""Pickles put together by hand, those that no pickler writes among them, and the zip around them."""

import pathlib
import struct
import zipfile
from typing import Any, NamedTuple


class Name(NamedTuple):
    """A class or function, by name."""

    module: str
    name: str


class Call(NamedTuple):
    """What comes of calling `function` (a Name, or another Call) with `args`."""

    function: Any
    args: tuple


class Stored(NamedTuple):
    """The object of a persistent id."""

    claim: Any


class Raw(NamedTuple):
    opcodes: bytes


def emit(x: Any) -> bytes:
    """The opcodes that put `x` on the stack."""
    match x:
        case Raw(opcodes):
            return opcodes
        case Name(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, args):
            return emit(function) + emit(args) + b"R"
        case Stored(claim):
            return emit(claim) + b"Q"
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[x]
        case int():
            data = x.to_bytes(x.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8b" + struct.pack("<I", len(data)) + data
        case float():
            return b"G" + struct.pack(">d", x)
        case str():
            return b"X" + struct.pack("<I", len(x.encode())) + x.encode()
        case tuple():
            return b"(" + b"".join(map(emit, x)) + b"t"
        case list():
            return b"](" + b"".join(map(emit, x)) + b"e"
        case dict():
            return b"}(" + b"".join(emit(key) + emit(value) for key, value in x.items()) + b"u"
    raise TypeError(x)


def pickled(x: Any) -> bytes:
    return b"\x80\x02" + emit(x) + b"."


V1, V2, V3, PARAMETER = (Name("torch._utils", name) for name in (
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter"))


def storage(key: Any = "0", numel: Any = 6, kind: Any = "FloatStorage", *more: Any) -> Stored:
    return Stored(("storage", Name("torch", kind), key, "cpu", numel, *more))


def tensor(shape: Any = (2, 3), strides: Any = (3, 1), offset: Any = 0, stored: Any = None) -> Call:
    return Call(V2, (stored or storage(), offset, shape, strides, False, Call(Name("collections", "OrderedDict"), ())))


NUMBERS = struct.pack("<6f", *range(6))  # of the storage "0"


def write_zip(path: pathlib.Path, pickle: bytes, records: dict[str, bytes] | None = None, root: str = "archive",
              compression: int = zipfile.ZIP_STORED) -> pathlib.Path:
    """A checkpoint as `torch.save` writes them, of this pickle and these further files."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {"data.pkl": pickle, "data/0": NUMBERS, "version": b"3\n", **(records or {})}.items():
            archive.writestr(zipfile.ZipInfo(f"{root}/{name}"), data, compression)
    return path
