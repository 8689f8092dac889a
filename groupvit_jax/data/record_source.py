"""Captioned pictures in ArrayRecord files: files of one's own, or a TFDS data set. Neither needs TensorFlow.

A record is a serialized tf.train.Example that holds the encoded picture and its caption as bytes; a key is optional.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from groupvit_jax.data import storage, tfds_sets
from groupvit_jax.data.bad import BadSample, read_caption
from groupvit_jax.errors import InputError

# What the parts of a sample may be called, the first that is there is taken.
_IMAGE = ("image", "jpg", "jpeg", "png", "webp")
_CAPTION = ("caption", "text", "txt")
_KEY = ("key", "id", "__key__")
_LOOKED_AT = 8  # records, to see whether the files hold captioned pictures at all


@dataclasses.dataclass(frozen=True)
class _Part:
    """Records of one file, as array_record wants to be told which."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class RecordSource:
    """Captioned pictures from ArrayRecord files as a random-access source.

    `source[i]` is `{"image": encoded bytes, "caption": str, "key": str}`; it raises BadSample for a record that cannot
    be used. Order: files by name, records as they lie in them. Files that are no complete ArrayRecord are left out and
    counted in `problems` as truncated shards.

    Args:
        pattern: an ArrayRecord file, a folder of `.array_record` files, a glob, or numbered braces; on a local disk.
    Raises:
        InputError: nothing matches, no file can be read, or the records hold no pictures or no captions.
    """

    tagger = None  # no content words are stored
    block = 1  # reading at random is cheap

    def __init__(self, pattern: str | os.PathLike) -> None:
        self.pattern = str(pattern)
        if storage.is_remote(self.pattern):
            raise InputError(f"{pattern}: ArrayRecord files are read from a local disk; copy or mount them")
        paths = storage.expand(pattern, suffix=".array_record*")  # TFDS numbers its files after that
        with ThreadPoolExecutor(16) as pool:
            counts = list(pool.map(_count, paths))
        parts = [_Part(path, 0, count, count) for path, count in zip(paths, counts) if count]
        if not parts:
            raise InputError(f"no record in {self.pattern}: it should name complete ArrayRecord files; make them again "
                             "where writing was interrupted")
        self._open(parts, "record")
        self.problems["truncated shard"] = counts.count(None)
        self._check()

    def _open(self, parts: Sequence[Any], name: str) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._name = name
        self.problems: dict[str, int] = {}
        self._files = [(Path(part.filename).name, os.path.getsize(part.filename), f"{part.skip}+{part.take}")
                       for part in parts]
        # It opens a file when it is first read, in every process anew, and lets threads share it.
        self._records = ArrayRecordDataSource(parts)

    def _check(self) -> None:
        """Raises InputError unless one of the first records has a picture and a caption."""
        names = set()
        for i in range(min(_LOOKED_AT, len(self))):
            try:
                parts = self._parts(i)
            except BadSample:
                continue
            names |= set(parts)
            if set(_IMAGE) & set(parts) and set(_CAPTION) & set(parts):
                return
        raise InputError(f"the records of {self.pattern} are no captioned pictures: each should be a tf.train.Example "
                         f"with bytes 'image' and 'caption', but they have {', '.join(sorted(names)) or 'nothing'}")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> dict:
        parts = self._parts(i)
        key = self._key(parts, i)
        image = next((parts[name] for name in _IMAGE if parts.get(name)), None)
        if image is None:
            raise BadSample("no image", f"{key} of {self.pattern}")
        caption = next((parts[name] for name in _CAPTION if name in parts), None)
        if caption is None:
            raise BadSample("no caption", f"{key} of {self.pattern}")
        try:
            return {"image": image, "caption": read_caption(caption), "key": key}
        except BadSample as error:
            raise BadSample(error.kind, f"{key} of {self.pattern}") from None

    def key(self, i: int) -> str:
        """The name of record i, by its place where the record cannot be read."""
        try:
            return self._key(self._parts(i), i)
        except BadSample:
            return self._key({}, i)

    def _key(self, parts: dict[str, bytes], i: int) -> str:
        key = next((parts[name] for name in _KEY if name in parts), f"{self._name}#{i}".encode())
        return key.decode("utf-8", "replace")

    def _parts(self, i: int) -> dict[str, bytes]:
        """The fields of record i that hold bytes; a key may be a whole number too."""
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            example = tf_example_pb2.Example.FromString(self._records[i])
        except (RuntimeError, DecodeError) as error:  # array_record checks the hash of what it reads
            raise BadSample("broken image", f"{self._name}#{i} of {self.pattern}: {error}") from None
        parts = {}
        for name, feature in example.features.feature.items():
            if feature.bytes_list.value:
                parts[name] = feature.bytes_list.value[0]
            elif name in _KEY and feature.int64_list.value:
                parts[name] = str(feature.int64_list.value[0]).encode()
        return parts

    def prefetch(self, i: int) -> None:
        """Nothing: the files are local."""

    def files(self) -> list[tuple[str, int, str]]:
        """(name, bytes, records as "FIRST+NUMBER") of each file."""
        return self._files

    def __repr__(self) -> str:  # grain compares it when it restores a position
        return f"{type(self).__name__}({self.pattern!r}, {len(self)} samples)"


