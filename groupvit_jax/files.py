"""A file is there whole or not at all."""

import contextlib
import os
import pathlib
import secrets
import shutil
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
    with _placed(path) as part, open(part, "wb") as file:
        yield file


@contextlib.contextmanager
def new(path: str | os.PathLike, folder: bool = True) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, of an empty folder or (folder=False) a file to be; once the block has
    ended well it is renamed to `path`. After an exception nothing of it is left.

    Raises InputError when there is something at `path`, or no room, or no right to write there.
    """
    path = pathlib.Path(path).expanduser().absolute()
    if path.exists() and not (folder and path.is_dir() and not any(path.iterdir())):
        raise InputError(f"--output={path} is there already: name another place, or remove it first")
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        with _placed(path) as part:
            if folder:
                part.mkdir()
            yield part
    except BaseException:
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()
        raise


@contextlib.contextmanager
def _placed(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A temporary path beside `path`, whose folder is there; what is made of it is at `path` in the end, or gone."""
    part = pathlib.Path(f"{path}.{secrets.token_hex(6)}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        if isinstance(error, OSError):
            raise InputError(f"cannot write {path} ({error.strerror or error}): make room or choose another place"
                             ) from None
        raise
