import json
import multiprocessing
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from groupvit_jax.data.bad import BadSample
from groupvit_jax.data.record_source import RecordSource, TfdsSource
from groupvit_jax.errors import InputError

PAIRS = [(b"\xff\xd8 one", "a café by the sea"), (b"\x89PNG two", "deux chats"), (b"RIFF three", "a dog 🐶")]


def example(**fields):
    """A serialized tf.train.Example of bytes and whole numbers."""
    record = tf_example_pb2.Example()
    for name, value in fields.items():
        feature = record.features.feature[name]
        (feature.int64_list if isinstance(value, int) else feature.bytes_list).value.append(value)
    return record.SerializeToString()


def write(path, records):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def all_of(source):
    return [source[i] for i in range(len(source))]


def samples(keys):
    return [{"image": image, "caption": caption, "key": key} for (image, caption), key in zip(PAIRS, keys)]


# ---------------------------------------------------------------- files of one's own


@pytest.fixture
def folder(tmp_path):
    """Two files of two records and one."""
    records = [example(image=image, caption=text.encode(), key=b"k%d" % i) for i, (image, text) in enumerate(PAIRS)]
    write(tmp_path / "b.array_record", records[2:])
    write(tmp_path / "a.array_record", records[:2])
    return tmp_path


def test_records_are_the_same_bytes_texts_and_keys_in_the_order_of_the_files(folder):
    source = RecordSource(folder)
    assert len(source) == 3 and all_of(source) == samples(["k0", "k1", "k2"])
    assert (source.tagger, source.block, source.problems) == (None, 1, {"truncated shard": 0})
    assert source.prefetch(2) is None


@pytest.mark.parametrize("pattern, count", [("a.array_record", 2), ("*.array_record", 3), ("{b,a}.array_record", 3)])
def test_a_pattern_may_be_a_file_a_glob_or_braces(folder, pattern, count):
    assert all_of(RecordSource(folder / pattern)) == samples(["k0", "k1", "k2"])[:count]


@pytest.mark.parametrize("image", ["image", "jpg", "jpeg", "png", "webp"])
@pytest.mark.parametrize("caption", ["caption", "text", "txt"])
def test_fields_may_have_the_names_that_others_give_them(tmp_path, image, caption):
    write(tmp_path / "x.array_record", [example(**{image: b"picture", caption: b"words"})])
    assert RecordSource(tmp_path)[0] == {"image": b"picture", "caption": "words", "key": "record#0"}


def test_a_key_may_be_a_number_and_need_not_be_there(tmp_path):
    pair = {"image": b"picture", "caption": b"words"}
    write(tmp_path / "x.array_record", [example(**pair), example(**pair, id=12), example(**pair, __key__=b"\xff")])
    assert [sample["key"] for sample in all_of(RecordSource(tmp_path))] == ["record#0", "12", "\ufffd"]


@pytest.mark.parametrize("kind, record", [
    ("no image", example(caption=b"words", key=b"this")), ("no image", example(image=b"", caption=b"w", key=b"this")),
    ("no caption", example(image=b"picture", key=b"this")),
    ("empty caption", example(image=b"picture", caption=b" \n", key=b"this")),
    ("binary caption", example(image=b"picture", caption=b"\0\1\2", key=b"this")),
    ("broken image", b"no proto at all"),
], ids=["none", "an empty one", "no text", "blanks", "nulls", "noise"])
def test_a_record_that_cannot_be_used_is_a_bad_sample_that_says_which(tmp_path, kind, record):
    write(tmp_path / "x.array_record", [example(image=b"picture", caption=b"words"), record])
    source = RecordSource(tmp_path)
    with pytest.raises(BadSample) as error:
        source[1]
    assert error.value.kind == kind and ("this" in str(error.value) or "record#1" in str(error.value))
    assert source[0]["caption"] == "words"
    assert [source.key(0), source.key(1)] == ["record#0", "this" if kind != "broken image" else "record#1"]


@pytest.fixture
def large(tmp_path):
    """A file of twenty records of 20,000 bytes."""
    noise = np.random.default_rng(0)
    path = tmp_path / "large.array_record"
    write(path, [example(image=noise.bytes(20000), caption=b"words %d" % i) for i in range(20)])
    return path


def test_what_it_reads_is_listed_by_name_size_and_records(folder):
    names = sorted(path.name for path in folder.iterdir())
    sizes = [(folder / name).stat().st_size for name in names]
    assert RecordSource(folder).files() == list(zip(names, sizes, ["0+2", "0+1"]))


def test_damaged_bytes_cost_the_record_they_are_in(large):
    data = bytearray(large.read_bytes())
    data[200_000:200_020] = bytes(20)
    large.write_bytes(data)
    source, bad = RecordSource(large), []
    for i in range(20):
        try:
            assert source[i]["caption"] == f"words {i}"
        except BadSample as error:
            bad.append((i, error.kind))
    assert len(bad) == 1 and bad[0][1] == "broken image"


def test_a_truncated_file_is_left_out_and_counted(large, folder):
    half = folder / "half.array_record"
    half.write_bytes(large.read_bytes()[:150_000])
    large.unlink()
    source = RecordSource(folder)
    assert source.problems == {"truncated shard": 1} and all_of(source) == samples(["k0", "k1", "k2"])
    with pytest.raises(InputError, match="no record in .*half.array_record"):
        RecordSource(half)


@pytest.mark.parametrize("pattern, words", [
    ("nothing-*.array_record", "nothing-"), ("gs://bucket/x.array_record", "copy or mount"),
])
def test_files_that_are_not_there_are_an_error(tmp_path, pattern, words):
    with pytest.raises(InputError, match=re.escape(words)):
        RecordSource(pattern if "://" in pattern else tmp_path / pattern)


