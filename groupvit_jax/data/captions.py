"""Captions to prompts: the words that an image may show, each put in a sentence (GroupViT, section 3.2).

The multi-label loss wants, beside the caption, K texts that each name one thing. They are words of the
caption, found by their part of speech, in sentences such as "a photo of a {}.".
"""

import html
import re
import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from groupvit_jax.errors import InputError

# CLIP's 80 ImageNet templates, one {} in each.
TEMPLATES = tuple((Path(__file__).parent / "templates_full.txt").read_text(encoding="utf-8").splitlines())

# Penn Treebank: common nouns, proper nouns in the singular, verbs in all their forms.
KEPT_TAGS = frozenset({"NN", "NNS", "NNP", "VBG", "VB", "VBD", "VBN", "VBP", "VBZ"})

# A link; a word before n't; a clitic as the Treebank splits it (is|n't, dog|'s); a word, whose inner hyphens
# and dots stay, so that file names hold together; or one sign.
_TOKENS = re.compile(
    r"\w+://\S+|www\.\S+|\w+?(?=n['’]t\b)|n['’]t\b|['’](?:s|re|ve|m|ll|d)\b|\w+(?:[-.]+\w+)*|[^\w\s]",
    re.IGNORECASE,
)

_LOADING = threading.Lock()

Tagger = Callable[[str], list[tuple[str, str]]]  # caption -> (word, Penn tag) pairs; has a `.name`


class PatternTagger:
    """TextBlob's tagger: the lexicon and suffix rules of pattern.en. Needs no data beyond the package."""

    name = "pattern"

    def __init__(self) -> None:
        from textblob.en import parser  # imports NLTK: half a second, only where captions are tagged

        self._parser, lexicon = parser, parser.lexicon
        with _LOADING:  # each is read when first used, and another thread would go on with what of it is there by then
            for part in (lexicon, lexicon.morphology, lexicon.context, lexicon.entities):
                len(part)

    def __reduce__(self) -> tuple:
        return tagger, (self.name,)  # a worker process loads its own lexicon

    def __call__(self, caption: str) -> list[tuple[str, str]]:
        return [(word, tag) for word, tag in self._parser.find_tags(_TOKENS.findall(caption))]


class NltkTagger:
    """NLTK's averaged perceptron, the published choice; far slower. LookupError without NLTK's data."""

    name = "nltk"

    def __init__(self) -> None:
        import nltk

        self._tokens = nltk.word_tokenize
        self._tokens("One sentence.")  # raises here, not at the first caption, where punkt_tab is missing
        self._tagger = nltk.tag.PerceptronTagger()  # nltk.pos_tag would read the weights at every call

    def __reduce__(self) -> tuple:
        return tagger, (self.name,)

    def __call__(self, caption: str) -> list[tuple[str, str]]:
        return self._tagger.tag(self._tokens(caption))


@cache
def tagger(name: str = "auto") -> PatternTagger | NltkTagger:
    """The part-of-speech tagger of this process; its `.name` says which one it is.

    Args:
      name: "nltk", "pattern", or "auto": NLTK's where its data is installed, as in the paper, else the
        pattern one. Prompts differ between the two, so a run that must be repeatable elsewhere names one.
    Raises: InputError for another name, or for "nltk" without its data.
    """
    if name == "pattern":
        return PatternTagger()
    if name == "auto":
        try:
            return tagger("nltk")
        except InputError:
            return tagger("pattern")
    if name != "nltk":
        raise InputError(f"unknown tagger {name!r}; use auto, nltk or pattern")
    try:
        return NltkTagger()
    except LookupError:
        raise InputError(
            "the nltk tagger needs NLTK's data: python -c \"import nltk; nltk.download('punkt_tab'); "
            "nltk.download('averaged_perceptron_tagger_eng')\", or use the tagger 'pattern'"
        ) from None


def content_words(caption: str, tag: Tagger | None = None) -> list[str]:
    """The words of a caption that can stand in a prompt: nouns and verbs, in their order and spelling.

    Args:
      caption: one caption, as it was read.
      tag: from `tagger`; the automatic one by default.
    Returns: words tagged as one of KEPT_TAGS. Each word once, whatever its case, and only words of letters
      and hyphens, two or more: taggers call every unknown string a noun, file names, links and signs too.
    """
    if "&" in caption:
        caption = html.unescape(html.unescape(caption))  # else "&amp;" gives the noun "amp"
    words: dict[str, str] = {}
    for word, label in (tag or tagger())(caption):
        if label in KEPT_TAGS and len(word) > 1 and word.replace("-", "").isalpha():
            words.setdefault(word.lower(), word)
    return list(words.values())


def prompts(
    caption: str,
    k: int,
    rng: np.random.Generator,
    words: Sequence[str] | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> list[str]:
    """K texts for one image: words of its caption, drawn without replacement, each in a random template.

    Args:
      caption: fills up where there are fewer than K words.
      k: number of texts K, 0 or more (the paper uses 3).
      rng: decides words and templates; the same state gives the same prompts.
      words: to draw from; `content_words(caption)` by default.
      templates: sentences with one {} for the word; CLIP's 80 by default.
    Returns: K strings, words first.
    Raises: InputError for a template without {}.
    """
    if k == 0:
        return []
    templates = _checked(tuple(templates))
    words = content_words(caption) if words is None else words
    drawn = rng.permutation(len(words))[:k]
    sentences = rng.integers(len(templates), size=len(drawn))
    texts = [templates[s].replace("{}", words[w]) for s, w in zip(sentences, drawn, strict=True)]
    return texts + [caption] * (k - len(texts))


@lru_cache(maxsize=16)
def _checked(templates: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [t for t in templates if t.count("{}") != 1]
    if wrong or not templates:
        got = repr(wrong[0]) if wrong else "no template at all"
        raise InputError(
            f"a prompt template needs one {{}} for the word, as in 'a photo of a {{}}.'; got {got}"
        )
    return templates
