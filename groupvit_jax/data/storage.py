"""Where shards lie: the paths a pattern stands for, what tells two versions of a file apart, reads of byte ranges.

A path is local, or a URL of any file system that fsspec knows: gs://, s3://, https://, memory://...
"""

import concurrent.futures
import contextlib
import fnmatch
import glob
import os
import re
import resource
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from groupvit_jax.errors import InputError

WAITS = (0.5, 1, 2, 4)  # seconds before a failed request is tried again
_THREADS = 16  # requests at once; one takes tens of milliseconds, whatever its size
_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "http": "aiohttp", "https": "aiohttp", "az": "adlfs"}
# What file systems call that which changes with a file's content, the best first.
_TAGS = ("ETag", "etag", "md5Hash", "Content-MD5", "mtime", "LastModified", "last_modified", "Last-Modified",
         "updated", "modified", "created")


def is_remote(path: str) -> bool:
    return "://" in path


def is_bucket(path: str) -> bool:
    """Whether it is remote and can be listed, and perhaps written; a web server cannot."""
    return is_remote(path) and not path.startswith(("http://", "https://"))

T = TypeVar("T")


def expand(pattern: str | os.PathLike, suffix: str = ".tar") -> list[str]:
    """The files that a path, folder, glob or brace pattern ({000..331}, {train,val}) stands for, sorted.

    Args:
        pattern: local or a URL. A web server lists no files: https:// takes paths and braces.
        suffix: what the names of a folder's files end with; it may hold wildcards.
    Raises: InputError when there is none, or a local file that the braces name is missing. Remote files that are
        named one by one are not looked for: who reads them finds that out.
    """
    pattern = str(pattern).removeprefix("file://")
    find = _find_remote if is_remote(pattern) else _find_local
    return sorted({path for name in _braces(pattern) for path in find(name, suffix)})


