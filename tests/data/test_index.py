"""The index of a shard: made, kept, found stale or broken, made by many at once; what is left out; words."""

import json
import os
import random
import subprocess
import sys

import fsspec
import pyarrow as pa
import pytest
import threads
from range_server import RangeServer

from groupvit_jax import files
from groupvit_jax.data import captions, index, samples, storage
from groupvit_jax.data.bad import BadSample
from groupvit_jax.data.tar import write_tar
from groupvit_jax.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "WAITS", (0.01,))
    monkeypatch.setenv("GROUPVIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(monkeypatch):
    """The paths of the tars that are read to be indexed."""
    paths, scan = [], index._scan

    def watched(path, *rest):
        paths.append(path)
        return scan(path, *rest)

    monkeypatch.setattr(index, "_scan", watched)
    return paths


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def pair(key, caption="a dog on the sand"):
    return [(f"{key}.jpg", b"picture " + key.encode()), (f"{key}.txt", caption.encode())]


def shard(folder, number=0, count=3):
    path = folder / f"{number:02d}.tar"
    write_tar(path, [file for i in range(count) for file in pair(f"{number}-{i}")])
    return str(path)


def table(path):
    return index.read(index.ensure([path])[0]).to_pylist()


def content(path, row):
    """(image, caption) that a row of the table of a tar points to."""
    with open(path, "rb") as file:
        data = file.read()
    return tuple(data[row[f"{kind}_offset"] :][: row[f"{kind}_size"]] for kind in ("image", "caption"))


# ---------------------------------------------------------------- what is in it


def test_a_row_a_sample_says_where_image_and_caption_lie(tmp_path):
    path = shard(tmp_path)
    rows = table(path)
    assert [row["key"] for row in rows] == ["0-0", "0-1", "0-2"] and not any(row["is_json"] for row in rows)
    assert content(path, rows[1]) == (b"picture 0-1", b"a dog on the sand")
    assert os.path.exists(path + ".index.arrow") and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("names, image, caption", [
    (["v1.2/x.seg.png", "v1.2/x.JPG", "v1.2/x.Txt", "v1.2/y.txt"], "v1.2/x.JPG", "v1.2/x.Txt"),
    (["0.webp", "0.png", "0.jpeg", "0.json", "0.caption"], "0.jpeg", "0.caption"),
    (["0.json", "0.webp"], "0.webp", "0.json"),
    (["0.png", "0.text", "0.txt", ".txt", "._0.jpg", "README"], "0.png", "0.txt"),
])  # fmt: skip
def test_the_key_ends_at_the_first_dot_and_the_first_kind_is_taken(tmp_path, names, image, caption):
    write_tar(tmp_path / "a.tar", [(name, name.encode()) for name in names])
    row = table(str(tmp_path / "a.tar"))[0]
    assert content(tmp_path / "a.tar", row) == (image.encode(), caption.encode())
    assert row["is_json"] == caption.endswith("json") and row["key"] == caption.rpartition(".")[0]


@pytest.mark.parametrize("listed, rows, problems", [
    ([("1.txt", b"words")], 0, {"no image": 1}),
    ([("1.jpg", b""), ("1.txt", b"words")], 0, {"no image": 1}),
    ([("1.jpg", b"p")], 0, {"no caption": 1}),
    ([("1.jpg", b"p"), ("1.txt", b""), ("2.jpg", b"p"), ("2.json", b"")], 0, {"no caption": 2}),
    ([("1.jpg", b""), ("1.png", b"p"), ("1.txt", b""), ("1.json", b"{}")], 1, {}),
    ([*pair("1"), *pair("2"), ("1.jpg", b"another"), ("2.TXT", b"another")], 2, {"duplicate key": 2}),
    ([("1.cls", b"3"), ("dataset.json.gz", b"{}")], 0, {}),
])  # fmt: skip
def test_what_is_left_out_is_counted_by_kind(tmp_path, listed, rows, problems):
    write_tar(tmp_path / "a.tar", listed)
    path = str(tmp_path / "a.tar")
    for _ in range(2):  # made, and found
        found = index.ensure([path])[0]
        assert (found.samples, found.problems) == (rows, problems)
    assert all(content(path, row)[0] != b"another" for row in index.read(found).to_pylist())


def test_of_a_truncated_tar_the_whole_samples_are_kept_wherever_it_is_cut(tmp_path):
    path = shard(tmp_path, count=4)
    data, rows = open(path, "rb").read(), table(path)
    for length in [*range(0, 8 * 1024, 97), len(data) - 1]:
        with open(path, "wb") as file:
            file.write(data[:length])
        whole = [row for row in rows if row["caption_offset"] + row["caption_size"] <= length]
        found = index.ensure([path])[0]
        assert index.read(found).to_pylist() == whole, length
        cut = length < 8 * 1024 + 512
        assert found.problems.get("truncated shard", 0) == cut and sum(found.problems.values()) <= 2


@pytest.mark.parametrize("content, words", [
    (b"\x1f\x8b" + bytes(600), "compressed.*gunzip"), (b"<html>not found</html>" * 50, "no tar.*download"),
])  # fmt: skip
def test_a_file_that_is_no_tar_is_refused(tmp_path, content, words):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.tar is {words}"):
        index.ensure([str(tmp_path / "a.tar")])


def test_what_cannot_be_read_is_named(tmp_path):
    os.mkdir(tmp_path / "a.tar")
    for name, words in (("a.tar", "Is a directory"), ("b.tar", "no such file")):
        with pytest.raises(InputError, match=rf"{name} \({words}"):
            index.ensure([str(tmp_path / name)])


@pytest.mark.parametrize("data, is_json, caption", [
    (b" a plum\n", False, "a plum"), ('{"caption": "a plum – ripe"}'.encode(), True, "a plum – ripe"),
    (b'{"caption": null}', True, None), (b"[1]", True, None), (b"{", True, None), (b"[" * 100_000, True, None),
    (b'{"caption": " "}', True, None), (b'{"caption": "a \\ud83d dog"}', True, "a ? dog"), (b"a\0b", False, None),
])  # fmt: skip
def test_a_caption_is_text_or_that_of_a_json_object(data, is_json, caption):
    if caption is None:
        with pytest.raises(BadSample):
            samples.caption_text(data, is_json)
    else:
        assert samples.caption_text(data, is_json) == caption


# ---------------------------------------------------------------- kept and made anew


def test_an_index_is_made_once(tmp_path, made):
    path = shard(tmp_path)
    first, second = index.ensure([path]), index.ensure([path])
    assert first == second and made == [path]


@pytest.mark.parametrize("change", ["size", "time"])
def test_another_size_or_time_of_the_tar_makes_it_anew(tmp_path, made, change):
    path = shard(tmp_path)
    os.utime(path, ns=(0, 5))
    index.ensure([path])
    shard(tmp_path, count=30 if change == "size" else 3)
    os.utime(path, ns=(0, 5 if change == "size" else 6))
    assert index.ensure([path])[0].samples == (30 if change == "size" else 3) and made == [path] * 2
    index.ensure([path])
    assert len(made) == 2


def test_another_version_makes_it_anew(tmp_path, made, monkeypatch):
    path = shard(tmp_path)
    index.ensure([path])
    monkeypatch.setattr(index, "VERSION", index.VERSION + 1)
    assert index.ensure([path])[0].samples == 3 and made == [path] * 2


def arrow(metadata):
    stream = pa.BufferOutputStream()
    batch = pa.record_batch({"key": ["a"]}).replace_schema_metadata(metadata)
    with pa.ipc.new_file(stream, batch.schema) as writer:
        writer.write_batch(batch)
    return stream.getvalue().to_pybytes()


@pytest.mark.parametrize("content", [
    b"", b"garbage" * 100, b"ARROW1\0\0" + bytes(500) + b"ARROW1", arrow({}), arrow({"groupvit": "no JSON"}),
    arrow({"groupvit": "[]"}), arrow({"groupvit": json.dumps({"version": index.VERSION})}),
])  # fmt: skip
def test_a_broken_index_is_made_anew(tmp_path, made, content):
    path = shard(tmp_path)
    files.write(path + index.SUFFIX, content)
    assert len(table(path)) == 3 and made == [path]


def test_a_truncated_or_overwritten_index_never_crashes(tmp_path):
    path, draw = shard(tmp_path), random.Random(0)
    expected = table(path)
    data = open(path + index.SUFFIX, "rb").read()
    for k in range(300):
        wrong = bytearray(data[: draw.randrange(len(data))] if k % 3 == 0 else data)
        for _ in range(0 if k % 3 == 0 else 3):
            wrong[draw.randrange(len(wrong))] = draw.randrange(256)
        files.write(path + index.SUFFIX, bytes(wrong))
        found = index.ensure([path])[0]
        if k % 3 == 0:
            assert index.read(found).to_pylist() == expected


def test_an_index_that_changed_while_in_use_is_an_input_error(tmp_path):
    path = shard(tmp_path)
    opened = index.ensure([path])[0]
    shard(tmp_path, count=5)
    index.ensure([path])
    with pytest.raises(InputError, match="changed while in use: start again"):
        index.read(opened)
    os.remove(opened.index)
    with pytest.raises(InputError, match="changed while in use"):
        index.read(opened)


def test_where_one_cannot_write_the_index_goes_to_the_cache_folder(tmp_path, cache, made, monkeypatch):
    path = shard(tmp_path)
    (tmp_path / "00.tar.index.arrow" / "in the way").mkdir(parents=True)
    opened = index.ensure([path])[0]
    assert opened.index.startswith(str(cache)) and len(index.read(opened)) == 3
    assert index.ensure([path])[0] == opened and made == [path]
    monkeypatch.chdir(tmp_path)
    assert index.ensure(["00.tar"])[0].index == opened.index and made == [path]


def test_where_nothing_can_be_written_the_remedy_is_named(tmp_path, monkeypatch):
    path = shard(tmp_path)
    (tmp_path / "00.tar.index.arrow" / "in the way").mkdir(parents=True)
    monkeypatch.setenv("GROUPVIT_CACHE", path)  # a file
    with pytest.raises(InputError, match="neither beside it nor.*GROUPVIT_CACHE"):
        index.ensure([path])


# ---------------------------------------------------------------- many


@pytest.fixture
def many(tmp_path):
    return [shard(tmp_path, number, count=number % 4) for number in range(12)]


@pytest.fixture
def indexes(many):
    """Bytes of all indexes, made here and removed."""
    index.ensure(many, workers=1)
    made = {path: open(path + index.SUFFIX, "rb").read() for path in many}
    for path in many:
        os.remove(path + index.SUFFIX)
    return made


def test_processes_make_the_same_indexes_as_this_one(many, indexes, monkeypatch, capfd):
    monkeypatch.setattr(index, "_SMALL", 0)
    shards = index.ensure(many, workers=2, progress=True)
    assert [s.path for s in shards] == many and [s.samples for s in shards] == [n % 4 for n in range(12)]
    assert {path: open(path + index.SUFFIX, "rb").read() for path in many} == indexes
    assert "index 12/12" in capfd.readouterr().err
    index.ensure(many, progress=True)
    assert capfd.readouterr().err == ""


def test_an_error_in_a_process_is_raised_here(many, monkeypatch):
    monkeypatch.setattr(index, "_SMALL", 0)
    with open(many[7], "wb") as file:
        file.write(b"no tar" * 200)
    with pytest.raises(InputError, match=r"07\.tar is no tar"):
        index.ensure(many, workers=2)


def test_several_that_index_at_once_all_end_well(many, indexes):
    found, errors = [], []

    def run():
        try:
            found.append(index.ensure(many, workers=1))
        except BaseException as error:
            errors.append(error)

    threads.at_once(run, 6)
    assert not errors and len(found) == 6 and all(one == found[0] for one in found)
    assert {path: open(path + index.SUFFIX, "rb").read() for path in many} == indexes
    assert not [entry for entry in os.scandir(os.path.dirname(many[0])) if ".part" in entry.name]


def test_indexing_needs_no_jax():
    code = ("import sys; from groupvit_jax.data import captions, index, tar_source; captions.tagger('pattern');"
            "assert not {'jax', 'grain', 'tensorflow'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_thousand_shards_open_with_few_descriptors(tmp_path):
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from groupvit_jax.data.tar_source import TarSource
source = TarSource({str(tmp_path)!r})
assert [source[i]["key"] for i in range(len(source))] == [f"{{i:04d}}" for i in range(2000)]
"""
    first = tmp_path / "0000.tar"
    write_tar(first, pair("0000"))
    data = first.read_bytes()[: 4 * 512 + 512]
    for i in range(2000):
        wrong = data.replace(b"0000.", b"%04d." % i)
        for place in (0, 1024):
            head = bytearray(wrong[place : place + 512])
            head[148:156] = b" " * 8
            head[148:156] = b"%06o\0 " % sum(head)
            wrong = wrong[:place] + bytes(head) + wrong[place + 512 :]
        (tmp_path / f"{i:04d}.tar").write_bytes(wrong)
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- remote


def test_the_index_of_a_remote_tar_lies_beside_it_for_others_and_in_the_cache(tmp_path, memory, made, cache):
    memory.pipe_file("/set/00.tar", open(shard(tmp_path), "rb").read())
    opened = index.ensure(["memory://set/00.tar"])[0]
    assert len(index.read(opened)) == 3 and opened.index.startswith(str(cache)) and len(made) == 1
    assert memory.exists("/set/00.tar.index.arrow")
    os.remove(opened.index)  # another host
    assert index.ensure(["memory://set/00.tar"])[0] == opened and len(made) == 1
    memory.pipe_file("/set/00.tar", open(shard(tmp_path, count=5), "rb").read())
    assert index.ensure(["memory://set/00.tar"])[0].samples == 5 and len(made) == 2


def test_a_tar_on_the_web_is_indexed_with_each_byte_fetched_once(tmp_path, made):
    with RangeServer() as web:
        content = os.urandom(3 << 20)
        for number in range(3):
            write_tar(tmp_path / "a.tar", [(f"{i}.jpg", content) for i in range(3)] + [(f"{i}.txt", b"a dog")
                                                                                      for i in range(3)])
            web.files[f"/{number}.tar"] = (tmp_path / "a.tar").read_bytes()
        urls = [f"{web.url}/{number}.tar" for number in range(3)]
        assert [s.samples for s in index.ensure(urls)] == [3, 3, 3]
        assert len(set(web.asked)) == len(web.asked) <= 3 * (10 * 1024 // 1024 + 1)
        index.ensure(urls)
        assert len(made) == 3


def test_a_missing_tar_of_a_remote_range_is_named():
    with RangeServer() as web, pytest.raises(InputError, match=r"cannot read.*/01\.tar"):
        web.files["/00.tar"] = bytes(1024)
        index.ensure(storage.expand(web.url + "/{00..01}.tar"))


# ---------------------------------------------------------------- words


def test_words_are_kept_with_the_name_of_their_tagger(tmp_path, made):
    tag = captions.tagger("pattern")
    listed = [*pair("0", "a dog and a cat"), ("1.jpg", b"p"), ("1.json", b'{"caption": "a red kite"}'),
              *pair("2", "\0\1"), *pair("3", "of the")]
    write_tar(tmp_path / "a.tar", listed)
    path = str(tmp_path / "a.tar")
    opened = index.ensure([path], tagger="pattern")[0]
    assert opened.tagger == "pattern"
    assert [row["words"] for row in index.read(opened).to_pylist()] == [
        captions.content_words("a dog and a cat", tag), captions.content_words("a red kite", tag), [], []]
    assert index.ensure([path])[0] == opened and len(made) == 1  # words do not disturb who asks for none


def test_words_are_added_when_asked_for_and_change_with_the_tagger(tmp_path, made, monkeypatch):
    class Shout:
        name = "nltk"

        def __call__(self, caption):
            return [(word.upper(), "NN") for word in caption.split()]

    path, known = shard(tmp_path), captions.tagger
    monkeypatch.setattr(captions, "tagger", lambda name: Shout() if name == "nltk" else known(name))
    for tagger, words in ((None, None), ("pattern", ["dog", "sand"]), ("nltk", ["DOG", "ON", "THE", "SAND"])):
        for _ in range(2):
            opened = index.ensure([path], tagger=tagger)[0]
            assert opened.tagger == tagger and index.read(opened).to_pylist()[0].get("words") == words
    assert made == [path] * 3


def test_processes_find_the_same_words(many, monkeypatch):
    here = [index.read(s).to_pylist() for s in index.ensure(many, workers=1, tagger="pattern")]
    for path in many:
        os.remove(path + index.SUFFIX)
    monkeypatch.setattr(index, "_SMALL_TAGGED", 0)
    assert [index.read(s).to_pylist() for s in index.ensure(many, workers=2, tagger="pattern")] == here
