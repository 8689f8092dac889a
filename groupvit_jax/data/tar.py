"""WebDataset tars of captioned pictures, read at random through an index, and written.

A sample is the files of one tar that share a key, as WebDataset defines it: the path up to the first dot of
its last part. `000000012.jpg` and `000000012.txt` are picture and caption of sample `000000012`.
"""

import glob
import io
import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np

from groupvit_jax.errors import InputError

_IMAGES = ("jpg", "jpeg", "png", "webp")
_CAPTIONS = ("txt", "text", "caption", "json")  # the first that holds one is taken


class TarSource:
    """Captioned pictures from tars as a random-access source for grain.

    `source[i]` is `{"image": encoded bytes, "caption": str, "key": str}`. Order: tars by name, samples as
    they lie in them. `skipped` counts the samples left out because picture or caption was missing or empty.

    Args:
        pattern: a tar, a folder of tars, a glob ("data/*.tar") or numbered braces ("data/{000..331}.tar").
    Raises:
        InputError: nothing matches, a file is no complete tar, or no sample has both picture and caption.
    """

    def __init__(self, pattern):
        self._files = {}  # number of the path -> descriptor, opened on first use in each process
        self.pattern = str(pattern)
        self.paths = expand(pattern)
        self.skipped = 0
        self._keys, rows = [], []
        for number, path in enumerate(self.paths):
            for key, image, caption in self._complete(number, _members(path)):
                self._keys.append(key)
                rows.append((number, *image, *caption))
        # [samples 6]: path, image offset and size, caption offset and size, caption is JSON
        self._index = np.array(rows, np.int64).reshape(-1, 6)
        if not rows:
            raise InputError(
                f"no picture with a caption in {self.pattern} ({self.skipped} incomplete samples): "
                'tars need pairs such as 0001.jpg and 0001.txt, or a .json with "caption"'
            )

    def _complete(self, number, members):
        """Yields (key, (image offset, size), (caption offset, size, is JSON)) of samples that have both."""
        samples = {}
        for name, offset, size in members:
            folder, _, base = name.rpartition("/")
            stem, _, kind = base.partition(".")
            if stem and kind:
                samples.setdefault(f"{folder}/{stem}" if folder else stem, {})[kind.lower()] = (offset, size)
        for key, parts in samples.items():
            image = next((parts[kind] for kind in _IMAGES if parts.get(kind, (0, 0))[1]), None)
            caption = next((c for c in (self._caption(number, parts, k) for k in _CAPTIONS) if c), None)
            if image and caption:
                yield key, image, caption
            else:
                self.skipped += 1

    def _caption(self, number, parts, kind):
        """(offset, size, is JSON) of a caption that is there and not empty, else None."""
        offset, size = parts.get(kind, (0, 0))
        if size and (kind != "json" or _json_caption(self._read(number, offset, size))):
            return offset, size, kind == "json"

    def __len__(self):
        return len(self._keys)

    def __getitem__(self, i):
        number, *image, at, size, is_json = self._index[i].tolist()
        caption = self._read(number, at, size)
        caption = _json_caption(caption) if is_json else caption.decode("utf-8", "replace")
        return {"image": self._read(number, *image), "caption": caption.strip(), "key": self._keys[i]}

    def __repr__(self):  # grain compares it when it restores a position
        return f"TarSource({self.pattern!r}, {len(self)} samples)"

    def _read(self, number, offset, size):
        file = self._files.get(number)
        if file is None:
            opened = os.open(self.paths[number], os.O_RDONLY)
            file = self._files.setdefault(number, opened)
            if file != opened:  # another thread was faster
                os.close(opened)
        data = os.pread(file, size, offset)
        if len(data) != size:
            raise InputError(f"{self.paths[number]} became shorter while in use: restore it and start again")
        return data

    def close(self):
        """Closes the descriptors; the next read opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    __del__ = close

    def __getstate__(self):
        return {**self.__dict__, "_files": {}}


def expand(pattern):
    """The tars that a path, folder, glob or brace pattern stands for, sorted.

    Raises:
        InputError: there is none, or a file that the braces name is missing.
    """
    pattern = os.path.expanduser(str(pattern))
    if os.path.isdir(pattern):
        paths = glob.glob(os.path.join(glob.escape(pattern), "*.tar"))
        if not paths:
            raise InputError(f"no .tar in {pattern}: name a folder that holds WebDataset tars")
        return sorted(paths)
    paths = []
    for path in _braces(pattern):
        found = [path] if os.path.isfile(path) else glob.glob(path)
        if not found:
            raise InputError(
                f"no tar at {path}: give a tar, a folder of tars, a glob or a range as {{00000..00331}}"
            )
        paths += found
    return sorted(set(paths))


def _braces(pattern):
    """ "{08..10}" -> "08", "09", "10", for each such range."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    numbers = (str(i).zfill(len(first)) for i in range(int(first), int(last) + 1))
    return [path for n in numbers for path in _braces(pattern[: found.start()] + n + pattern[found.end() :])]


def _members(path):
    """(name, offset, size) of each file in a tar."""
    members = []
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                if member.isfile():
                    members.append((member.name, member.offset_data, member.size))
                tar.members = []  # or it keeps them all
        with open(
            path, "rb"
        ) as file:  # zeros end a tar; tarfile takes one cut off between two members for whole
            file.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
            if any(file.read()):
                raise tarfile.ReadError("its end is missing")
    except tarfile.TarError as error:
        raise InputError(
            f"{path} is no complete uncompressed tar ({error}): download or write it again"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot read {path} ({error.strerror}): check the path and its permissions"
        ) from error
    return members


def _json_caption(data):
    """The caption in the bytes of a JSON object, or None."""
    try:
        caption = json.loads(data).get("caption")
    except (ValueError, AttributeError):
        return None
    return caption if isinstance(caption, str) and caption.strip() else None


def write_tar(path, files):
    """Writes a tar, the same bytes for the same files, whole or not at all.

    Args:
        path: where to; its folder must exist.
        files: iterable of (name, bytes), samples in one run: ("0001.jpg", ...), ("0001.txt", ...).
    """
    part = Path(f"{path}.part")
    with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as tar:  # TarInfo's own time and owner are 0
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    os.replace(part, path)