class TfdsSource(RecordSource):
    """Captioned pictures from a TFDS data set on disk, in the same form as RecordSource.

    The data set is opened from its files alone: the code that made it need not be here, nor TensorFlow, and nothing is
    downloaded. Order: as TFDS wrote them. A key that is not in the data is "SPLIT#i".

    Args:
        pattern: the folder that holds `dataset_info.json` (DATA_DIR/NAME/VERSION), or one above with one such below
            it; then, if it is not "train", a colon and the split: "DATA_DIR/cc3m/1.0.0:val", "...:train[:50%]".
    Raises:
        InputError: no data set there or several, no such split, other files than ArrayRecord, files missing, or no
            fields with encoded pictures and captions.
    """

    def __init__(self, pattern: str | os.PathLike) -> None:
        self.pattern = str(pattern)
        if not self.pattern or storage.is_remote(self.pattern):
            raise InputError(f"no TFDS data set at {self.pattern!r}: name a folder on a local or mounted disk")
        found = re.fullmatch(r"(.+?)(?::([A-Za-z]\w*(?:\[[^\]]*\])?))?", self.pattern, re.DOTALL)
        assert found  # whatever it is
        path, split = found.groups()
        folder = _dataset_folder(Path(path).expanduser())
        builder = tfds_sets.open_builder(folder)
        self._check_features(folder, builder.info.features)
        self._open(self._split(builder, split or "train"), split or "train")

    def _check_features(self, folder: Path, features: Any) -> None:
        """They are encoded pictures and texts if what is stored is a single string of bytes."""
        stored = {name for name, info in features.get_serialized_info().items()
                  if not isinstance(info, dict) and info.shape == () and np.dtype(info.np_dtype) == np.object_}
        for names, what in ((_IMAGE, "encoded pictures"), (_CAPTION, "captions")):
            if not stored & set(names):
                raise InputError(f"{folder} has no {what}: it needs a field called one of {', '.join(names)}, but has "
                                 f"{', '.join(sorted(features))}")

    def _split(self, builder: Any, split: str) -> Any:
        """The parts of the files that are this split."""
        try:
            parts = builder.info.splits[split].file_instructions
        except (KeyError, ValueError) as error:
            said = str(error).strip("'\"").partition("\n")[0]
            raise InputError(f"{self.pattern}: no split {split!r} ({said}); there are "
                             f"{', '.join(builder.info.splits)}") from None
        if not sum(part.take for part in parts):
            raise InputError(f"{self.pattern}: split {split!r} is empty; choose among {', '.join(builder.info.splits)}")
        for part in parts:
            if not Path(part.filename).is_file():
                raise InputError(f"{part.filename} is missing, but {self.pattern} needs it: copy the whole data set")
        return parts


def _count(path: str) -> int | None:
    """The number of records in a file; None if it is no complete ArrayRecord file."""
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        reader = ArrayRecordReader(path)
        count = reader.num_records()
        reader.close()
        return count
    except RuntimeError:
        return None


def _dataset_folder(path: Path) -> Path:
    """The one folder at or below `path` that holds a TFDS data set."""
    if not path.is_dir():
        raise InputError(f"no folder {path}: name DATA_DIR/NAME/VERSION as TFDS or `groupvit data convert` made it")
    for depth in ("", "*/", "*/*/", "*/*/*/"):  # data_dir/name/config/version
        found = sorted(info.parent for info in path.glob(f"{depth}dataset_info.json"))
        if len(found) > 1:
            raise InputError(f"{path} holds {len(found)} data sets: name one, such as {found[0]}")
        if found:
            return found[0]
    raise InputError(f"no TFDS data set in {path}: a folder with dataset_info.json should be there or below")
