"""Makes a TFDS data set: in this process, or on Apache Beam, one shard a piece of work."""

import contextlib
import io
import os
import re
import shlex
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from groupvit_jax.data import storage
from groupvit_jax.errors import InputError
from groupvit_jax.writer import Progress

PAIRS = "pairs"


class Converted(NamedTuple):
    """Where the data set is, the name of its split, its size, and what was left out by kind."""

    folder: Path
    split: str
    samples: int
    left_out: dict[str, int]


def convert(dataset: str, data: str | os.PathLike, output: str | os.PathLike, name: str = "", split: str = "",
            beam: bool = False, beam_options: str = "") -> Converted:
    """Writes OUTPUT/NAME/1.0.0, a TFDS data set in ArrayRecord files. It has that name only when it is whole.

    Args:
        dataset: "pairs" (captioned pictures in tars), or the key of a segmentation set.
        data: the tars (a pattern), or the folder in which the segmentation set was unpacked.
        name: of the new data set; that of `dataset` if empty.
        split: of the new data set, "train" for pairs if empty; of a segmentation set, the one to take, in place of the
            one that is scored.
        beam: make the shards on Apache Beam with `beam_options` in its own form ("--runner=DirectRunner ..."). All its
            workers must have this package, and see `data` and `output` under the same paths.
    Raises:
        InputError: bad names or data, no usable sample, a data set of that name is there, Beam is not installed.
    """
    from groupvit_jax.data.builders import PairsBuilder, SegmentationBuilder  # TFDS takes a while to import

    for what, given in (("name", name), ("split", split)):
        if given and not re.fullmatch(r"[a-z]\w*", given, re.ASCII):
            raise InputError(f"{what} {given!r} is none for TFDS: take small letters, digits and underscores")
    settings = _on_beam(beam_options) if beam else {}
    output = Path(output).expanduser().absolute()
    if dataset == PAIRS:
        tars = str(data) if storage.is_remote(str(data)) else os.path.abspath(os.path.expanduser(str(data)))
        builder = PairsBuilder(tars, name or dataset, split or "train", output)
    else:
        builder = SegmentationBuilder(dataset, Path(data).expanduser().absolute(), name or dataset, split, output)
    folder = Path(builder.data_dir)
    if folder.exists():
        raise InputError(f"{folder} is there already: give another name or output, or remove it")
    for left in folder.parent.glob("incomplete.*"):
        logging.warning("%s is what a conversion left that was killed, or one that still runs: if none does, remove it",
                        left)
    try:
        _run(builder, settings)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # where nothing else is in it
        raise
    return Converted(folder, builder.split, **builder.info.metadata)


def _run(builder: Any, settings: dict) -> None:
    import tensorflow_datasets as tfds

    config, ended = tfds.download.DownloadConfig(**settings), threading.Event()
    # Nothing is downloaded, but TFDS makes a folder for it.
    with tempfile.TemporaryDirectory() as nothing, Progress(builder.name, len(builder.shards), "shards") as progress:
        watch = threading.Thread(target=_watch, args=(builder, progress, ended))
        watch.start()
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloads
                builder.download_and_prepare(download_dir=nothing, download_config=config)
        except InputError:
            raise
        except Exception as error:
            said = str(error).strip().splitlines()[-1:]
            if settings:  # Beam turns what its workers raise into errors of its own
                raise InputError(f"the pipeline on Beam failed: {' '.join(said)}") from error
            if isinstance(error, OSError | RuntimeError):  # ArrayRecord's own are the latter
                raise InputError(f"cannot write {builder.data_dir} ({' '.join(said)}): make room or choose another "
                                 "place") from error
            raise
        finally:
            ended.set()
            watch.join()
        progress.advance(progress.total - progress.done, f"{builder.info.metadata['samples']:,} samples")


def _watch(builder: Any, progress: Progress, ended: threading.Event) -> None:
    """Shows how far it is, wherever the shards are made."""
    while not ended.wait(1):
        reports = builder.so_far()
        samples = sum(report["samples"] for report in reports)
        progress.advance(max(0, len(reports) - progress.done), f"{samples:,} samples")


def _on_beam(options: str) -> dict:
    """What TFDS wants to know about Beam. Raises InputError if it is not here, or for options it cannot read."""
    try:
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    except ImportError:
        raise InputError("a conversion on Beam needs Apache Beam: pip install 'groupvit_jax[beam]'") from None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions(shlex.split(options))
            parsed.get_all_options()  # it reads them only now
    except (ValueError, SystemExit) as error:  # argparse prints what is wrong and ends the process
        last = (said.getvalue().strip() or str(error)).splitlines()[-1]
        raise InputError(f"cannot read the options for Beam {options!r}: {last}") from None
    return {"beam_runner": parsed.view_as(StandardOptions).runner or "DirectRunner", "beam_options": parsed}
