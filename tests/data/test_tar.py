import pickle
import tarfile
import threading

import pytest

from groupvit_jax.data.tar import TarSource, expand, write_tar
from groupvit_jax.errors import InputError


def pair(key, caption="a coin"):
    return [(f"{key}.jpg", b"picture " + key.encode()), (f"{key}.txt", caption.encode())]


@pytest.fixture
def shards(tmp_path):
    for shard in range(3):
        write_tar(
            tmp_path / f"{shard:02d}.tar",
            [f for i in range(4) for f in pair(f"{shard}{i}", f"coin {shard}{i}")],
        )
    return tmp_path


def test_samples_are_read_in_the_order_of_names_and_of_the_tar(shards):
    source = TarSource(shards)
    assert len(source) == 12 and [source[i]["key"] for i in (0, 5, 11)] == ["00", "11", "23"]
    assert source[5] == {"image": b"picture 11", "caption": "coin 11", "key": "11"}


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("01.tar", ["01"]),
        ("*.tar", ["00", "01", "02"]),
        ("{01..02}.tar", ["01", "02"]),
        ("", ["00", "01", "02"]),
        ("0{0..1}.tar", ["00", "01"]),
    ],
)
def test_a_pattern_is_a_path_a_folder_a_glob_or_braces(shards, pattern, names):
    assert expand(shards / pattern) == [str(shards / f"{name}.tar") for name in names]


def test_a_missing_shard_of_a_range_is_named(shards):
    with pytest.raises(InputError, match=r"03\.tar"):
        TarSource(shards / "{00..03}.tar")


def test_the_key_ends_at_the_first_dot_of_the_last_part(tmp_path):
    write_tar(
        tmp_path / "a.tar", [("v1.2/x.seg.png", b"s"), ("v1.2/x.JPG", b"p"), ("v1.2/x.txt", b"a leaf\n")]
    )
    assert TarSource(tmp_path / "a.tar")[0] == {"image": b"p", "caption": "a leaf", "key": "v1.2/x"}


def test_a_caption_may_be_in_json(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        [
            ("0.png", b"p"),
            ("0.json", '{"caption": "a plum – ripe"}'.encode()),
            ("1.webp", b"q"),
            ("1.json", b'{"caption": null}'),
            ("2.jpeg", b"r"),
            ("2.json", b'{"caption": "no"}'),
            ("2.txt", b"yes"),
        ],
    )
    source = TarSource(tmp_path / "a.tar")
    assert [source[i]["caption"] for i in range(len(source))] == [
        "a plum – ripe",
        "yes",
    ] and source.skipped == 1


def test_incomplete_samples_are_skipped_and_counted(tmp_path):
    files = [
        ("0.jpg", b"p"),
        ("1.txt", b"words"),
        ("2.jpg", b""),
        ("2.txt", b"empty picture"),
        *pair("3"),
        ("4.jpg", b"p"),
        ("4.txt", b""),
    ]
    write_tar(tmp_path / "a.tar", files)
    source = TarSource(tmp_path / "a.tar")
    assert len(source) == 1 and source.skipped == 4


def test_long_names_are_read(tmp_path):
    write_tar(tmp_path / "a.tar", pair("folder/" + "x" * 150))
    assert TarSource(tmp_path / "a.tar")[0]["key"] == "folder/" + "x" * 150


def test_a_source_survives_pickling_without_its_descriptors(shards):
    source = TarSource(shards)
    first = source[0]
    copy = pickle.loads(pickle.dumps(source))
    assert copy._files == {} and copy[0] == first and len(copy) == 12 and repr(copy) == repr(source)


def test_threads_read_the_same_as_one(shards):
    source, wrong = TarSource(shards), []
    expected = [source[i] for i in range(12)]
    source.close()

    def read():
        wrong.extend(i for _ in range(50) for i in range(12) if source[i] != expected[i])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("length", [700, 1300, 1536 + 3])
def test_a_truncated_tar_is_refused(tmp_path, length):
    write_tar(tmp_path / "a.tar", [("0.jpg", b"p" * 600), ("0.txt", b"words" * 200)])
    (tmp_path / "b.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:length])
    with pytest.raises(InputError, match="b.tar is no complete"):
        TarSource(tmp_path / "b.tar")


@pytest.mark.parametrize("content", [b"<html>not found</html>" * 50, b"", b"\x1f\x8b" + bytes(600)])
def test_a_file_that_is_no_tar_is_refused(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tar is no complete"):
        TarSource(tmp_path / "a.tar")


def test_nothing_to_read_is_an_error_that_names_the_place(tmp_path):
    with pytest.raises(InputError, match=f"no .tar in {tmp_path}"):
        TarSource(tmp_path)
    with pytest.raises(InputError, match="no tar at .*nowhere"):
        TarSource(tmp_path / "nowhere/*.tar")
    write_tar(tmp_path / "a.tar", [("0.jpg", b"p")])
    with pytest.raises(InputError, match="no picture with a caption.*1 incomplete"):
        TarSource(tmp_path)


def test_the_same_files_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_tar(tmp_path / f"{name}.tar", pair("0"))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {member.mtime for member in tar} == {0}


def test_an_interrupted_tar_leaves_no_tar(tmp_path):
    def breaks():
        yield "0.jpg", b"p"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tar(tmp_path / "a.tar", breaks())
    assert not (tmp_path / "a.tar").exists()
