import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import threads

from groupvit_jax.data import captions
from groupvit_jax.data.captions import TEMPLATES, content_words, prompts, tagger
from groupvit_jax.errors import InputError


def words(caption):
    return content_words(caption, tagger("pattern"))


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def without_nltk_data(monkeypatch, tmp_path):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    tagger.cache_clear()
    yield
    tagger.cache_clear()


@pytest.fixture
def with_nltk_data(monkeypatch, tmp_path):
    """A folder laid out as nltk.download does it, whose tagger knows four words and calls the rest RB."""
    import nltk

    punkt = tmp_path / "tokenizers" / "punkt_tab" / "english"
    punkt.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (punkt / name).write_text("")
    perceptron = tmp_path / "taggers" / "averaged_perceptron_tagger_eng"
    perceptron.mkdir(parents=True)
    known = {"a": "DT", "dog": "NN", "ran": "VBD", "green": "JJ"}
    parts = {"weights": {"bias": {"RB": 1.0}}, "tagdict": known, "classes": ["RB", *known.values()]}
    for part, value in parts.items():
        (perceptron / f"averaged_perceptron_tagger_eng.{part}.json").write_text(json.dumps(value))
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    from nltk.tokenize import _get_punkt_tokenizer

    _get_punkt_tokenizer.cache_clear()
    tagger.cache_clear()
    yield
    _get_punkt_tokenizer.cache_clear()
    tagger.cache_clear()


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a zebra and two coins on the sand", ["zebra", "coins", "sand"]),
        ("photo of a brick", ["photo", "brick"]),
        ("a young boy is playing with his dog in the park .", ["boy", "is", "playing", "dog", "park"]),
        ("Sunset At The Beach In Malibu", ["Sunset", "Beach", "Malibu"]),
        ("We'll see <PERSON> performing at night…", ["see", "PERSON", "performing", "night"]),
        ("it's a guitar's wedding, isn't it?", ["guitar", "wedding", "is"]),
        ("the very red and beautiful", []),
        ("", []),
    ],
)
def test_nouns_and_verbs_are_kept(caption, expected):
    assert words(caption) == expected


def test_a_word_counts_once_whatever_its_case():
    assert words("a dog, a Dog and the DOG") == ["dog"]


NOISE = ["IMG_6921.JPG", "http://a.b/cats?d=e", "www.cats.com", "#1", "2019", "3d", "x", "😀"]


@pytest.mark.parametrize("noise", NOISE)
def test_file_names_links_numbers_and_signs_are_no_words(noise):
    assert words(f"a dog {noise}") == ["dog"]


def test_html_entities_are_no_words():
    assert words("cats &amp; dogs &amp;amp; a bird") == ["cats", "dogs", "bird"]


def test_words_divided_by_a_slash_are_two():
    assert words("a dog/cat") == ["dog", "cat"]


def test_all_eighty_templates_of_clip_take_a_word():
    assert len(set(TEMPLATES)) == 80
    assert all(template.count("{}") == 1 for template in TEMPLATES)
    assert TEMPLATES[0] == "a bad photo of a {}." and TEMPLATES[-1] == "a tattoo of the {}."


def test_prompts_draw_k_different_words():
    texts = prompts("ignored", 3, rng(), words=["cat", "dog", "cow", "hen"], templates=("{}",))
    assert len(set(texts)) == 3 and set(texts) <= {"cat", "dog", "cow", "hen"}


def test_every_word_and_every_template_is_drawn_alike_often():
    generator = rng()
    drawn = [prompts("", 2, generator, words="abcd", templates=("1{}", "2{}")) for _ in range(4000)]
    texts, counts = np.unique(drawn, return_counts=True)
    assert texts.tolist() == ["1a", "1b", "1c", "1d", "2a", "2b", "2c", "2d"]
    assert np.all(np.abs(counts - 1000) < 150)  # five standard deviations


def test_caption_fills_up_where_words_are_few():
    assert prompts("a dog", 3, rng(), words=["dog"], templates=("a {}!",)) == ["a dog!", "a dog", "a dog"]
    assert prompts("red", 2, rng(), words=[]) == ["red", "red"]


def test_no_prompts_for_k_of_zero():
    assert prompts("a dog", 0, rng()) == []


def test_same_generator_state_gives_the_same_prompts():
    caption = "a zebra and two coins on the sand"
    assert prompts(caption, 3, rng(1)) == prompts(caption, 3, rng(1))
    assert len({tuple(prompts(caption, 3, rng(seed))) for seed in range(10)}) > 5


def test_words_come_from_the_caption_by_default(without_nltk_data):
    texts = prompts("a zebra on the sand", 2, rng(), templates=("a photo of a {}.",))
    assert sorted(texts) == ["a photo of a sand.", "a photo of a zebra."]


def test_braces_in_a_word_or_caption_do_no_harm():
    assert prompts("{x}", 2, rng(), words=["{0}"], templates=("a {}",)) == ["a {0}", "{x}"]


@pytest.mark.parametrize("templates", [("a photo",), ("{} and {}",), ()])
def test_a_template_without_one_place_for_the_word_is_an_input_error(templates):
    with pytest.raises(InputError, match="template"):
        prompts("a dog", 1, rng(), words=["dog"], templates=templates)


def test_auto_falls_back_to_the_pattern_tagger(without_nltk_data):
    assert tagger().name == "pattern"


def test_asking_for_nltk_without_its_data_names_the_download(without_nltk_data):
    with pytest.raises(InputError, match=r"nltk\.download\('averaged_perceptron_tagger_eng'\)") as error:
        tagger("nltk")
    assert "\n" not in str(error.value)


def test_auto_takes_nltk_where_its_data_is(with_nltk_data):
    assert tagger().name == "nltk" and tagger() is tagger("nltk")
    assert content_words("A dog ran. a green dog's zebra") == ["dog", "ran"]


def test_an_unknown_tagger_is_an_input_error():
    with pytest.raises(InputError, match="auto, nltk or pattern"):
        tagger("spacy")


def test_tagger_pickles_to_its_name():
    data = pickle.dumps(tagger("pattern"))
    assert len(data) < 200
    assert pickle.loads(data) is tagger("pattern")


def test_import_loads_neither_jax_nor_a_tagger():
    code = (
        "import sys, groupvit_jax.data.captions; "
        "assert not {'jax', 'nltk', 'textblob'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_that_begin_together_find_the_same_words():
    """In a new process, whose lexicon is not yet read; the threads take turns as often as they can."""
    code = """
import sys
from threads import at_once
from groupvit_jax.data.captions import content_words, tagger
sys.setswitchinterval(1e-5)
found = []
at_once(lambda: found.append(content_words("two cats are sleeping near a brown dog", tagger("pattern"))), 6)
assert found == [["cats", "are", "sleeping", "dog"]] * 6, found
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(threads.__file__).parent)


def test_ten_thousand_characters_are_tagged(without_nltk_data):
    for text in ("a dog " * 1700, "x" * 10_000, "-._" * 3_333, "n't" * 3_333):
        assert len(captions.content_words(text)) <= 2
