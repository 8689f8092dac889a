import io

import numpy as np
import pytest
from demo_client import png_bomb
from PIL import Image

from groupvit_jax.demo import answers as module
from groupvit_jax.demo import drawing, uploads
from groupvit_jax.demo.answers import Answers, split_words
from groupvit_jax.demo.examples import EXAMPLES, HERE
from groupvit_jax.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def _quickly(quick_compilation):
    pass


@pytest.fixture(scope="module")
def model(run):
    from groupvit_jax import inference

    return inference.load(str(run))


@pytest.fixture(scope="module")
def answers(model):
    return Answers(model)


def photo(height=40, width=56, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels, kind="PNG", **options):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


# ---------------------------------------------------------------- segments and groups


@pytest.mark.parametrize("background", [False, 0.3, "sky; wall"])
@pytest.mark.parametrize("protocol", ["groupvit", "tcl"])
def test_an_answer_is_what_segment_says(answers, model, background, protocol):
    pixels = photo()
    found = answers(pixels, "cat; kitten, sofa,\nred plum ,", background, protocol).result
    expected = model.segment(pixels, ["cat; kitten", "sofa", "red plum"], background, protocol)
    assert found.names == expected.names
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    assert len(found.stages) == len(expected.stages) == 2
    for mine, theirs in zip(found.stages, expected.stages):
        np.testing.assert_array_equal(mine, theirs)


def test_groups_are_told_by_size_with_their_best_words_first(answers, model):
    answer = answers(photo(), "cat, sofa, plum, kite")
    shares = [group.share for group in answer.groups]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    for group in answer.groups:
        scores = [score for _, score in group.best]
        assert len(scores) == module.BEST and scores == sorted(scores, reverse=True)
    where = answer.result.groups == answer.groups[0].number  # where windows do not overlap, a pixel's scores are these
    corner = answer.result.scores[0, 0]
    assert where.mean() == pytest.approx(shares[0])
    group = next(g for g in answer.groups if g.number == answer.result.groups[0, 0])
    assert group.best[0][1] == pytest.approx(corner.max(), rel=1e-3)


def test_one_program_serves_all_sizes_and_numbers_of_words(answers):
    for size, words in (((32, 32), 1), ((37, 90), 3), ((200, 60), 20), ((8, 8), 99)):
        answers(photo(*size), ",".join(f"w{i}" for i in range(words)), protocol="groupvit")
    assert [program._cache_size() for program in (answers._look, answers._table, answers._encoder.project)] == [1, 1, 1]


def test_neither_known_words_nor_known_photographs_are_encoded_again(model, monkeypatch):
    answers, texts, windows = Answers(model), [], []
    encoder, look = answers._encoder, answers._look
    monkeypatch.setattr(answers, "_encoder", lambda variables, new: texts.append(list(new)) or encoder(variables, new))
    monkeypatch.setattr(answers, "_look", lambda *a: windows.append(1) or look(*a))
    first = answers(photo(32, 32), "cat, sofa")
    answers(photo(32, 32, seed=1), "sofa, cat")
    answers(photo(32, 32), "cat, plum")
    again = answers(photo(32, 32), "cat, sofa")
    assert texts == [["a photo of a cat.", "a photo of a sofa."], ["a photo of a plum."]] and len(windows) == 2
    np.testing.assert_array_equal(first.result.scores, again.result.scores)


def test_what_is_kept_is_bounded(model, monkeypatch):
    monkeypatch.setattr(module, "TEXTS", 3)
    monkeypatch.setattr(module, "PHOTOGRAPHS", 2)
    answers = Answers(model)
    for seed in range(4):
        answers(photo(32, 32, seed), f"a{seed}, b{seed}, c{seed}, d{seed}")
    assert len(answers._texts.values) == 3 and len(answers._seen.values) == 2


# ---------------------------------------------------------------- the heat of a point


def test_heat_is_the_soft_share_of_the_points_group(answers, model):
    pixels = photo(32, 32, seed=3)  # one window, as large as the photograph
    answer = answers(pixels, "cat")
    heats = {}
    for y, x in np.argwhere(answer.result.groups >= 0)[::37]:
        heat = answers.heat(pixels, int(x), int(y))
        assert answer.groups[heat.rank - 1].number == answer.result.groups[y, x]
        heats[int(answer.result.groups[y, x])] = heat.values
        assert heat.values.shape == (32, 32) and 0 <= heat.values.min() <= heat.values.max() <= 1
    assert len(heats) > 1
    for group, values in heats.items():  # the group has a pixel where its share is the largest
        assert all((values >= other - 1e-5)[answer.result.groups == group].all() for other in heats.values())


