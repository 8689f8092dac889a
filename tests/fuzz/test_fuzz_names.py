"""Class names of any kind: a segmentation, pictures and a legend, or one line."""

import json
import random

import numpy as np
import pytest
import tiny_run
from mutations import case
from PIL import Image

from groupvit_jax import viz
from groupvit_jax.data.tokenizer import tokenize
from groupvit_jax.errors import InputError
from groupvit_jax.evals import classes
from groupvit_jax.evals.protocol import Protocol

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))
PIECES = ["cat", "שלום", "مرحبا", "😀", "👩‍👩‍👧", "🏳️‍🌈", "\u200b", "\u200d", "\ufeff", "\u202e", "e" + "\u0301" * 50,
          "\0", "\x1b[31m",
          "\x7f", "\n", "\r", "\t", "\u2028", "\xa0", " ", ";", ";;", "{}", "{0}", "%s", "<|endoftext|>", "&amp;lt;",
          "&#0;", "ﷺ",
          "\udc80", "background", "x" * 3000, "\U000e0001", "Ã¢â‚¬", "/", "..", "\\", "'", '"', "$(ls)", "-", "--help"]


@pytest.fixture(scope="module")
def model(tmp_path_factory, quick_compilation):
    return tiny_run.load(tmp_path_factory.mktemp("run"))


def drawn(result) -> None:
    for view, picture in viz.pictures(PICTURE, result, ["input_pred_label", "labels"]):
        assert max(picture.size) < 2 * viz.LONG, view
    rows = json.loads(json.dumps(viz.areas("x.png", result)))
    assert len(rows["classes"]) + (rows["background"] is not None) == len(result.names)


def name(rng: random.Random) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(0, 4)))


def test_any_names_are_segmented_and_drawn_or_refused(model):
    ended = {"drawn": 0, "refused": 0}
    for seed in range(24):
        rng = random.Random(seed)
        names = [name(rng) for _ in range(rng.choice((1, 2, 2, 3, 30)))]
        names = [each for each in names if each.strip()] if rng.random() < 0.7 else names
        with case(seed, names):
            try:
                result = model.segment(PICTURE, names, rng.choice((False, True, "sky; wall", name(rng))))
            except InputError:
                ended["refused"] += 1
                continue
            drawn(result)
            ended["drawn"] += 1
    assert min(ended.values()) > 3, ended


@pytest.mark.parametrize("names", [
    [f"thing {i}" for i in range(10_000)], ["cat"] * 300, ["x" * 2**18], ["cat " * 2**17], ["😀" * 2**16],
    ["; ".join(f"a{i}" for i in range(3000)), "dog"]], ids=["10,000", "one", "long", "words", "emoji", "synonyms"])
def test_many_and_long_names_are_segmented_and_drawn(model, names):
    drawn(model.segment(PICTURE, names))


def test_scores_beyond_memory_are_refused_before_they_are_made(model):
    with pytest.raises(InputError, match="20000x15000 pixels with 30 classes .* smaller, or give fewer"):
        model.segment(np.broadcast_to(np.zeros(3, np.uint8), (15_000, 20_000, 3)), [f"thing {i}" for i in range(30)])


def test_any_name_is_tokens_and_a_line_of_a_legend():
    for seed in range(1000):
        text = name(random.Random(seed))
        with case(seed, text):
            tokens = tokenize([text], 16)
            assert tokens.shape == (1, 16) and tokens.max() == 49407
            shown = viz.readable(text, 7)
            assert 0 < len(shown) <= viz.NAME and all(" " <= c <= "~" or c == "…" for c in shown)


def test_any_class_file_is_a_list_or_one_line(tmp_path):
    (task,), file = classes_of_scenes(), tmp_path / "classes.txt"
    ended = {"read": 0, "refused": 0}
    for seed in range(400):
        rng = random.Random(seed)
        lines = [name(rng) for _ in range(rng.choice((0, 1, 3, 15)))]
        text = rng.choice(("\n", "\r\n", "\n\n")).join(lines)
        data = text.encode("utf-8", rng.choice(("surrogateescape", "replace")))
        data = rng.choice((b"", b"", b"\xef\xbb\xbf", b"\xff\xfe")) + data
        file.write_bytes(data)
        with case(seed, data):
            try:
                names, words, _ = Protocol(class_file=str(file)).class_list(task)
                assert len(names) == len(words) == len(set(names)) and all(map(all, words))
                ended["read"] += 1
            except InputError as error:
                assert len(str(error)) < 400 + len(str(file))
                ended["refused"] += 1
    assert min(ended.values()) > 20, ended


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfbackground\r\ncat\r\n")
    assert classes.read_lines(str(tmp_path / "classes.txt")) == ["background", "cat"]


def test_a_class_file_of_a_megabyte_of_names(tmp_path):
    (task,), file = classes_of_scenes(), tmp_path / "classes.txt"
    file.write_text("\n".join(f"thing {i}" for i in range(80_000)))
    assert len(Protocol(class_file=str(file)).class_list(task)[0]) == 80_000
    file.write_bytes(b"\n" * 2**20)
    with pytest.raises(InputError, match="is empty"):
        Protocol(class_file=str(file)).class_list(task)
    with pytest.raises(InputError, match="cannot read"):
        classes.read_lines(str(tmp_path))


def classes_of_scenes():
    from groupvit_jax.evals import datasets

    return datasets.find_tasks(["scenes"])
