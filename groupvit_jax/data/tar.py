"""The tar format: where the files of a tar lie, found by reading its headers, and how to write one.

Read are ustar, GNU and PAX tars, as POSIX.1-2017 (`pax`) and the GNU tar manual ("Basic Tar Format") lay them out. A
tar is blocks of 512 bytes: of each file a header, then its content, filled up with zeros. A header of zeros is the end.
"""

import functools
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypedDict

_BLOCK = 512
_END = bytes(_BLOCK)
# Kinds of headers: files ("7" is an unusual one), what has no content whatever its size says (links, devices, folders),
# and what is about the file that follows (GNU's names of any length, PAX).
_REGULAR, _EMPTY, _ABOUT_NEXT = frozenset(b"0\x007"), frozenset(b"123456"), frozenset(b"LKxXg")
_LARGEST_NAME = 1 << 20  # bytes of a PAX header or a long name; what asks for more is no such header
_COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class Damaged(Exception):
    """A tar that breaks off: the header at byte `offset`, or the file that belongs to it, is not whole."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(offset, reason)
        self.offset, self.reason = offset, reason


class Pax(TypedDict, total=False):
    """What a PAX header says of a file."""

    path: str
    size: int


class NotTar(Exception):
    """No tar at all; says what it is, and the remedy."""


def members(read: Callable[[int, int], bytes], length: int, window: int = 1 << 14) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of each regular file of a tar that is there in full, as they lie in it.

    Args:
        read: `read(offset, size)` gives those bytes of the tar. Called for places that only go up.
        length: of the tar in bytes.
        window: bytes to read at once; small files and their headers share one.
    Raises: NotTar at once; Damaged after the last whole file, where the tar does not end as a tar does.
    """
    start, held = 0, b""  # the window: its place, its bytes
    place, pax, common = 0, Pax(), Pax()
    name: str | None = None
    while True:
        at = place - start
        if at + _BLOCK > len(held):
            if place + _BLOCK > length:
                if not place:
                    _check_compressed(read(0, length))
                raise Damaged(place, "its end is missing")
            start, at, held = place, 0, read(place, min(window, length - place))
        header = held[at : at + _BLOCK]
        if not place:
            _check_first(header)
        if header == _END:
            return
        kind = header[156]  # as a character's number
        size = pax["size"] if "size" in pax else 0 if kind in _EMPTY else _number(header[124:136])
        if size < 0 or zlib.adler32(header) & 0xFFFF != _adler(header[148:156]) and not _sound(header):
            raise Damaged(place, "a broken header")
        offset = place + _BLOCK
        if offset + size > length:
            raise Damaged(place, "its content is cut off")
        if kind in _REGULAR:
            yield pax.get("path") or name or _name(header), offset, size
        if kind not in _ABOUT_NEXT:
            name, pax = None, common.copy()
        elif size > _LARGEST_NAME:
            raise Damaged(place, "a broken header")
        else:
            at += _BLOCK
            data = held[at : at + size] if at + size <= len(held) else read(offset, size)
            if kind == ord("L"):
                name = data.partition(b"\0")[0].decode("utf-8", "backslashreplace")
            elif kind != ord("K") and (b"path=" in data or b"size=" in data):  # mostly it is but a time with decimals
                pax.update(_pax(place, data))
                if kind == ord("g"):  # for all files that follow
                    common.update(pax)
        place = offset + -(-size // _BLOCK) * _BLOCK


def _check_compressed(header: bytes) -> None:
    for magic, remedy in _COMPRESSED.items():
        if header.startswith(magic):
            raise NotTar(f"is compressed: unpack it ({remedy}) and name the .tar")


def _check_first(header: bytes) -> None:
    _check_compressed(header)
    if header != _END and not _sound(header):
        raise NotTar("is no tar: download it again, or leave it out of the pattern")


def _sound(header: bytes) -> bool:
    """Whether the checksum is right: the sum of the header's bytes with blanks in the checksum's own place."""
    said = _number(header[148:156])
    # The second one is of old programs, which add signed bytes.
    return said in tarfile.calc_chksums(header)  # type: ignore[attr-defined]  # typeshed leaves it out


@functools.lru_cache(1 << 14)  # checksums are small numbers, the same ones again and again
def _adler(field: bytes) -> int:
    """The lower half of Adler-32 (1 + the sum of the bytes, modulo 65521: much faster than sum()) of a header whose
    checksum is right and lies in this field."""
    return (1 + _number(field) + sum(field) - 8 * 32) % 65521


def _number(field: bytes) -> int:
    """A number in octal digits or, where the first bit is set, in binary; -1 for anything else."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.partition(b"\0")[0] or b"0", 8)
    except ValueError:
        return -1


def _name(header: bytes) -> str:
    end = header.find(b"\0", 0, 100)
    name = header[: end if end >= 0 else 100]
    if header[345] and header[257:263] == b"ustar\0":  # POSIX; GNU's own format has other things there
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "backslashreplace")


def _pax(place: int, data: bytes) -> Pax:
    """The path and the size among the records "LENGTH KEY=VALUE\\n" of a PAX header."""
    found, at = Pax(), 0
    try:
        while at < len(data) and data[at]:
            digits = data[at : data.index(b" ", at)]
            end = at + max(int(digits), len(digits))
            key, _, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
            if key == b"path":
                found["path"] = value.decode("utf-8", "backslashreplace")
            elif key == b"size":
                found["size"] = int(value)
            at = end
    except ValueError:
        raise Damaged(place, "a broken header") from None
    return found


def write_tar(path: str | os.PathLike, files: Iterable[tuple[str, bytes]]) -> None:
    """Writes a tar, the same bytes for the same files, whole or not at all.

    Args:
        path: where to; its folder must exist.
        files: (name, content), samples in one run: ("0001.jpg", ...), ("0001.txt", ...).
    """
    part = Path(f"{path}.part")
    with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as tar:  # TarInfo's own time and owner are 0
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    os.replace(part, path)
