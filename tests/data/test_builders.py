import io
import json
import resource
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from groupvit_jax.data import builders, segmentation_sets, tar
from groupvit_jax.data.convert import convert
from groupvit_jax.data.record_source import RecordSource, TfdsSource
from groupvit_jax.data.tar_source import TarSource
from groupvit_jax.errors import InputError

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


def encoded(seed, kind="jpg"):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)).save(stream, FORMATS[kind])
    return stream.getvalue()


@pytest.fixture
def tars(tmp_path):
    """Three tars; the second has no captions, and in the third two of five samples cannot be used."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for number, captions in enumerate((["a cat", "two dogs 🐶", "dés"], [""] * 2, ["x", "", "\0\1\2", "y", "z"])):
        files = []
        for i, (caption, kind) in enumerate(zip(captions, ["jpg", "webp", "png", "jpg", "jpg"])):
            files += [(f"{i:03d}.{kind}", encoded(10 * number + i, kind)), (f"{i:03d}.txt", caption.encode())]
        tar.write_tar(folder / f"{number}.tar", files)
    return folder


@pytest.fixture
def voc(tmp_path):
    """Three pictures with palette masks in VOC's layout."""
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(0)
    for key in "abc":
        (folder / f"JPEGImages/{key}.jpg").write_bytes(encoded(ord(key)))
        mask = Image.fromarray(noise.choice([*range(21), 255], (8, 12)).astype(np.uint8))
        mask.putpalette([7] * 768)
        mask.save(folder / f"SegmentationClass/{key}.png")
    (folder / "ImageSets/Segmentation/val.txt").write_text("b\na\nc\n")
    return tmp_path


def usable(source):
    """The samples that are not bad, in order."""
    found = []
    for i in range(len(source)):
        try:
            found.append(source[i])
        except builders.BadSample:
            continue
    return found


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ---------------------------------------------------------------- pairs


def test_pairs_come_back_as_the_same_bytes_texts_and_keys_in_the_order_of_the_tars(tars, tmp_path):
    made = convert("pairs", tars, tmp_path / "out", name="mine")
    source = TfdsSource(made.folder)
    samples = [source[i] for i in range(len(source))]
    assert samples == usable(TarSource(tars)) and len(samples) == made.samples == 6
    assert samples[1]["image"] == encoded(1, "webp") and samples[2]["image"] == encoded(2, "png")
    assert made.folder == tmp_path / "out/mine/1.0.0" and made.split == "train"
    assert usable(RecordSource(made.folder)) == samples


def test_what_cannot_be_used_is_left_out_and_counted_and_the_data_set_says_so(tars, tmp_path):
    made = convert("pairs", tars, tmp_path / "out")
    assert made.left_out == {"binary caption": 1, "no caption": 3}
    about = tfds.builder_from_directory(made.folder).info
    assert dict(about.metadata) == {"samples": 6, "left_out": made.left_out}
    assert about.splits["train"].shard_lengths == [3, 0, 3]


def test_the_data_set_is_made_of_these_files_alone(tars, tmp_path):
    made = convert("pairs", tars, tmp_path / "out", split="val")
    assert everything(made.folder) == ["dataset_info.json", "features.json", "metadata.json",
                                       *(f"pairs-val.array_record-0000{i}-of-00003" for i in range(3))]
    assert everything(tmp_path / "out") == ["pairs", "pairs/1.0.0", *(f"pairs/1.0.0/{f}" for f in
                                                                      everything(made.folder))]


