"""TFDS data sets in ArrayRecord files, made from tars and from segmentation sets; TensorFlow is not needed.

Pictures are stored as the bytes they came in (JPEG, PNG, WebP), and records in the order of what they were made from,
so the same input gives the same records. `tfds.builder_from_directory` opens such a data set without this package.
"""

import contextlib
import functools
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from groupvit_jax import files
from groupvit_jax.data import index, segmentation_sets, storage
from groupvit_jax.data.bad import BadSample, listed
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.errors import InputError

_MASKS_A_SHARD = 256


class _ShardsBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS is untyped
    """Makes each shard by one function that yields its samples, in this process or wherever Beam takes it.

    shards: these functions; each is given a counter, for the samples that it leaves out, by kind. What they wrote and
    left out becomes the data set's metadata: {"samples": int, "left_out": {kind: int}}.
    """

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # TFDS would look beside it for checksums of downloads

    def __init__(self, name: str, split: str, output: str | Path, shards: list) -> None:
        self.name, self.split, self.shards = name, split, shards
        self._reports: list[Path] = []
        super().__init__(data_dir=str(output), file_format="array_record")

    def so_far(self) -> list[dict]:
        """What is known of the shards that are through: {"samples": int, "left_out": {kind: int}} each."""
        found = []
        for path in self._reports:
            with contextlib.suppress(FileNotFoundError):
                found.append(json.loads(path.read_bytes()))
        return found

    def _shard_iterators_per_split(self, _: Any) -> dict[str, list]:
        # In the folder with a temporary name that TFDS fills and then renames; workers leave them there.
        self._reports = [Path(self.data_dir) / f"report-{i:05d}.json" for i in range(len(self.shards))]
        return {self.split: [functools.partial(_reported, *pair) for pair in zip(self.shards, self._reports)]}

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        samples = sum(report["samples"] for report in self.so_far())
        left_out = sum((Counter(report["left_out"]) for report in self.so_far()), Counter())
        if not samples:
            found = listed(left_out) or "there is none"
            raise InputError(f"nothing to convert: no sample of {self.name} can be used ({found})")
        self.info.metadata.update(samples=samples, left_out=dict(sorted(left_out.items())))
        for path in (*self._reports, *Path(self.data_dir).glob("*.shard_infos.json")):  # the other is TFDS's, of Beam
            path.unlink()

    def _describe(self, description: str, **features: Any) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, description=description, metadata=tfds.core.MetadataDict(),
                                     features=tfds.features.FeaturesDict(features | {"key": tfds.features.Text()}))


class PairsBuilder(_ShardsBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS is untyped
    """Pictures with captions from tars, a shard from each; what cannot be used is left out and counted.

    Records: image (encoded), caption and key (UTF-8).

    Args:
        pattern: the tars, as TarSource takes them. name, split: of the data set that is made.
        output: its files go to OUTPUT/NAME/1.0.0.
    """

    def __init__(self, pattern: str, name: str, split: str, output: str | Path) -> None:
        super().__init__(name, split, output,
                         [functools.partial(_pairs, path) for path in storage.expand(pattern, suffix=".tar")])

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe("Pictures with captions.", image=tfds.features.Image(), caption=tfds.features.Text())


class SegmentationBuilder(_ShardsBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS is untyped
    """A segmentation set from its usual folders.

    Records: image (encoded), mask (PNG with one channel: the set's label ids, 255 ignored) and key.

    Args:
        key: of the set, see segmentation_sets.LAYOUTS. root, split: as segmentation_sets.pairs takes them.
        name: of the data set that is made. output: its files go to OUTPUT/NAME/1.0.0.
    """

    def __init__(self, key: str, root: str | Path, name: str, split: str | None, output: str | Path) -> None:
        self.key, pairs = key, segmentation_sets.pairs(key, root, split)
        super().__init__(name, split or segmentation_sets.find_layout(key).split, output,
                         [functools.partial(_masks, key, pairs[i : i + _MASKS_A_SHARD])
                          for i in range(0, len(pairs), _MASKS_A_SHARD)])

    def _info(self) -> tfds.core.DatasetInfo:
        mask = tfds.features.Image(shape=(None, None, 1), encoding_format="png", doc="label ids; 255 is ignored")
        return self._describe(f"Pictures and masks of {self.key}.", image=tfds.features.Image(), mask=mask)


def _reported(samples: Callable[[Counter[str]], Iterator[dict]], report: Path) -> Iterator[tuple[str, dict]]:
    """(key, sample) of each of `samples(left_out)`; then writes the report."""
    left_out, count = Counter[str](), 0
    for sample in samples(left_out):
        yield sample["key"], sample
        count += 1
        sample.clear()  # it is written; TFDS keeps what it was given until the whole shard is
    files.write(report, json.dumps({"samples": count, "left_out": left_out}).encode())


def _pairs(path: str, left_out: Counter) -> Iterator[dict]:
    shard, = index.ensure([path])
    left_out.update(shard.problems)
    if not shard.samples:
        return
    source = TarSource(path)
    for i in range(len(source)):
        if source.block > 1:
            source.prefetch(min(i + source.block, len(source) - 1))
        try:
            sample = source[i]
        except BadSample as error:
            left_out[error.kind] += 1
        else:
            yield {"image": io.BytesIO(sample["image"]), "caption": sample["caption"], "key": sample["key"]}


def _masks(key: str, pairs: list[tuple[str, Path, Path]], left_out: Counter) -> Iterator[dict]:
    for name, image, mask in pairs:
        encoded = io.BytesIO()
        Image.fromarray(segmentation_sets.read_labels(key, mask)).save(encoded, "PNG")
        yield {"image": image.read_bytes(), "mask": encoded.getvalue(), "key": name}