def test_records_of_something_else_are_an_error_that_names_their_fields(tmp_path):
    write(tmp_path / "x.array_record", [example(image=b"picture", label=b"3")] * 3)
    with pytest.raises(InputError, match="'caption', but they have image, label"):
        RecordSource(tmp_path)


def test_a_used_source_is_pickled_small_and_reads_the_same_in_a_spawned_process_and_in_threads(large):
    source = RecordSource(large)
    expected = all_of(source)
    assert len(pickle.dumps(source)) < 2000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(source.__getitem__, range(20)) == expected
    fresh = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fresh.__getitem__, list(range(20)) * 20)) == expected * 20


# ---------------------------------------------------------------- TFDS


def prepare(data_dir, fields, records, name="tiny", splits=("train",), features=None):
    """A data set written by TFDS itself; `records` of each split are dictionaries."""

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        code_path = None

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(fields),
                                         disable_shuffling=True)

        def _split_generators(self, _):
            return {split: self._generate_examples() for split in splits}

        def _generate_examples(self):
            yield from enumerate(records)

    Tiny.name = name
    builder = Tiny(data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare(download_dir=str(data_dir / "downloads"))
    return data_dir / name / "1.0.0"


@pytest.fixture
def dataset(tmp_path):
    """Fields "image" and "text", no key, splits train and val."""
    fields = {"image": tfds.features.Image(), "text": tfds.features.Text(), "label": np.int64}
    records = [{"image": image, "text": caption, "label": 3} for image, caption in PAIRS]
    return prepare(tmp_path, fields, records, splits=("train", "val"))


def test_a_data_set_of_tfds_gives_its_bytes_and_texts(dataset):
    source = TfdsSource(dataset)
    assert all_of(source) == samples(["train#0", "train#1", "train#2"])
    assert (source.tagger, source.block, source.problems) == (None, 1, {})
    assert pickle.loads(pickle.dumps(source))[1] == source[1]


@pytest.mark.parametrize("suffix, keys", [(":val", ["val#0", "val#1", "val#2"]), (":train[:2]", ["train[:2]#0"]),
                                          (":train[1:]", None)])
def test_a_split_or_a_part_of_one_is_named_after_a_colon(dataset, suffix, keys):
    source = TfdsSource(f"{dataset}{suffix}")
    expected = PAIRS[1:] if suffix == ":train[1:]" else PAIRS[:2] if suffix == ":train[:2]" else PAIRS
    assert [(sample["image"], sample["caption"]) for sample in all_of(source)] == expected
    assert keys is None or [sample["key"] for sample in all_of(source)][: len(keys)] == keys


def test_another_part_of_a_split_is_another_list_of_files(dataset):
    parts = [TfdsSource(f"{dataset}{suffix}").files() for suffix in (":train", ":train[:50%]", ":train[50%:]")]
    assert parts[0] != parts[1] != parts[2] != parts[0] and len({files[0][:2] for files in parts}) == 1


def test_a_folder_above_will_do_if_one_data_set_is_below(dataset):
    for folder in (dataset.parent, dataset.parent.parent, f"{dataset.parent.parent}:val"):
        assert len(TfdsSource(folder)) == 3
    prepare(dataset.parent.parent, {"image": tfds.features.Image(), "text": tfds.features.Text()},
            [{"image": b"x", "text": "y"}], name="other")
    with pytest.raises(InputError, match="holds 2 data sets: name one, such as .*other/1.0.0"):
        TfdsSource(dataset.parent.parent)


@pytest.mark.parametrize("pattern, words", [
    ("/nowhere", ["no folder /nowhere", "groupvit data convert"]), ("/no\nwhere", ["no folder /no"]),
    ("{}:test", ["'test'", "train, val"]),
    ("{}:train[5:]", ["train[5:]"]), ("{}/..:train[x]", ["train[x]"]),
])
def test_no_such_folder_or_split_is_an_error(dataset, pattern, words):
    with pytest.raises(InputError) as error:
        TfdsSource(pattern.format(dataset))
    for word in words:
        assert word in str(error.value)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no TFDS data set in"):
        TfdsSource(tmp_path)


@pytest.mark.parametrize("fields, record, words", [
    ({"image": tfds.features.Image(), "label": np.int64}, {"image": b"x", "label": 1}, "no captions.*image, label"),
    ({"picture": tfds.features.Image(), "text": tfds.features.Text()}, {"picture": b"x", "text": "y"},
     "no encoded pictures"),
    ({"image": tfds.features.Tensor(shape=(2, 2, 3), dtype=np.uint8), "text": tfds.features.Text()},
     {"image": np.zeros((2, 2, 3), np.uint8), "text": "y"}, "no encoded pictures"),
])
def test_a_data_set_without_the_fields_is_an_error_that_names_those_there_are(tmp_path, fields, record, words):
    with pytest.raises(InputError, match=words):
        TfdsSource(prepare(tmp_path, fields, [record]))


def test_files_of_another_format_are_an_error_that_names_it(dataset):
    about = json.loads((dataset / "dataset_info.json").read_text())
    (dataset / "dataset_info.json").write_text(json.dumps(about | {"fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match="tfrecord files.*file_format='array_record'"):
        TfdsSource(dataset)


def test_a_missing_file_is_an_error_that_names_it(dataset):
    file = next(dataset.glob("*train*"))
    file.unlink()
    with pytest.raises(InputError, match=f"{file} is missing"):
        TfdsSource(dataset)