def test_heat_is_nothing_outside_the_window_of_the_group(answers):
    pixels = photo(32, 64)  # windows at columns 0, 16 and 32
    values = answers.heat(pixels, 2, 5).values
    assert not np.isnan(values[:, :30]).any() and np.isnan(values[:, 34:]).all()
    colour = np.ptp(drawing.heat(pixels, answers.heat(pixels, 2, 5)).astype(int), axis=-1)
    assert (colour[:, -100:] == 0).all() and colour[:, :100].max() > 50


def test_points_of_a_drawn_picture_are_those_of_the_photograph():
    pixels = photo(40, 80)
    assert drawing.photograph(pixels).shape == (384, 768, 3)
    assert drawing.point(767.6, 383.9, pixels) == (79, 39) and drawing.point(0, 9.7, pixels) == (0, 1)


@pytest.mark.parametrize("x, y", [(-1, 0), (0, 40), (56, 0)])
def test_a_point_beside_the_photograph_is_refused(answers, x, y):
    with pytest.raises(InputError, match="click inside"):
        answers.heat(photo(), x, y)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("text, message", [
    ("", "Type one or more words"), (" ,;,\n", "Type one or more words"), ("x" * 4001, "4,001 characters long"),
    (",".join(["a; b"] * 51), "102 words: give at most 100"),
])  # fmt: skip
def test_words_that_cannot_be_served_are_refused_in_a_sentence(answers, text, message):
    with pytest.raises(InputError, match=message):
        answers(photo(32, 32), text)


def test_the_backgrounds_words_are_refused_likewise(answers):
    with pytest.raises(InputError, match="words for the background"):
        answers(photo(32, 32), "cat", background=" , ")
    with pytest.raises(InputError, match="101 words"):
        answers(photo(32, 32), "cat", background=",".join(["a"] * 100))


@pytest.mark.parametrize("text", ["שלום, مرحبا", "🐈‍⬛, 🛋", "a\0b, \ud800", "<b>cat</b>, & &amp;", "，".join("猫犬")])
def test_words_of_any_script_are_answered(answers, text):
    answer = answers(photo(32, 32), text)
    assert len(answer.result.names) == 2
    drawing.segments(answer)


def test_words_are_split_at_commas_and_lines():
    assert split_words("cat; kitten;, sofa\n\nred  plum,, ;x; ;y") == ["cat; kitten", "sofa", "red  plum", "x; y"]


def test_a_strip_is_refused_before_it_is_compiled_for(answers):
    with pytest.raises(InputError, match="4 times as long as it is wide: crop it"):
        answers(photo(20, 200), "cat")


# ---------------------------------------------------------------- uploads


def test_an_upload_is_read_the_way_up_that_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    (tmp_path / "a.jpg").write_bytes(encoded(photo(16, 40), "JPEG", exif=exif))
    assert uploads.read(tmp_path / "a.jpg").shape == (40, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_photograph_is_made_smaller(tmp_path, kind):
    (tmp_path / "a").write_bytes(encoded(photo(300, 4100), kind))
    assert uploads.read(tmp_path / "a").shape == (75, 1024, 3)
    (tmp_path / "a").write_bytes(encoded(photo(1024, 100)))
    np.testing.assert_array_equal(uploads.read(tmp_path / "a"), photo(1024, 100))


@pytest.mark.parametrize("data, message", [
    (b"", "cannot be read as a photograph"), (b"hello", "cannot be read as a photograph"),
    (encoded(photo(64, 64), "JPEG")[:900], "cannot be read as a photograph"), (png_bomb(), "89 million pixels"),
    (encoded(photo(7, 40)), "fewer than 8 pixels"), (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read"),
])  # fmt: skip
def test_a_file_that_is_no_photograph_is_refused_in_a_sentence(tmp_path, data, message):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError, match=message):
        uploads.read(tmp_path / "a")


def test_a_file_too_large_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "BYTES", 1000)
    (tmp_path / "a").write_bytes(bytes(1001))
    with pytest.raises(InputError, match="larger than"):
        uploads.read(tmp_path / "a")
    with pytest.raises(InputError, match="upload it again"):
        uploads.read(tmp_path / "gone")


# ---------------------------------------------------------------- examples


def test_the_examples_are_small_and_each_has_its_licence():
    licences = (HERE / "LICENSES").read_text()
    assert {example.file for example in EXAMPLES} == {path.name for path in HERE.glob("*.jpg")}
    for example in EXAMPLES:
        data = (HERE / example.file).read_bytes()
        assert len(data) <= 60_000 and f"{example.file} " in licences
        assert example.licence.endswith(("CC0", "public domain")) and split_words(example.words)
        assert uploads.read(example.path).shape[2] == 3
