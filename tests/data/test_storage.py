"""Where shards lie: patterns, fingerprints, byte ranges of local files, of a memory file system, of a web server."""

import os
import pickle
import resource
import subprocess
import sys
import threading
import time

import fsspec
import pytest
import threads
from range_server import RangeServer

from groupvit_jax.data import storage
from groupvit_jax.data.storage import Reader, expand, fingerprint
from groupvit_jax.errors import InputError


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(storage, "WAITS", (0.01, 0.01))


@pytest.fixture
def shards(tmp_path):
    for name in ("00.tar", "01.tar", "02.tar", "00.json", "00.tar.index.arrow", "val-0.tar", "more/deep.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def web():
    with RangeServer() as server:
        yield server


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize("pattern, names", [
    ("01.tar", ["01"]),
    ("0*.tar", ["00", "01", "02"]),
    ("0*", ["00", "01", "02"]),  # without the index and the JSON beside them
    ("{01..02}.tar", ["01", "02"]),
    ("{02..01}.tar", ["01", "02"]),
    ("0{0..1}.tar", ["00", "01"]),
    ("{01,val-0}.tar", ["01", "val-0"]),
    ("{0{0..1},val-0}.tar", ["00", "01", "val-0"]),
    ("{0?,0*}.tar", ["00", "01", "02"]),
    ("", ["00", "01", "02", "val-0"]),
    ("**/deep.tar", ["more/deep"]),
])  # fmt: skip
def test_a_pattern_is_a_path_a_folder_a_glob_or_braces(shards, pattern, names):
    assert expand(shards / pattern) == [str(shards / f"{name}.tar") for name in names]
    assert expand(f"file://{shards}/{pattern}") == expand(shards / pattern)


def test_the_suffix_says_which_files_of_a_folder_are_meant(shards):
    assert expand(shards, ".json") == [str(shards / "00.json")]
    assert expand(shards, ".tar*")[:2] == [str(shards / "00.tar"), str(shards / "00.tar.index.arrow")]


@pytest.mark.parametrize("pattern, words", [
    ("{00..03}.tar", r"no tar at .*03\.tar"),
    ("nowhere/*.tar", "no tar at .*nowhere"),
    ("empty", r"no \.tar in .*empty"),
])  # fmt: skip
def test_what_is_missing_is_named(shards, pattern, words):
    (shards / "empty").mkdir()
    with pytest.raises(InputError, match=words):
        expand(shards / pattern)


def test_a_url_is_a_path_a_folder_a_glob_or_braces(memory):
    for name in ("/set/00.tar", "/set/01.tar", "/set/00.json"):
        memory.pipe_file(name, b"x")
    for pattern in ("set/{00..01}.tar", "set", "set/", "set/*", "s?t/0[01].tar"):
        assert [memory._strip_protocol(p) for p in expand(f"memory://{pattern}")] == ["/set/00.tar", "/set/01.tar"]
    assert expand("memory://set/00.tar") == ["memory://set/00.tar"]
    for missing in ("memory://set/*.tgz", "memory://elsewhere/*"):
        with pytest.raises(InputError, match="no tar at memory"):
            expand(missing)
    memory.makedirs("/hollow")
    with pytest.raises(InputError, match=r"no \.tar in memory://hollow"):
        expand("memory://hollow")


def test_a_web_address_takes_braces_and_a_query_but_no_glob():
    assert expand("https://host/{8..10}.tar?key=a") == [f"https://host/{i}.tar?key=a" for i in ("10", "8", "9")]
    with pytest.raises(InputError, match=r"web server does not list.*\{00000\.\.00331\}"):
        expand("https://host/*.tar")


@pytest.mark.parametrize("url, remedy", [("gs", "gcsfs"), ("s3", "s3fs"), ("https", "aiohttp")])
def test_a_missing_package_is_named_with_its_pip_install(monkeypatch, url, remedy):
    def missing(path):
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(InputError, match=f"pip install {remedy}$"):
        fingerprint(f"{url}://bucket/0.tar")


def test_an_unknown_protocol_is_an_input_error():
    with pytest.raises(InputError, match="Protocol not known: foo"):
        expand("foo://bucket/*.tar")


# ---------------------------------------------------------------- fingerprints


def test_a_local_fingerprint_tells_size_and_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"four")
    os.utime(path, ns=(0, 123))
    assert fingerprint(str(path)) == (4, "123")
    with pytest.raises(InputError, match="b .no such file"):
        fingerprint(str(tmp_path / "b"))