def test_plain_tfds_opens_it_without_this_package(tars, voc, tmp_path):
    pairs, masks = convert("pairs", tars, tmp_path / "out"), convert("voc", voc, tmp_path / "out")
    code = f"""
import sys
sys.modules["groupvit_jax"] = None
import numpy as np, tensorflow_datasets as tfds
first = tfds.builder_from_directory({str(pairs.folder)!r}).as_data_source("train")
second = tfds.builder_from_directory({str(masks.folder)!r}).as_data_source("val")
print(len(first), first[1]["image"].shape, first[1]["caption"].decode(), first[1]["key"].decode())
print(len(second), second[0]["key"].decode(), second[0]["mask"].shape, second[0]["mask"].sum())
assert "tensorflow" not in sys.modules
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    labels = segmentation_sets.read_labels("voc", voc / "VOCdevkit/VOC2012/SegmentationClass/b.png")
    assert said.stdout.splitlines() == ["6 (8, 12, 3) two dogs 🐶 001", f"3 b (8, 12, 1) {labels.sum()}"], said.stderr


def test_the_same_tars_give_the_same_records(tars, tmp_path):
    first, second = (TfdsSource(convert("pairs", tars, tmp_path / out).folder) for out in ("one", "two"))
    assert [first[i] for i in range(6)] == [second[i] for i in range(6)]


def test_a_shard_is_not_held_in_memory(tmp_path):
    noise = np.random.default_rng(0)
    tar.write_tar(tmp_path / "large.tar", [file for i in range(40) for file in
                                           ((f"{i:02d}.jpg", noise.bytes(1 << 20)), (f"{i:02d}.txt", b"words"))])
    convert("pairs", tmp_path / "large.tar", tmp_path / "warm")
    tracemalloc.start()
    convert("pairs", tmp_path / "large.tar", tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20  # of 40 MiB


# ---------------------------------------------------------------- segmentation sets


@pytest.mark.parametrize("key", ["voc", "voc20"])
def test_masks_come_back_as_grey_pngs_of_label_ids_and_pictures_as_their_own_bytes(key, voc, tmp_path):
    made = convert(key, voc, tmp_path / "out")
    source = tfds.builder_from_directory(made.folder).as_data_source(
        "val", decoders={"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()})
    assert (made.samples, made.split, made.left_out, len(source)) == (3, "val", {}, 3)
    for record, (name, image, mask) in zip(source, segmentation_sets.pairs(key, voc), strict=True):
        stored = Image.open(io.BytesIO(record["mask"]))
        assert record["key"].decode() == name and record["image"] == image.read_bytes() and stored.mode == "L"
        np.testing.assert_array_equal(np.asarray(stored), segmentation_sets.read_labels(key, mask))


def test_a_set_is_cut_into_shards_and_keeps_its_order(voc, tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "_MASKS_A_SHARD", 2)
    folder = convert("voc", voc, tmp_path / "out").folder
    source = tfds.builder_from_directory(folder).as_data_source("val")
    assert [record["key"] for record in source] == [b"b", b"a", b"c"]
    assert len(list(folder.glob("*-of-00002"))) == 2


# ---------------------------------------------------------------- what goes wrong


def test_an_interrupted_conversion_leaves_nothing_and_can_be_run_again(tars, tmp_path, monkeypatch):
    read, threads = TarSource.__getitem__, threading.active_count()

    def interrupted(self, i):
        if i == 2:
            raise KeyboardInterrupt
        return read(self, i)

    with monkeypatch.context() as patch:
        patch.setattr(TarSource, "__getitem__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert("pairs", tars, tmp_path / "out")
    assert everything(tmp_path / "out") == [] and threading.active_count() == threads
    assert convert("pairs", tars, tmp_path / "out").samples == 6


def test_a_killed_conversion_leaves_no_data_set_under_its_name_and_can_be_run_again(tars, tmp_path):
    code = f"""
import os
from groupvit_jax.data import convert, tar_source
read = tar_source.TarSource.__getitem__
tar_source.TarSource.__getitem__ = lambda self, i: os._exit(9) if i == 2 else read(self, i)
convert.convert("pairs", {str(tars)!r}, {str(tmp_path / "out")!r})
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 9
    left = next((tmp_path / "out/pairs").iterdir())
    assert left.name.startswith("incomplete.") and not (tmp_path / "out/pairs/1.0.0").exists()
    with pytest.raises(InputError, match="no TFDS data set"):
        TfdsSource(tmp_path / "out")
    assert convert("pairs", tars, tmp_path / "out").samples == 6
    assert len(TfdsSource(tmp_path / "out")) == 6


