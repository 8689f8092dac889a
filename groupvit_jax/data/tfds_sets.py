"""TFDS data sets on disk, read at random without TensorFlow: pictures as the bytes they were stored in."""

import os
from pathlib import Path
from typing import Any

from groupvit_jax.errors import InputError


def find(folder: str | Path) -> Path | None:
    """The folder with `dataset_info.json` at or below `folder` (NAME/VERSION or NAME/CONFIG/VERSION), the newest; None
    if there is none."""
    if not os.path.isdir(folder):  # a glob raises for a name too long
        return None
    found = [info.parent for depth in ("", "*/", "*/*/") for info in Path(folder).glob(f"{depth}dataset_info.json")]
    version = lambda path: [int(part) if part.isdigit() else -1 for part in path.name.split(".")]  # noqa: E731
    return max(found, key=version, default=None)


def open_builder(folder: str | Path) -> Any:
    """The data set in a folder, from its files alone; InputError if these cannot be read at random."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise InputError(f"{folder} holds {builder.info.file_format.value} files, which cannot be read at random: "
                         "prepare it again with download_and_prepare(file_format='array_record')")
    return builder


class Records:
    """A split's records: `records[i]` is {field: bytes of a picture, number or bytes}.

    Raises InputError if there is no such split, a field is missing, or the files cannot be read at random.
    """

    def __init__(self, folder: Path, split: str, *fields: str) -> None:
        import tensorflow_datasets as tfds  # takes a while

        builder = open_builder(folder)
        missing = [field for field in fields if field not in builder.info.features]
        if missing or split not in builder.info.splits:
            what = f"field {missing[0]!r}" if missing else f"split {split!r}"
            raise InputError(f"{folder} has no {what}: prepare it again, as `groupvit data convert` does")
        features = builder.info.features
        images = [name for name in features if isinstance(features[name], tfds.features.Image)]
        skip = {name: tfds.decode.SkipDecoding() for name in images}
        try:
            self._source = builder.as_data_source(split, decoders=skip)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"cannot open {folder} ({' '.join(str(error).split())[:200]}): copy the whole data set"
                             ) from None
        self.folder = folder

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> dict:
        try:
            return self._source[i]
        except (OSError, RuntimeError) as error:  # ArrayRecord's own are the latter
            raise InputError(f"cannot read record {i} of {self.folder} ({error}): copy the whole data set") from None
