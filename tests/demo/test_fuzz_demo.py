"""Hostile files and words, drawn from a seed, to the server of the demo."""

import contextlib
import io
import random
import urllib.error

import numpy as np
import pytest
from demo_client import ask, download, png_bomb, post, upload
from PIL import Image

from groupvit_jax.demo import uploads

CASES = 60


def picture(kind: str, size=(40, 30), **options) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


WHOLE = [picture(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")]
FILES = [b"", b"hello", bytes(1000), png_bomb(), png_bomb(30_000), b"%!PS-Adobe-3.0 EPSF\nrun", b"\xff\xd8\xff",
         b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", picture("PNG", (1, 400)),
         picture("JPEG", (3000, 20))]  # fmt: skip
NAMES = ["a.jpg", "a.png", "a.svg", "../../a.png", "/etc/a.png", "a b;c'.gif", "猫.webp", "x" * 200 + ".jpg", ".jpg",
         "a"]  # fmt: skip
WORDS = ["cat", "cat; kitten, sofa", "", " ,;", "שלום, مرحبا", "🐈‍⬛, 🛋, 👩‍🚀", "a\0b,\x1b[2J", "\u202ecat, \u200b",
         "<script>alert(1)</script>", "x" * 10**6, "a," * 10**5, "a;" * 3000, "{}, {0}, %s",
         "<|endoftext|>, <|startoftext|>", "\n\n\r", "cat" * 1000]  # fmt: skip


def damaged(rng: random.Random) -> bytes:
    """A picture cut, or with some bytes changed."""
    data = bytearray(rng.choice(WHOLE))
    if rng.random() < 0.4:
        return bytes(data[: rng.randrange(len(data))])
    for _ in range(rng.choice((1, 3, 30))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def question(rng: random.Random) -> tuple[bytes, str, list]:
    """A file, its name, and what else is asked."""
    data = rng.choice([rng.choice(FILES), damaged(rng), damaged(rng), rng.choice(WHOLE)])
    return data, rng.choice(NAMES), [rng.choice(WORDS), rng.choice(["none", "by a threshold", "by words"]),
                                     rng.choice([0, 0.5, 1]), rng.choice(WORDS), rng.choice(["groupvit", "tcl"])]


def check(answer: dict) -> None:
    """It is a label map, or a sentence."""
    assert isinstance(answer, dict), answer
    said = answer["status"]
    if not said:
        labels = np.asarray(Image.open(io.BytesIO(download(answer["labels"]))))
        names = answer["numbers"].count("<bdi>")
        assert labels.ndim == 2 and labels.max() < names
    else:
        assert 20 < len(said) < 300 and said.count("<div") == 1


def test_whatever_is_uploaded_gets_an_answer_or_a_sentence(demo):
    answers = 0
    for seed in range(CASES):
        data, name, asked = question(random.Random(seed))
        try:
            answer = ask(demo.url, upload(demo.url, data, name), *asked)
            check(answer)
            answers += not answer["status"]
        except Exception as error:
            error.add_note(f"case {seed}: {data[:40]!r} as {name!r}, {[str(each)[:40] for each in asked]}")
            raise
    assert 5 < answers < CASES - 5
    assert demo.process.poll() is None and "Traceback" not in demo.log()


def test_every_hostile_word_with_a_whole_photograph(demo):
    file = upload(demo.url, WHOLE[0])
    for words in WORDS:
        check(ask(demo.url, file, words))


@pytest.mark.parametrize("file", [
    {"path": "/etc/hostname"}, {"path": "../../../etc/hostname"}, {"path": "http://127.0.0.1:1/a.png"},
    {"path": "https://example.invalid/a.png"}, {"path": "HTTP://127.0.0.1:1/a.png"}, {"path": ""},
    {"url": "http://127.0.0.1:1/a.png"}, {"path": None, "url": "data:image/png;base64,AAAA"},
])  # fmt: skip
def test_no_other_file_is_read_and_no_address_is_fetched(demo, file):
    answer = ask(demo.url, file | {"meta": {"_type": "gradio.FileData"}}, "cat")
    assert isinstance(answer, str) or answer["status"]
    assert "'127.0.0.1', 1)" not in demo.log() and "example.invalid" not in demo.log()


@pytest.mark.parametrize("place", range(5))
def test_no_address_is_fetched_that_is_said_to_be_words(demo, place):
    asked = ["cat", "none", 0.5, "", "groupvit"]
    asked[place] = {"path": f"http://place{place}.invalid/a.png", "meta": {"_type": "gradio.FileData"}}
    assert isinstance(ask(demo.url, upload(demo.url, WHOLE[0]), *asked), str)
    assert f"place{place}.invalid" not in demo.log()


@pytest.mark.parametrize("asked", [
    (3, "none"), (["cat"], "none"), ({"a": 1}, "none"), ("cat", "nonsense"), ("cat", None),
    ("cat", "by a threshold", "x"), ("cat", "by a threshold", 1e308),
    ("cat", "by a threshold", -1), ("cat", "none", 0.5, "", "none"), (None, "none"),
])  # fmt: skip
def test_values_of_other_kinds_are_refused_and_the_server_lives(demo, asked):
    file = upload(demo.url, WHOLE[1])
    answer = ask(demo.url, file, *asked)
    assert isinstance(answer, str) or "labels" in answer
    check(ask(demo.url, file, "cat"))


def test_a_file_that_is_too_large_is_refused(demo):
    with pytest.raises(urllib.error.HTTPError, match="413"):
        upload(demo.url, bytes(uploads.BYTES + 1))
    assert max((path.stat().st_size for path in demo.tmp.rglob("*") if path.is_file()), default=0) <= uploads.BYTES


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"data": 3}', b'{"data": []}', b"\xff" * 100])
def test_a_body_that_is_no_question_harms_nothing(demo, body):
    with contextlib.suppress(urllib.error.HTTPError):  # some it takes, and refuses when it is their turn
        post(f"{demo.url}/gradio_api/call/answer", body, "application/json")
    check(ask(demo.url, upload(demo.url, WHOLE[2]), "cat"))