def test_a_remote_fingerprint_changes_with_the_content(memory, web):
    memory.pipe_file("/a", b"four")
    size, tag = fingerprint("memory://a")
    assert (size, tag) == fingerprint("memory://a") and size == 4 and tag
    time.sleep(0.001)
    memory.pipe_file("/a", b"fore")
    assert fingerprint("memory://a")[1] != tag
    web.files["/a"] = b"four"
    size, tag = fingerprint(web.url + "/a")
    assert size == 4 and tag == f'"{hash(b"four")}"'
    for missing in ("memory://b", web.url + "/b"):
        with pytest.raises(InputError, match="cannot read.*/b"):
            fingerprint(missing)


# ---------------------------------------------------------------- byte ranges


CONTENT = os.urandom(100_000)
RANGES = [(0, 1), (0, 100_000), (999, 1), (1000, 1000), (999, 1002), (50_123, 12_345), (99_999, 1), (99_500, 500)]


@pytest.mark.parametrize("kind", ["local", "memory", "web"])
def test_a_range_is_the_bytes_of_the_file(kind, tmp_path, memory, web):
    (tmp_path / "a").write_bytes(CONTENT)
    memory.pipe_file("/a", CONTENT)
    web.files["/a"] = CONTENT
    path = {"local": str(tmp_path / "a"), "memory": "memory://a", "web": web.url + "/a"}[kind]
    reader = Reader(cache_bytes=5000, chunk_bytes=1000)
    for offset, size in RANGES:
        reader.prefetch(path, offset, size)
        assert reader.read(path, offset, size) == CONTENT[offset : offset + size]
    with pytest.raises(InputError, match="became shorter"):
        reader.read(path, 99_999, 2)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.read(path, 5, 10) == CONTENT[5:15] and copy.chunk_bytes == 1000
    reader.close()
    assert reader.read(path, 5, 10) == CONTENT[5:15]
    reader.close()


def test_no_more_chunks_are_kept_than_asked_for(memory):
    memory.pipe_file("/a", CONTENT)
    reader = Reader(cache_bytes=10_000, chunk_bytes=1000)
    for offset in range(0, 100_000, 700):
        reader.read("memory://a", offset, 700 if offset + 700 < 100_000 else 1)
        assert len(reader._chunks) <= 10


def test_threads_share_one_request_for_a_chunk(web):
    web.files["/a"] = CONTENT
    reader, wrong = Reader(chunk_bytes=10_000), []

    def read():
        for offset in range(0, 100_000, 2500):
            if reader.read(web.url + "/a", offset, 2500) != CONTENT[offset : offset + 2500]:
                wrong.append(offset)

    threads.at_once(read, 8)
    assert not wrong and sorted(web.asked) == [("/a", k, k + 10_000) for k in range(0, 100_000, 10_000)]


def test_a_passing_error_is_tried_again_and_a_lasting_one_is_an_input_error(web):
    web.files["/a"] = CONTENT
    reader, path = Reader(chunk_bytes=1000), web.url + "/a"
    web.failing["/a"] = 2
    assert reader.read(path, 0, 10) == CONTENT[:10]
    web.failing["/a"] = 4  # HEAD and GET, twice
    assert fingerprint(path)[0] == 100_000
    web.failing["/a"] = 100
    with pytest.raises(InputError, match="cannot read.*500.*network"):
        reader.read(path, 5000, 10)
    with pytest.raises(InputError, match="cannot read.*500.*network"):
        fingerprint(path)
    web.failing["/a"] = 0
    assert reader.read(path, 5000, 10) == CONTENT[5000:5010]


def test_a_missing_file_is_not_tried_again(web):
    with pytest.raises(InputError, match="no such file"):
        Reader().read(web.url + "/b", 0, 10)
    assert len(web.asked) == 1


def test_a_server_without_ranges_is_named(web):
    web.files["/a"], web.ranges = CONTENT, False
    with pytest.raises(InputError, match="whole file where a part was asked"):
        Reader(chunk_bytes=1000).read(web.url + "/a", 5000, 10)


def test_local_files_are_read_by_many_threads_with_few_descriptors(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))  # four of them
    for i in range(20):
        (tmp_path / str(i)).write_bytes(bytes([i]) * 1000)
    reader, wrong = Reader(), []
    open_before = len(os.listdir("/proc/self/fd"))

    def read(seed):
        for k in range(400):
            i = (k * (2 * seed + 1)) % 20
            if reader.read(str(tmp_path / str(i)), k, 100) != bytes([i]) * 100:
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(os.listdir("/proc/self/fd")) <= open_before + 4
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_local_files_need_no_fsspec():
    code = ("import sys; from groupvit_jax.data import storage; storage.expand('/etc/host*'); "
            "assert 'fsspec' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
