"""IDX: the format of MNIST and of what followed it. A header, then the numbers of one array.

Two bytes of zero, one for the type (8: unsigned bytes), one for the number of dimensions, their sizes as big-endian
32-bit integers, the values, the last dimension fastest (LeCun et al., http://yann.lecun.com/exdb/mnist).
"""

import gzip
import io
import math
import os
import zlib
from pathlib import Path

import numpy as np

from groupvit_jax.errors import InputError

_BYTES = 8  # the type code of unsigned bytes
_AT_ONCE = 1 << 22  # bytes; a header that lies costs no more memory than this and what is really there


def read(path: str | os.PathLike, shape: tuple[int, ...], remedy: str) -> np.ndarray:
    """The array in an IDX file of unsigned bytes, compressed with gzip or not: uint8 [n, *shape].

    Args:
        path: the file.
        shape: of one item, () for labels.
        remedy: what to do about a bad file, the end of the sentence of an error.
    Raises InputError, which names the file: it is missing, another format, cut off, or longer than its header says.
    """
    path = Path(path)

    def wrong(what: str) -> InputError:
        return InputError(f"{path} {what}: {remedy}")

    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else raw as file:
                header = file.read(8 + 4 * len(shape))
                if len(header) < 8 + 4 * len(shape) or header[:4] != bytes((0, 0, _BYTES, 1 + len(shape))):
                    raise wrong(f"is no IDX file of bytes with {1 + len(shape)} dimension(s)")
                sizes = tuple(np.frombuffer(header[4:], ">u4").tolist())
                if sizes[1:] != shape or not sizes[0]:
                    raise wrong(f"holds {' x '.join(map(str, sizes))} values, not N x {' x '.join(map(str, shape))}"
                                if shape else "holds no labels")
                data = _exactly(file, math.prod(sizes))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise wrong(f"is damaged ({error})") from None
    except OSError as error:
        raise wrong(f"cannot be read ({error.strerror or error})") from None
    if data is None:
        raise wrong(f"does not hold the {sizes[0]} items that its header promises")
    return np.frombuffer(data, np.uint8).reshape(sizes)


def _exactly(file: io.BufferedIOBase, count: int) -> bytes | None:
    """The next `count` bytes if the file ends after them, else None."""
    parts, left = [], count
    while left:
        part = file.read(min(left, _AT_ONCE))
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return None if file.read(1) else b"".join(parts)