def test_a_data_set_that_is_there_is_not_touched(tars, tmp_path):
    folder = convert("pairs", tars, tmp_path / "out").folder
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=f"{folder} is there already: give another name"):
        convert("pairs", tars / "0.tar", tmp_path / "out")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("arguments, words", [
    ({"data": "1.tar"}, "no sample of pairs can be used .2 x no caption"),
    ({"data": "nothing"}, "nothing"), ({"name": "Mine"}, "name 'Mine'.*small letters"),
    ({"split": "a b"}, "split 'a b'"), ({"dataset": "coco"}, "no segmentation set 'coco'"),
    ({"dataset": "voc"}, "VOC2012.*host.robots"),
])
def test_wrong_arguments_are_errors_and_nothing_is_left(tars, tmp_path, arguments, words):
    data = tars / arguments.pop("data", "0.tar")
    with pytest.raises(InputError, match=words):
        convert(arguments.pop("dataset", "pairs"), data, tmp_path / "out", **arguments)
    assert everything(tmp_path / "out") == []


@pytest.fixture
def no_room():
    """No file may grow beyond 50,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_and_nothing_is_left(tars, tmp_path, no_room):
    with pytest.raises(InputError, match="cannot write .*out/pairs/1.0.0.*make room"):
        convert("pairs", tars, tmp_path / "out")
    assert everything(tmp_path / "out") == []


def test_a_broken_mask_stops_the_conversion_with_its_name(voc, tmp_path):
    mask = voc / "VOCdevkit/VOC2012/SegmentationClass/a.png"
    mask.write_bytes(b"no png")
    with pytest.raises(InputError, match=f"cannot read {mask}"):
        convert("voc", voc, tmp_path / "out")
    assert everything(tmp_path / "out") == []


# ---------------------------------------------------------------- Beam


def test_without_beam_the_error_says_what_to_install(tars, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match="pip install 'groupvit_jax.beam.'"):
        convert("pairs", tars, tmp_path / "out", beam=True)


@pytest.fixture
def on_beam():
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed (the extra `beam`)")
    return lambda *args, **options: convert(*args, beam=True, **options)


@pytest.mark.parametrize("options", ["", "--runner=DirectRunner --direct_running_mode=multi_threading "
                                     "--direct_num_workers=2"])
def test_beam_makes_the_same_data_set(tars, voc, tmp_path, on_beam, options):
    for dataset, data in (("pairs", tars), ("voc20", voc)):
        plain = convert(dataset, data, tmp_path / "plain")
        made = on_beam(dataset, data, tmp_path / "beam", beam_options=options)
        assert made[1:] == plain[1:] and everything(made.folder) == everything(plain.folder)
        first, second = (list(tfds.builder_from_directory(m.folder).as_data_source(
            m.split, decoders={"image": tfds.decode.SkipDecoding()})) for m in (plain, made))
        for a, b in zip(first, second, strict=True):
            assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        infos = [json.loads((m.folder / "dataset_info.json").read_text())["splits"][0] for m in (plain, made)]
        assert infos[0]["shardLengths"] == infos[1]["shardLengths"]


def test_what_a_worker_of_beam_finds_wrong_is_said_and_nothing_is_left(tars, tmp_path, on_beam):
    (tars / "2.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(InputError, match="2.tar is no tar"):
        on_beam("pairs", tars, tmp_path / "out")
    assert everything(tmp_path / "out") == []


@pytest.mark.parametrize("options, words", [("--direct_num_workers=many", "direct_num_workers.*'many'"),
                                            ("'", "No closing quotation"), ("--runner=Fast", "runner: Fast")])
def test_options_that_beam_cannot_read_are_an_error(tars, tmp_path, on_beam, options, words):
    with pytest.raises(InputError, match=words):
        on_beam("pairs", tars, tmp_path / "out", beam_options=options)
    assert everything(tmp_path / "out") == []
