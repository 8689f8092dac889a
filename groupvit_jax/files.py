"""A file is there whole or not at all."""

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import BinaryIO

from groupvit_jax.errors import InputError


def write(path: str | os.PathLike, data: bytes) -> None:
    """Writes `data` to `path`, through a temporary name beside it; makes its folder. Of several writers, on whatever
    hosts, the last one's file stays.

    Raises InputError when that cannot be done or there is no room; what was at `path` is then still there.
    """
    with writing(path) as file:
        file.write(data)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write what will be at `path` when the `with` ends without an error; otherwise as `write`."""
    part = pathlib.Path(f"{path}.{secrets.token_hex(6)}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            yield file
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            raise InputError(f"cannot write {path} ({error.strerror}): make room or choose another place") from None
        raise