def _braces(pattern: str) -> list[str]:
    """ "{08..10}" -> "08", "09", "10", and "{a,b}" -> "a", "b", for each such part."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", pattern)
    if not found:
        return [pattern]
    first, last, listed = found.groups()
    if listed is not None:
        parts = listed.split(",")
    else:
        low, high = sorted((int(first), int(last)))
        parts = [str(i).zfill(len(first)) for i in range(low, high + 1)]
    return [path for part in parts for path in _braces(pattern[: found.start()] + part + pattern[found.end() :])]


def _find_local(name: str, suffix: str) -> list[str]:
    name = os.path.expanduser(name)
    if os.path.isfile(name):
        return [name]
    if os.path.isdir(name):
        return _in_folder(glob.glob(os.path.join(glob.escape(name), "*" + suffix)), name, suffix)
    return _matching(glob.glob(name, recursive=True), name, suffix)


def _find_remote(name: str, suffix: str) -> list[str]:
    system, path = filesystem(name)
    bucket = is_bucket(name)
    if set(name) & set("*?[" if bucket else "*["):  # "?" begins the query of a web address
        if not bucket:
            raise InputError(f"{name}: a web server does not list its files; give a range as {{00000..00331}}")
        found = _persistently(name, lambda: system.glob(path))
        return _matching([system.unstrip_protocol(p) for p in found], name, suffix)
    if not bucket or fnmatch.fnmatch(name, "*" + suffix) or not _persistently(name, lambda: system.isdir(path)):
        return [name]
    found = _persistently(name, lambda: system.glob(path.rstrip("/") + "/*" + suffix))
    return _in_folder([system.unstrip_protocol(p) for p in found], name, suffix)


def _in_folder(found: list[str], folder: str, suffix: str) -> list[str]:
    if not found:
        raise InputError(f"no {suffix} in {folder}: name a folder that holds {suffix} files")
    return found


def _matching(found: list[str], pattern: str, suffix: str) -> list[str]:
    """What a glob means: the files with the suffix if there are any, and not what else lies beside them."""
    if not found:
        raise InputError(f"no {suffix.strip('.*')} at {pattern}: give one, a folder of them, a glob or a range as "
                         "{00000..00331}")
    return fnmatch.filter(found, "*" + suffix) or found


def filesystem(path: str) -> tuple[Any, str]:
    """(fsspec file system, path in it) of a URL. InputError for a missing package or an unknown protocol."""
    import fsspec  # local shards do without

    try:
        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        package = _PACKAGES.get(path.partition("://")[0])
        raise InputError(f"{path} needs a package that is not installed: " +
                         (f"pip install {package}" if package else str(error))) from None
    except ValueError as error:
        raise InputError(f"cannot read {path} ({error}): use gs://, s3://, https:// or a local path") from None


def fingerprint(path: str) -> tuple[int, str]:
    """(size in bytes, tag): another one where the file's content changed. Local: its time in nanoseconds.

    Raises: InputError where there is no such file, or it cannot be reached.
    """
    if not is_remote(path):
        status = _persistently(path, lambda: os.stat(path))
        return status.st_size, str(status.st_mtime_ns)
    system, inner = filesystem(path)
    info = _persistently(path, lambda: system.info(inner))
    if info.get("size") is None or info.get("type") == "directory":
        raise InputError(f"{path} is no file whose size is known: name files, or copy them to a local disk")
    return info["size"], next((str(info[name]) for name in _TAGS if info.get(name)), "")


def download(path: str) -> bytes | None:
    """A small remote file; None where there is none, or none that can be read."""
    try:
        system, inner = filesystem(path)
        return system.cat_file(inner)
    except Exception:  # each file system raises its own
        return None


def upload(path: str, data: bytes) -> None:
    """Writes a small remote file, if one may write there."""
    with contextlib.suppress(Exception):  # as above; a bucket that one may only read is the usual case
        system, inner = filesystem(path)
        system.pipe_file(inner, data)


def _persistently(path: str, action: Callable[[], T]) -> T:
    """`action()`, tried again after what may pass, as an overloaded server or a lost connection."""
    for wait in (*WAITS, None):
        try:
            return action()
        except Exception as error:  # each file system raises its own
            # fsspec's HTTP calls whatever went wrong a missing file, and keeps what it was as the cause.
            hidden = error.__cause__
            cause = error if hidden is None or isinstance(hidden, KeyError) else hidden
            status = getattr(cause, "status", None) or getattr(cause, "code", None)
            refused = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
            final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, InputError)
            if wait is None or refused or isinstance(cause, final):
                said = "no such file" if isinstance(cause, FileNotFoundError) else \
                    getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
                raise InputError(f"cannot read {path} ({said}): check the path, its permissions and the network, then "
                                 "run it again") from error
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


class Reader:
    """Reads byte ranges of files, from any number of threads.

    Of local files, descriptors are kept open, at most half of those that the process may have. Of remote files,
    aligned chunks are kept, the latest `cache_bytes`; threads that want the same chunk share one request.
    Pickled, it begins afresh.
    """

    def __init__(self, cache_bytes: int = 512 << 20, chunk_bytes: int = 1 << 20) -> None:
        self.cache_bytes, self.chunk_bytes = cache_bytes, chunk_bytes
        self._lock = threading.Lock()
        self._files: dict[str, int] = {}  # path -> descriptor, the latest used last
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most_files = allowed // 2 if 0 < allowed < 8192 else 4096
        # (path, number) -> future of bytes, the latest used last
        self._chunks: dict[tuple[str, int], concurrent.futures.Future[bytes]] = {}
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    def __reduce__(self) -> tuple:
        return Reader, (self.cache_bytes, self.chunk_bytes)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """InputError where the file ends before, or cannot be read after several attempts."""
        if is_remote(path):
            data = self._read_remote(path, offset, size)
        else:
            data = _persistently(path, lambda: self._read_local(path, offset, size))
        if len(data) != size:
            raise InputError(f"{path} became shorter while in use: restore it and start again")
        return data

    def prefetch(self, path: str, offset: int, size: int) -> None:
        """Begins to fetch a range of a remote file that will be read; returns at once."""
        if is_remote(path):
            self._request(path, offset, size)

    def close(self) -> None:
        """Closes descriptors, drops chunks and what was asked ahead; the next read opens them again."""
        with self._lock:
            files, self._files, self._chunks = self._files, {}, {}
            pool, self._pool = self._pool, None
        for file in files.values():
            os.close(file)
        if pool:
            pool.shutdown(wait=False, cancel_futures=True)

    def __del__(self) -> None:
        if os is not None:  # as it is when Python ends
            self.close()

    def _read_local(self, path: str, offset: int, size: int) -> bytes:
        with self._lock:
            file = self._files.pop(path, None)  # nobody else can close it while it is out here
        if file is None:
            file = os.open(path, os.O_RDONLY)
        try:
            return os.pread(file, size, offset)
        finally:
            with self._lock:
                spare = file if self._files.setdefault(path, file) != file else None  # a faster thread opened it too
                if len(self._files) > self._most_files:
                    spare = self._files.pop(next(iter(self._files)))
            if spare is not None:
                os.close(spare)

    def _read_remote(self, path: str, offset: int, size: int) -> bytes:
        parts = [future.result() for future in self._request(path, offset, size)]
        start = offset % self.chunk_bytes
        return (parts[0] if len(parts) == 1 else b"".join(parts))[start : start + size]

    def _request(self, path: str, offset: int, size: int) -> list[concurrent.futures.Future[bytes]]:
        """Futures of the chunks that hold a range."""
        chunks = range(offset // self.chunk_bytes, -(-(offset + size) // self.chunk_bytes))
        with self._lock:
            pool = self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(_THREADS)
            futures = [self._chunks.pop((path, k)) if (path, k) in self._chunks else pool.submit(self._fetch, path, k)
                       for k in chunks]
            self._chunks.update({(path, k): future for k, future in zip(chunks, futures)})
            while len(self._chunks) > max(2, self.cache_bytes // self.chunk_bytes):
                self._chunks.pop(next(iter(self._chunks)))
        return futures

    def _fetch(self, path: str, number: int) -> bytes:
        system, inner = filesystem(path)
        start = number * self.chunk_bytes
        try:
            data = _persistently(path, lambda: system.cat_file(inner, start=start, end=start + self.chunk_bytes))
        except InputError:
            with self._lock:
                self._chunks.pop((path, number), None)  # asked for again, it is tried again
            raise
        if len(data) > self.chunk_bytes:
            raise InputError(f"{path}: its server sends the whole file where a part was asked for; copy the shards to "
                             "a local disk or a bucket")
        return data
