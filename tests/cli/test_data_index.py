"""groupvit data index: what it makes, what it says, what it refuses."""

import os

import pytest

from groupvit_jax.data import captions, index
from groupvit_jax.data.tar import write_tar
from groupvit_jax.data.tar_source import TarSource


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUPVIT_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        listed = [file for i in range(3) for file in ((f"{i}.jpg", b"picture"), (f"{i}.txt", b"a dog on the sand"))]
        write_tar(tmp_path / f"{name}.tar", [*listed, ("4.jpg", b"picture")])
    return tmp_path


def test_each_pattern_is_indexed_and_reported(groupvit, shards):
    done = groupvit("data", "index", f"--data={shards}/*.tar", f"--data={shards}/b.tar")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{shards}/*.tar: 2 shards, 6 pairs, ") and lines[0].endswith(" s")
    assert lines[1:3] == ["  left out: 2 x no caption", "  index: beside the shards"]
    assert lines[3].startswith(f"{shards}/b.tar: 1 shards, 3 pairs, ") and len(lines) == 6
    again = groupvit("data", "index", f"--data={shards}")
    assert again.code == 0 and again.err == ""


def test_truncated_shards_are_named(groupvit, shards):
    os.truncate(shards / "b.tar", 3000)
    done = groupvit("data", "index", f"--data={shards}")
    assert "1 x truncated shard\n" in done.out and f"  truncated: {shards}/b.tar\n" in done.out


def test_prompts_keeps_the_words_and_names_the_tagger(groupvit, shards):
    done = groupvit("data", "index", f"--data={shards}", "--prompts", "--tagger=pattern", "--workers=1")
    assert done.code == 0 and done.out.splitlines()[3] == "  words: by the tagger pattern", done.err
    words = captions.content_words("a dog on the sand", captions.tagger("pattern"))
    assert TarSource(shards)[0]["words"] == words


def test_where_the_index_went_is_said(groupvit, shards):
    os.makedirs(f"{shards}/a.tar{index.SUFFIX}/in the way")
    done = groupvit("data", "index", f"--data={shards}/a.tar")
    assert f"  index: {shards}/cache\n" in done.out
    assert f"  index: beside the shards, {shards}/cache\n" in groupvit("data", "index", f"--data={shards}").out


@pytest.mark.parametrize("arguments, words", [
    ([], ["usage: groupvit data index --data=PATTERN"]),
    (["more", "--data=x.tar"], ["usage: groupvit data index"]),
    (["--data=/nowhere/{00..01}.tar"], ["no tar at /nowhere/00.tar"]),
    (["--data=x.tar", "--tagger=nltk"], ["--prompts"]),
    (["--data=x.tar", "--workers=0"], ["--workers"]),
    (["--data=gs://bucket/*.tar"], ["gcsfs"]),
])  # fmt: skip
def test_wrong_input_is_one_line(groupvit, refused, arguments, words):
    refused(groupvit("data", "index", *arguments), *words)


def test_what_is_no_tar_is_one_line(groupvit, refused, tmp_path):
    (tmp_path / "a.tar").write_bytes(b"\x1f\x8b" + bytes(1000))
    refused(groupvit("data", "index", f"--data={tmp_path}"), "a.tar is compressed", "gunzip")
