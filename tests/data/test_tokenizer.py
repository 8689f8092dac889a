import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from groupvit_jax.data import tokenizer
from groupvit_jax.data.tokenizer import END, START, Tokenizer, tokenize
from groupvit_jax.errors import InputError

CASES = Path(__file__).parent / "tokenizer_cases.jsonl"  # texts and ids of CLIP's SimpleTokenizer, cut to 77


def test_every_recorded_case_of_clip_has_the_same_ids():
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    assert len(cases) == 900
    tokens = tokenize([case["text"] for case in cases])
    for case, row in zip(cases, tokens, strict=True):
        assert row.tolist() == case["ids"] + [0] * (77 - len(case["ids"])), ascii(case["text"])


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("", ""),
        (" \t\n\x0b\x0c\r ", ""),
        ("\x00\x1b[0m\x7f", ""),
        ("A Dog\r\non\ta\u2028LAWN", "a dog on a lawn"),
        ("wait\x85", "wait…"),  # not a line break: ftfy takes it for Windows-1252
        ("a\u3000dog\u00a0on a lawn", "a dog on a lawn"),
        ("cats &amp; dogs", "cats & dogs"),
        ("cats &amp;amp;amp; dogs", "cats & dogs"),
        ("&lt;b&gt;bold&lt;/b&gt;", "<b>bold</b>"),
        ("a &#1;&#28;dog", "a dog"),
        ("schÃ¶n", "schön"),
        ("cafe\u0301", "café"),
        ("itâ€™s", "it's"),
        ("\u201cquoted\u201d \u2018s", '"quoted" \'s'),
        ("ﬁne", "fine"),
        ("ＡＢＣ１２", "abc12"),
        ("\ud800", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_texts_that_clean_to_the_same_string_have_the_same_ids(text, same_as):
    assert Tokenizer().encode(text) == Tokenizer().encode(same_as)


# CLIP's ids, start and end left out. They never change: weights depend on them.
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("it's", [585, 568]),
        ("<|StartOfText|>x<|endoftext|>", [START, 343, END]),
        ("&lt;|endoftext|&gt;", [END]),
        ("\u017f long s '\u017f", [129, 379, 1538, 338, 6, 129, 379]),  # a long s folds to s: found as 's
        ("2019", [273, 271, 272, 280]),
        ("!!!", [995]),
    ],
)
def test_known_ids(text, ids):
    assert Tokenizer().encode(text) == [START, *ids, END]


def test_long_text_keeps_the_end_token_last():
    tokens = tokenize(["word " * 100, "a cat"], length=8)
    assert tokens.dtype == np.int32 and tokens.shape == (2, 8)
    assert tokens[0].tolist() == [START, *[2653] * 6, END]
    assert tokens[1].tolist() == [START, 320, 2368, END, 0, 0, 0, 0]


def test_text_that_just_fits_is_not_cut():
    assert tokenize("a cat", length=4).tolist() == [[START, 320, 2368, END]]
    assert tokenize("a cat", length=3).tolist() == [[START, 320, END]]
    assert tokenize("a cat", length=2).tolist() == [[START, END]]


def test_no_texts_give_no_rows():
    assert tokenize([]).shape == (0, 77)


@pytest.mark.timeout(120)  # CLIP's own loop takes more than nine minutes
def test_a_million_letters_without_a_blank_are_encoded_in_seconds():
    letters = "".join(chr(97 + i) for i in np.random.default_rng(0).integers(26, size=1_000_000))
    assert Tokenizer().decode(Tokenizer().encode(letters)) == letters


def test_merging_by_heap_equals_clips_scans():
    _, merges, _ = tokenizer.vocabulary()

    def scans(symbols):  # as CLIP does it: find the pair learned first, join it everywhere
        while found := [merges[p] for p in zip(symbols, symbols[1:], strict=False) if p in merges]:
            first, out, i = min(found), [], 0
            while i < len(symbols):
                joined = merges.get(tuple(symbols[i : i + 2])) == first
                out.append(first if joined else symbols[i])
                i += 2 if joined else 1
            symbols = out
        return symbols

    rng = np.random.default_rng(0)
    of_byte = tokenizer.vocabulary().of_byte
    for _ in range(500):
        letters = rng.choice(list(b"aaeinorst\xf0\x9f\x98"), size=rng.integers(1, 40))
        symbols = [of_byte[b] for b in letters]
        assert tokenizer.merge(symbols, merges) == scans(symbols)


def test_cached_words_give_the_ids_of_a_first_reading():
    kept = Tokenizer()
    for text in ("a dog's dog, a DOG", "a dog's dog, a DOG", "dog's"):
        assert kept.encode(text) == Tokenizer().encode(text)


def test_cache_stays_bounded(monkeypatch):
    monkeypatch.setattr(tokenizer, "_CACHED_CHUNKS", 10)
    kept = Tokenizer()
    for i in range(100):
        kept.encode(f"word{i} {'long' * 20}{i}")
        assert len(kept._chunks) <= 10
        assert not any(len(chunk) > 32 for chunk in kept._chunks)


def test_decode_gives_the_cleaned_text_back():
    row = tokenize("  A Photo of &lt;3 schÃ¶n 😀 ")[0]
    assert Tokenizer().decode(row) == "a photo of < 3 schön 😀"


def test_decode_stops_at_the_end_token_and_survives_a_cut_character():
    assert Tokenizer().decode([START, 320, END, 2368, 0]) == "a"
    assert "\ufffd" in Tokenizer().decode([166, 109])


@pytest.mark.parametrize("bad", [49408, -1])
def test_decoding_an_unknown_id_is_an_input_error(bad):
    with pytest.raises(InputError, match="vocabulary"):
        Tokenizer().decode([bad])


@pytest.mark.parametrize("bad", [[b"a cat"], [None], [3]])
def test_what_is_not_text_is_an_input_error(bad):
    with pytest.raises(InputError, match="must be a str"):
        tokenize(bad)


def test_length_without_room_is_an_input_error():
    with pytest.raises(InputError, match="length 1"):
        tokenize("a", length=1)


def test_pickle_is_small_and_leaves_the_cache_behind():
    kept = Tokenizer()
    kept.encode("a photo of a cat")
    data = pickle.dumps(kept)
    assert len(data) < 200
    assert pickle.loads(data).encode("a cat") == kept.encode("a cat")


def test_import_needs_neither_jax_nor_the_vocabulary():
    code = (
        "import sys, groupvit_jax.data.tokenizer as t; "
        "assert 'jax' not in sys.modules and t.vocabulary.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_clean_captions_agree_with_the_tokenizer_of_transformers():
    transformers = pytest.importorskip("transformers")
    lines = gzip.decompress(tokenizer._VOCABULARY.read_bytes()).decode("utf-8").split("\n")[1:48895]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    names += [n + "</w>" for n in names] + ["".join(line.split()) for line in lines]
    names += ["<|startoftext|>", "<|endoftext|>"]
    merges = [tuple(line.split()) for line in lines]
    reference = transformers.CLIPTokenizer(vocab={n: i for i, n in enumerate(names)}, merges=merges)
    cases = [json.loads(line)["text"] for line in CASES.read_text(encoding="utf-8").splitlines()]
    captions = [c for c in cases if c.isascii() and "&" not in c and "<|" not in c and c.isprintable()]
    assert len(captions) > 200
    for caption in captions:
        assert Tokenizer().encode(caption) == reference(caption)["input_ids"], caption
