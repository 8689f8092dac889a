"""PyTorch's checkpoint files, read without PyTorch and without running anything that is in them.

`torch.save` writes a zip (since PyTorch 1.6) or, before, pickles followed by the storages; torch/serialization.py and
caffe2/serialize/inline_container.h of PyTorch say how. The pickle of either names its storages; a tensor is a view of
one. `torch_writer.write` writes the zip.
"""

import contextlib
import io
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from groupvit_jax.errors import InputError
from groupvit_jax.interop import pickles
from groupvit_jax.interop.inert import Global
from groupvit_jax.interop.torch_tensors import KINDS, NAMES, REMEDY, File, Record, Storage, natural

# The format before the zip begins with this number, pickled.
_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
_PROTOCOL = 1001
_LOCAL = struct.Struct("<4s22xHH")  # of a zip's file: its signature, the lengths of its name and of what is extra
_ENCRYPTED = 0x41  # flags
_LONGEST_LINE = 1 << 20  # of the text that a pickle of old may hold
_NOT_ONE = "is not a PyTorch checkpoint: name the .pth or .pt file that torch.save wrote, or download it again"
_RESAVE = "load it in PyTorch and torch.save its state_dict()"


def read(path: str | os.PathLike) -> Any:
    """What was given to torch.save.

    Returns: dicts (also for an OrderedDict), lists, tuples, sets, numbers, strings and bytes; `torch_tensors.Tensor`
        for tensors and parameters, whose numbers are read when asked for; `torch_tensors.Storage` for a bare storage;
        `inert.Inert` for all other objects, sparse, quantized and complex tensors among them; `inert.Global` for names
        of classes and functions.
    Raises: InputError if there is no such file or it is none of PyTorch's, or is damaged, or claims what it cannot
        hold.
    """
    file = File.at(path)
    with file.open() as opened:
        start = opened.read(512)
        if start.startswith(b"PK\x03\x04"):
            return _read_zip(file, opened)
        if start[257:262] == b"ustar":
            raise InputError(f"{path} is a tar and no model, unless of PyTorch before 0.2: then {_RESAVE}")
        if _MAGIC in start[:32]:
            return _read_legacy(file, opened)
    raise InputError(f"{path} {_NOT_ONE}")


def _read_zip(file: File, opened: BinaryIO) -> Any:
    with _damage(file), zipfile.ZipFile(opened) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    roots = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(set(roots)) != 1:
        raise InputError(f"{file.path} {_NOT_ONE}")
    root = roots[0]
    if any(name.startswith((f"{root}constants.pkl", f"{root}code/")) for name in names):
        raise InputError(f"{file.path} is a TorchScript program: {_RESAVE} (torch.jit.load(path).state_dict())")
    with _damage(file):
        records = _records(file, opened, entries)
    folder = f"{root}data/"
    numbers = {name.removeprefix(folder): record for name, record in records.items() if name.startswith(folder)}
    order = _content(records[f"{root}byteorder"]) if f"{root}byteorder" in records else b"little"
    if order not in (b"little", b"big"):
        raise InputError(f"{file.path} is of an unknown byte order: {REMEDY}")

    def storage(claim: Any) -> Any:
        match claim:
            case ("storage", Global() as kind, str(key), _, int(numel)) if natural(numel) and key in numbers:
                dtype, each = KINDS.get(kind.name, (None, 0))
                if numel * each <= numbers[key].size:
                    return Storage(numbers[key], dtype, 0, numel * each, swapped=order != sys.byteorder.encode())
        raise InputError(f"{file.path} holds a tensor without its numbers: {REMEDY}")

    return pickles.load(io.BytesIO(_content(records[f"{root}data.pkl"])), file.path, NAMES, storage)


def _content(record: Record) -> bytes:
    return record.read(0, record.size).tobytes()


@contextlib.contextmanager
def _damage(file: File) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error):
        raise InputError(f"{file.path} is damaged or cut off: {REMEDY}") from None


def _records(file: File, opened: BinaryIO, entries: list[zipfile.ZipInfo]) -> dict[str, Record]:
    """Where the files of a zip lie, one after the other and not compressed: they cannot be more than the zip."""
    records, end = {}, 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise InputError(f"{file.path} is a zip of compressed or encrypted files, PyTorch's are neither: "
                             "unpack it, or name the .pth or .pt file that torch.save wrote")
        opened.seek(entry.header_offset)
        signature, name, extra = _LOCAL.unpack(opened.read(_LOCAL.size))
        begin = entry.header_offset + _LOCAL.size + name + extra
        if (signature != b"PK\x03\x04" or entry.header_offset < end or entry.filename in records
                or entry.compress_size != entry.file_size):
            raise zipfile.BadZipFile
        end = begin + entry.file_size
        # PyTorch can be told to leave out checksums; they are 0 then.
        records[entry.filename] = Record(file, begin, entry.file_size, entry.CRC or None)
    if end > file.size:
        raise zipfile.BadZipFile
    return records


class _Bounded:
    """A file that, asked for more than there is, does not first make room for it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.tell = file, size, file.tell

    def read(self, n: int) -> bytes:
        return self.file.read(min(n, self.size - self.file.tell()))

    def readline(self) -> bytes:
        return self.file.readline(_LONGEST_LINE)


def _read_legacy(file: File, opened: BinaryIO) -> Any:
    opened.seek(0)
    bounded, claims = _Bounded(opened, file.size), dict[str, tuple[int, Record]]()

    def storage(claim: Any) -> Any:
        match claim:
            case ("module", Global() as kind, _, _):  # and where its source code was, and all of that
                return kind
            case ("storage", Global() as kind, str(key), _, int(numel), None | (_, _, _) as view) if natural(numel):
                dtype, each = KINDS.get(kind.name, (None, 0))
                _, offset, length = view or (None, 0, numel)
                if each and natural(offset, length) and offset + length <= numel:
                    _, record = claims.setdefault(key, (numel, Record(file, 0, numel * each)))
                    if record.size == numel * each:
                        return Storage(record, dtype, offset * each, length * each)
        raise InputError(f"{file.path} holds a tensor without its numbers: {REMEDY}")

    def load(persistent: Callable[[Any], Any] = storage) -> Any:
        return pickles.load(bounded, file.path, NAMES, persistent)

    _, protocol, _ = load(), load(), load()  # the magic number; what computer it was
    if protocol != _PROTOCOL:
        raise InputError(f"{file.path} is of an unknown version of PyTorch's format: {REMEDY}")
    content, keys = load(), load()
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(claims):
        raise InputError(f"{file.path} holds a tensor without its numbers: {REMEDY}")
    for key in keys:  # of each its length, then its numbers, little-endian on all computers
        numel, record = claims[key]
        count, record.offset = bounded.read(8), opened.tell()
        if int.from_bytes(count, "little") != numel or record.offset + record.size > file.size:
            raise InputError(f"{file.path} is damaged or cut off: {REMEDY}")
        opened.seek(record.size, io.SEEK_CUR)
    return content
